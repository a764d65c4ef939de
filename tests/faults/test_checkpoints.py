"""Files (checkpoints, policies, failed updates) that are damaged, foreign or hostile: one line, and no code runs."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import assert_same_run, learned_hash, newest, one_line_of, train

from trpo_lightning import UserError
from trpo_lightning.__main__ import main
from trpo_lightning.errors import StuckError
from trpo_lightning.runs.checkpoint import checkpoint_files
from trpo_lightning.storage import checksummed_file, migrations
from trpo_lightning.training.failed_update import failed_update_path, read_failed_update
from trpo_lightning.training.trained_policy import load_file

HERE = Path(__file__).parent
READERS = {"barrier": checksummed_file.read, "policy": load_file, "failed_update": read_failed_update}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # `main` sets them; this puts them back


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of four iterations with barriers at 2 and 4."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def failed_update(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("stuck") / "run"
    with pytest.raises(StuckError):
        train(run_dir, "rule.kl_slack=1e-9", "rule.max_rejections=2")
    return failed_update_path(run_dir, 2)


@pytest.fixture(scope="module")
def files(whole, failed_update) -> dict[str, Path]:
    checkpoints = whole / "checkpoints"
    return {
        "barrier": checkpoints / "barrier_00000004.ckpt",
        "policy": checkpoints / "last.pt",
        "failed_update": failed_update,
    }


@pytest.fixture
def run_dir(whole, tmp_path) -> Path:
    """A copy of the run, as if it was stopped after its last barrier."""
    shutil.copytree(whole, tmp_path / "run")
    status = json.loads((whole / "status.json").read_text())
    (tmp_path / "run" / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    return tmp_path / "run"


def refused(kind: str, path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        READERS[kind](path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


# ---- damage


@pytest.mark.parametrize("kind", READERS)
def test_a_file_cut_anywhere_is_refused(files, tmp_path, kind):
    data = files[kind].read_bytes()
    header = data.index(b"\n") + 1
    lengths = {*range(header + 3), len(data) - 1, len(data) - 2, *range(0, len(data), len(data) // 40)}
    for length in sorted(lengths):
        message = refused(kind, tmp_path / "cut", data[:length])
        assert ("its beginning is damaged" if length < header else "SHA-256") in message


def flips(files: dict[str, Path], folder: Path, kind: str, count: int, seed: int) -> None:
    data, numbers = files[kind].read_bytes(), random.Random(seed)
    for _ in range(count):
        flipped = bytearray(data)
        flipped[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
        refused(kind, folder / "flipped", bytes(flipped))


@pytest.mark.parametrize("kind", READERS)
def test_a_flipped_bit_is_noticed(files, tmp_path, kind):
    header = files[kind].read_bytes().index(b"\n") + 1
    flips(files, tmp_path, kind, 100, seed=0)
    data = files[kind].read_bytes()
    for place in range(header):  # each byte of the line that tells format and hash
        refused(kind, tmp_path / "flipped", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


@pytest.mark.faults
@pytest.mark.parametrize("kind", READERS)
def test_three_thousand_flipped_bits_are_noticed(files, tmp_path, kind):
    flips(files, tmp_path, kind, 3000, seed=1)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "beginning is damaged"),
        (b"junk\n" * 1000, "beginning is damaged"),
        (b"PK\x03\x04", "beginning is damaged"),
        (b"trpo_lightning checkpoint 9 sha256=" + b"0" * 64 + b"\nx", "has format 9, this version reads up to 2"),
        (b"trpo_lightning checkpoint 0 sha256=" + b"0" * 64 + b"\nx", "has format 0"),
        (b"trpo_lightning checkpoint " + b"9" * 5000 + b" sha256=" + b"0" * 64 + b"\nx", "beginning is damaged"),
    ],
    ids=["empty", "junk", "zip", "later", "zero", "huge"],
)
def test_what_is_no_file_of_ours_is_refused(tmp_path, kind, contents, message):
    told = refused(kind, tmp_path / "file", contents)
    assert message in told or (kind == "policy" and contents[:2] == b"PK" and "it is damaged" in told)


@pytest.mark.parametrize("kind", READERS)
def test_sealed_files_of_another_kind_are_refused(files, tmp_path, kind):
    others: dict[str, object] = {name: checksummed_file.read(path) for name, path in files.items() if name != kind}
    if kind == "barrier":  # the reader of barriers is the run's
        return
    for state in (*others.values(), {}, {"kind": kind}, [1], torch.zeros(3)):
        checksummed_file.save(state, tmp_path / "other")  # type: ignore[arg-type]
        refused(kind, tmp_path / "other", (tmp_path / "other").read_bytes())


@pytest.mark.parametrize("kind", ["policy", "failed_update"])
def test_parts_that_are_missing_or_of_other_types_are_named_in_one_line(files, tmp_path, kind):
    state = checksummed_file.read(files[kind])
    used = set(state) - {"metadata"}
    for part in sorted(used):
        for other in ("absent", None, 3, "text", [], {}, torch.zeros(2)):
            changed = {name: value for name, value in state.items() if name != part}
            if other != "absent":
                changed[part] = other
            checksummed_file.save(changed, tmp_path / "file")
            try:
                READERS[kind](tmp_path / "file")
            except UserError as error:
                assert str(tmp_path / "file") in str(error)


# ---- a resumed run


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_policy(path: Path) -> None:
    state = checksummed_file.read(path)
    del state["policy"]
    checksummed_file.save(state, path)


def of_another_seed(path: Path) -> None:
    state = checksummed_file.read(path)
    checksummed_file.save({**state, "settings": {**state["settings"], "seed": 7}}, path)


def ahead_of_the_records(path: Path) -> None:
    checksummed_file.save({**checksummed_file.read(path), "iteration": 6}, path)


def hostile(path: Path) -> None:
    path.write_bytes(sealed_pickle(path.parent / "ran"))


UNFIT = {
    damaged: "SHA-256",
    emptied: "beginning is damaged",
    without_policy: "it lacks policy",
    of_another_seed: "a run with other settings (seed)",
    ahead_of_the_records: "metrics.csv has only 4 whole rows",
    hostile: "more than tensors and plain values",
}


@pytest.mark.parametrize("spoil", UNFIT, ids=lambda spoil: spoil.__name__)
def test_a_run_goes_on_from_the_barrier_before_and_says_so(run_dir, tmp_path, whole, capsys, spoil):
    spoil(run_dir / "checkpoints" / "barrier_00000004.ckpt")
    capsys.readouterr()
    assert train(run_dir, "total_iterations=6", resume=True).iteration == 6
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert "barrier_00000004.ckpt" in warning and UNFIT[spoil] in warning and "trying the one before" in warning
    train(tmp_path / "straight", "total_iterations=6")
    assert_same_run(tmp_path / "straight", run_dir)


def test_a_barrier_of_another_run_copied_in_is_not_taken(run_dir, tmp_path, capsys):
    train(tmp_path / "other", "seed=1", "rule.delta=0.5")
    for path in checkpoint_files(tmp_path / "other" / "checkpoints"):
        shutil.copy(path, run_dir / "checkpoints" / path.name)
    assert main(["train", "--resume", str(run_dir), "total_iterations=6", "--quiet"]) == 2
    captured = capsys.readouterr()
    line = one_line_of(captured.err)
    assert "none of its 2 barrier files" in line and "other settings (rule.delta, seed)" in line
    assert captured.out.count("is a barrier of a run with other settings") == 2


def test_rows_that_a_barrier_builds_on_must_be_there(run_dir, capsys):
    lines = (run_dir / "metrics.csv").read_text().splitlines(keepends=True)
    (run_dir / "metrics.csv").write_text("".join(lines[:2]) + lines[2][:20])
    with pytest.raises(UserError, match=r"metrics\.csv has only 1 whole rows"):
        train(run_dir, resume=True)
    assert (run_dir / "metrics.csv").read_text().startswith(lines[0] + lines[1])


@pytest.mark.parametrize("name", ["status.json", "provenance.json"])
@pytest.mark.parametrize("contents", [b"", b"{", b"3", b"\xff\xfe", b"[" * 100_000])
def test_damaged_notes_are_one_line(run_dir, capsys, name, contents):
    (run_dir / name).write_bytes(contents)
    assert main(["train", "--resume", str(run_dir), "total_iterations=6", "--quiet"]) == 2
    assert str(run_dir / name) in one_line_of(capsys.readouterr().err)


@pytest.mark.parametrize("part", ["policy", "value_function", "normalizer", "random", "iteration"])
def test_a_barrier_with_other_parts_is_one_line(run_dir, capsys, part):
    for path in checkpoint_files(run_dir / "checkpoints"):
        checksummed_file.save({**checksummed_file.read(path), part: {"other": torch.zeros(2)}}, path)
    assert main(["train", "--resume", str(run_dir), "total_iterations=6", "--quiet"]) == 2
    assert str(run_dir) in one_line_of(capsys.readouterr().err)


# ---- files that would run code


class Runs:
    """Unpickled, it makes a file: code that was run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def raw_pickle(mark: Path) -> bytes:
    return pickle.dumps({"kind": "policy", "policy": Runs(mark)})


