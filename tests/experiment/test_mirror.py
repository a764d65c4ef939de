"""Copies of a folder follow it, whatever happens to its files, and whichever answers get lost."""

import os
import random
import shutil
from pathlib import Path

import pytest

from trpo_lightning.experiment.launchers.mirror import Changes, Watched, apply, contents


@pytest.fixture
def folders(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    return tmp_path / "there", tmp_path / "here"


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sent(changes):
    return {part.path: (part.offset, part.data) for part in changes.parts}


def test_a_file_that_grows_sends_its_end_and_one_that_is_replaced_all_of_it(folders):
    there, here = folders
    (there / "metrics.csv").write_bytes(b"a\n1\n")
    (there / "status.json").write_bytes(b"{}")
    watched = Watched(there)
    first = watched.changes(0)
    apply(here, first)
    with open(there / "metrics.csv", "ab") as file:
        file.write(b"2\n")
    second = watched.changes(first.number)
    assert sent(second) == {"metrics.csv": (4, b"2\n")}
    apply(here, second)
    (there / "new").write_bytes(b"b\n1\n2\n3\n")
    (there / "new").rename(there / "metrics.csv")
    third = watched.changes(second.number)
    assert sent(third) == {"metrics.csv": (0, b"b\n1\n2\n3\n")}
    apply(here, third)
    assert files(here) == files(there) and watched.changes(third.number).parts == []


def test_what_was_not_received_is_sent_again(folders):
    there, here = folders
    watched = Watched(there)
    (there / "log.txt").write_bytes(b"one\n")
    first = watched.changes(0)
    apply(here, first)
    with open(there / "log.txt", "ab") as file:
        file.write(b"two\n")
    lost = watched.changes(first.number)
    with open(there / "log.txt", "ab") as file:
        file.write(b"three\n")
    again = watched.changes(first.number)
    assert sent(lost) == {"log.txt": (4, b"two\n")} and sent(again) == {"log.txt": (4, b"two\nthree\n")}
    apply(here, again)
    assert files(here) == files(there)


def test_barriers_are_read_before_the_rows_and_written_after_them_and_the_state_around_both(folders):
    there, _ = folders
    for name in ("metrics.csv", "status.json", "checkpoints/barrier_00000002.ckpt", "config.yaml"):
        (there / name).write_bytes(b"x")
    names = [part.path for part in Watched(there).changes(0).parts]
    assert names[0] == "status.json" and names[1].startswith("checkpoints/")
    assert set(names[2:]) == {"metrics.csv", "config.yaml"}


def test_locks_links_and_unfinished_files_stay_where_they_are(folders, tmp_path):
    there, _ = folders
    for name in (".lock", ".status.json.7.tmp", "checkpoints/.barrier_00000002.ckpt.7.tmp", "kept.txt"):
        (there / name).write_bytes(b"x")
    (there / "link").symlink_to(tmp_path)
    assert [part.path for part in contents(there).parts] == ["kept.txt"]


def test_a_folder_that_is_gone_is_an_error_and_removes_nothing(folders):
    there, here = folders
    (there / "log.txt").write_bytes(b"x")
    watched = Watched(there)
    changes = watched.changes(0)
    apply(here, changes)
    shutil.rmtree(there)
    with pytest.raises(FileNotFoundError):
        watched.changes(changes.number)
    assert files(here) == {"log.txt": b"x"}


@pytest.mark.parametrize("seed", range(20))
def test_after_any_history_of_files_and_lost_answers_the_copy_is_the_same(folders, seed):
    there, here = folders
    chance, watched, received = random.Random(seed), Watched(there), 0
    names = ["status.json", "log.txt", "metrics.csv", "checkpoints/a", "checkpoints/b", "wandb/run/x.wandb"]
    for _ in range(60):
        path = there / chance.choice(names)
        path.parent.mkdir(parents=True, exist_ok=True)
        deed = chance.choice(["append", "replace", "rewrite", "cut", "remove"])
        data = chance.randbytes(chance.randrange(5))
        if deed == "append":
            with open(path, "ab") as file:
                file.write(data)
        elif deed == "replace":
            (there / "new").write_bytes(data)
            (there / "new").rename(path)
        elif deed == "rewrite":
            path.write_bytes(data)
        elif deed == "cut" and path.exists():
            os.truncate(path, path.stat().st_size // 2)
        elif path.exists():
            path.unlink()
        if chance.random() < 0.5:
            changes = watched.changes(received)
            if chance.random() < 0.6:
                apply(here, changes)
                received = changes.number
    apply(here, watched.changes(received))
    assert files(here) == files(there)


def test_no_changes_change_nothing(tmp_path: Path):
    apply(tmp_path, Changes())
    assert files(tmp_path) == {}
