"""Which rows of a run `wandb sync` still has to send, told from the folders alone."""

from pathlib import Path

import pytest

from trpo_lightning.tracking.wandb_recordings import HEADER, Recording, recordings_of, sent_offline

SECOND = "20200101_000000"


def recording(parent: Path, name: str, *, before: int | None = None, sent: bool = False, size: int = 100) -> Recording:
    folder = parent / name
    folder.mkdir()
    (folder / "run-abc.wandb").write_bytes(bytes(size))
    made = Recording(folder)
    if before is not None:
        made.begin(before)
    if sent:
        made.supersede()
    return made


def of_run(parent: Path) -> list[Recording]:
    return recordings_of("abc", sorted(parent.iterdir()))


def test_recordings_of_a_run_are_its_own_also_where_two_began_in_one_second(tmp_path):
    own = [
        f"offline-run-{SECOND}-abc",
        f"offline-run-{SECOND}-abc-1",
        f"offline-run-{SECOND}-abc-12",
        f"run-{SECOND}-abc",
    ]
    for name in [*own, f"run-{SECOND}-xabc", f"run-{SECOND}-a-abc", f"run-{SECOND}-abc-x", "latest-run"]:
        recording(tmp_path, name)
    assert [each.folder.name for each in of_run(tmp_path)] == own


def test_the_second_of_a_second_waits_as_the_first_does(tmp_path):
    recording(tmp_path, f"offline-run-{SECOND}-abc", before=0, sent=True)
    recording(tmp_path, f"offline-run-{SECOND}-abc-1", before=3)
    assert sent_offline(of_run(tmp_path), 10) == 3


@pytest.mark.parametrize("size", [HEADER, 100], ids=["empty", "with a header of the client's"])
def test_a_process_that_was_killed_before_it_began_to_record_has_sent_nothing(tmp_path, size):
    recording(tmp_path, f"offline-run-{SECOND}-abc", size=size)
    assert sent_offline(of_run(tmp_path), 10) == 0


def test_an_online_recording_sent_what_was_recorded(tmp_path):
    recording(tmp_path, f"run-{SECOND}-abc")
    assert sent_offline(of_run(tmp_path), 10) == 10
    assert sent_offline([], 10) == 0