def torch_file(mark: Path, **how: bool) -> bytes:
    file = mark.parent / "hostile"
    torch.save({"kind": "policy", "iteration": 1, "settings": {}, "policy": Runs(mark)}, file, **how)
    return file.read_bytes()


def old_torch_file(mark: Path) -> bytes:
    return torch_file(mark, _use_new_zipfile_serialization=False)


def seal(data: bytes) -> bytes:
    import hashlib

    return f"trpo_lightning checkpoint 2 sha256={hashlib.sha256(data).hexdigest()}\n".encode() + data


def sealed_pickle(mark: Path) -> bytes:
    return seal(torch_file(mark))


HOSTILE = {
    "pickle": raw_pickle,
    "torch file": torch_file,
    "old torch file": old_torch_file,
    "checksummed torch file": sealed_pickle,
    "checksummed old torch file": lambda mark: seal(old_torch_file(mark)),
    "checksummed pickle": lambda mark: seal(raw_pickle(mark)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_code_in_a_file_is_never_run(run_dir, tmp_path, capsys, kind):
    mark = tmp_path / "ran"
    data = HOSTILE[kind](mark)
    best, last = (run_dir / "checkpoints" / name for name in ("best.pt", "last.pt"))
    for path in (best, last, *checkpoint_files(run_dir / "checkpoints"), tmp_path / "failed_update_00000002.pt"):
        path.write_bytes(data)
    capsys.readouterr()
    for arguments, named in (
        (["evaluate", str(run_dir), "--episodes", "1"], last),
        (["evaluate", str(run_dir), "--episodes", "1", "--policy", "best"], best),
        (["evaluate", str(best), "--episodes", "1"], best),
        (["replay", str(tmp_path / "failed_update_00000002.pt")], tmp_path / "failed_update_00000002.pt"),
        (["train", "--resume", str(run_dir), "total_iterations=6"], run_dir),
    ):
        assert main(arguments) == 2, arguments
        assert str(named) in one_line_of(capsys.readouterr().err)
        assert not mark.exists()
    pickle.loads(raw_pickle(mark))
    assert mark.exists()  # the test's own file does what it says


# ---- formats


def as_format_1(state: dict) -> dict:
    """What `migrations` undoes: Adam with a tensor for each parameter, vanilla's whole optimizer."""
    adam = state["value_optimizer"]
    parameters = list(state["value_function"].values())
    sizes = [tensor.numel() for tensor in parameters]
    moments = {index: {"step": m["step"]} for m in adam["state"].values() for index in range(len(sizes))}
    for name in ("exp_avg", "exp_avg_sq"):
        for m in adam["state"].values():
            for index, part in enumerate(m[name].split(sizes)):
                moments[index][name] = part.view_as(parameters[index]).clone()
    group = {**adam["param_groups"][0], "params": list(range(len(sizes)))}
    rule = {"state": {0: state["rule"]}, "param_groups": [{"lr": 0.003, "params": [0]}]} if state["rule"] else {}
    dropped = ("restarts", "rejected_in_a_row")
    kept = {name: value for name, value in state.items() if name not in dropped}
    return {**kept, "format": 1, "rule": rule, "value_optimizer": {"state": moments, "param_groups": [group]}}


def save_as(state: dict, path: Path, number: int, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checksummed_file, "FORMAT", number)
        checksummed_file.save(state, path)


@pytest.mark.parametrize("rule", ["trust_region", "vanilla_policy_gradient"])
def test_a_run_of_format_1_goes_on_bit_for_bit(tmp_path, monkeypatch, rule):
    train(tmp_path / "straight", f"rule.name={rule}", "total_iterations=6")
    train(tmp_path / "old", f"rule.name={rule}", "total_iterations=4")
    for path in checkpoint_files(tmp_path / "old" / "checkpoints"):
        save_as(as_format_1(checksummed_file.read(path)), path, 1, monkeypatch)
        assert path.read_bytes().startswith(b"trpo_lightning checkpoint 1 ")
    assert train(tmp_path / "old", f"rule.name={rule}", "total_iterations=6", resume=True).iteration == 6
    assert_same_run(tmp_path / "straight", tmp_path / "old")
    (path, _) = checkpoint_files(tmp_path / "old" / "checkpoints")
    assert path.read_bytes().startswith(b"trpo_lightning checkpoint 2 ")


@pytest.mark.parametrize("rule", ["trust_region", "vanilla_policy_gradient"])
def test_a_run_that_wrote_format_1_goes_on_as_it_did_then(tmp_path, rule):
    """`format_1/` was written by the code of that time, with barriers at iterations 2 and 4."""
    run_dir = tmp_path / "run"
    shutil.copytree(HERE / "format_1" / rule, run_dir)
    (run_dir / "checkpoints").mkdir()
    (run_dir / "barrier_00000002.ckpt").rename(run_dir / "checkpoints" / "barrier_00000002.ckpt")
    assert main(["train", "--quiet", "--resume", str(run_dir)]) == 0
    then, now = checksummed_file.read(run_dir / "barrier_00000004.ckpt"), newest(run_dir)
    assert now["iteration"] == then["iteration"] == 4 and now["env_steps"] == then["env_steps"]
    for part in ("policy", "value_function", "value_optimizer", "rule", "normalizer"):
        torch.testing.assert_close(now[part], then[part], rtol=1e-3, atol=1e-5)  # the same bits on the CPU of then


def test_a_fit_that_never_was_is_migrated_too(tmp_path, monkeypatch):
    train(tmp_path / "run", "value.epochs=0", "total_iterations=2")
    (path,) = checkpoint_files(tmp_path / "run" / "checkpoints")
    state = checksummed_file.read(path)
    save_as(as_format_1(state), path, 1, monkeypatch)
    assert learned_hash(checksummed_file.read(path)) == learned_hash(state)


def test_a_file_that_lacks_parts_of_its_format_is_refused(files, tmp_path, monkeypatch):
    state = as_format_1(checksummed_file.read(files["barrier"]))
    wrong = {"value_optimizer": ({}, None, 3, [], {"state": {}, "param_groups": []}), "rule": (None, 3)}
    for part, others in wrong.items():
        for other in others:
            save_as({**state, part: other}, tmp_path / "file", 1, monkeypatch)
            assert "format 1" in refused("barrier", tmp_path / "file", (tmp_path / "file").read_bytes())


def test_a_run_from_before_a_key_existed_goes_on_as_it_was(tmp_path):
    """Its first rewards stayed raw, and neither a barrier nor the records say so."""
    run_dir, overrides = tmp_path / "old", ("normalize.rewards=true", "normalize.first_rewards=raw")
    train(tmp_path / "straight", *overrides, "total_iterations=6")
    train(run_dir, *overrides, "total_iterations=4")
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace("  first_rewards: raw\n", ""))
    for path in checkpoint_files(run_dir / "checkpoints"):
        state = checksummed_file.read(path)
        del state["settings"]["normalize"]["first_rewards"]
        checksummed_file.save(state, path)
    assert main(["train", "--quiet", "--resume", str(run_dir), "total_iterations=6"]) == 0
    assert_same_run(tmp_path / "straight", run_dir)
    assert "first_rewards: raw" in config.read_text()


def test_each_format_has_a_step_to_the_next(tmp_path, monkeypatch):
    assert sorted(migrations.MIGRATIONS) == list(range(1, migrations.FORMAT))
    steps = {**migrations.MIGRATIONS, 2: lambda s: {**s, "c": s["b"] + 1}, 3: lambda s: {**s, "d": s["c"] + 1}}
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    monkeypatch.setattr(migrations, "FORMAT", 4)
    monkeypatch.setattr(checksummed_file, "FORMAT", 4)
    for number, state in ((2, {"b": 1}), (3, {"b": 1, "c": 2}), (4, {"b": 1, "c": 2, "d": 3})):
        save_as(state, tmp_path / "file", number, monkeypatch)
        assert checksummed_file.read(tmp_path / "file") == {"b": 1, "c": 2, "d": 3}
