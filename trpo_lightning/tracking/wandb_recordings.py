"""The W&B client's recordings from earlier processes of a run, and which of them `wandb sync` still has to send.

`wandb sync` appends: two offline folders of one run would send the rows they share twice.
"""

import re
from collections.abc import Iterable
from pathlib import Path

HEADER = 7
"""Length of the header of the client's files, in bytes."""


class Recording:
    """A folder that the W&B client wrote for one process: `run-*` online, `offline-run-*` offline."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._note = folder / "iterations_before"

    def begin(self, iterations_before: int) -> None:
        """Note how many iterations an offline recording omits because W&B gets them from earlier recordings."""
        self._note.write_text(str(iterations_before), encoding="utf-8")

    @property
    def iterations_before(self) -> int | None:
        """The number that `begin` noted while the recording waits for `wandb sync`; None if it is not waiting."""
        if not self._note.is_file() or any(self.folder.glob("*.wandb.synced")):
            return None
        return int(self._note.read_text(encoding="utf-8") or 0)

    @property
    def may_be_sent(self) -> bool:
        """Whether W&B can have rows from it: an offline recording killed before `begin` has none."""
        return not self.folder.name.startswith("offline-") or self._note.is_file()

    @property
    def is_empty(self) -> bool:
        """Whether its process was killed before the client wrote anything: `wandb sync` aborts at such a file."""
        return all(file.stat().st_size <= HEADER for file in self.folder.glob("*.wandb"))

    def supersede(self) -> None:
        """Mark it as sent, so that `wandb sync` skips it: another recording has its rows, or it has none."""
        if self.iterations_before is not None or self.is_empty:
            for file in self.folder.glob("*.wandb"):
                file.with_suffix(".wandb.synced").touch()


def recordings_of(run_id: str, folders: Iterable[Path]) -> list[Recording]:
    """The recordings of one run; the client appends `-1`, `-2` to those started within the same second."""
    name = re.compile(rf"(offline-)?run-\d+_\d+-{re.escape(run_id)}(-\d+)?")
    return [Recording(folder) for folder in folders if name.fullmatch(folder.name)]


def sent_offline(earlier: list[Recording], recorded: int) -> int:
    """How many iterations W&B has, or will get, from earlier recordings that a new offline one does not supersede."""
    waiting = [recording.iterations_before for recording in earlier if recording.iterations_before is not None]
    if waiting:
        return min(waiting)
    return recorded if any(recording.may_be_sent for recording in earlier) else 0
