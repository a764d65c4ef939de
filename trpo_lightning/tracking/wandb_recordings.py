"""What the W&B client wrote for earlier processes of a run, and what `wandb sync` is still to send of it.

`wandb sync` appends: two offline folders of one run would give the rows of their overlap twice.
"""

import re
from collections.abc import Iterable
from pathlib import Path

HEADER = 7
"""Bytes at the beginning of the client's files."""


class Recording:
    """A folder that the W&B client wrote for one process: `run-*` online, `offline-run-*` offline."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._note = folder / "iterations_before"

    def begin(self, iterations_before: int) -> None:
        """Note which iterations an offline recording leaves out, because W&B gets them from earlier ones."""
        self._note.write_text(str(iterations_before), encoding="utf-8")

    @property
    def iterations_before(self) -> int | None:
        """What `begin` noted, while the recording waits for `wandb sync`; None if it does not."""
        if not self._note.is_file() or any(self.folder.glob("*.wandb.synced")):
            return None
        return int(self._note.read_text(encoding="utf-8") or 0)

    @property
    def may_be_sent(self) -> bool:
        """Whether W&B can have rows of it: an offline one that was killed before `begin` has none."""
        return not self.folder.name.startswith("offline-") or self._note.is_file()

    @property
    def is_empty(self) -> bool:
        """Whether its process was killed before the client wrote anything: `wandb sync` gives up all at such a file."""
        return all(file.stat().st_size <= HEADER for file in self.folder.glob("*.wandb"))

    def supersede(self) -> None:
        """Have `wandb sync` pass over it, as if it was sent: another recording has its rows, or it has none."""
        if self.iterations_before is not None or self.is_empty:
            for file in self.folder.glob("*.wandb"):
                file.with_suffix(".wandb.synced").touch()


def recordings_of(run_id: str, folders: Iterable[Path]) -> list[Recording]:
    """Those of one run; the client numbers the later ones of a second (`-1`, `-2`)."""
    name = re.compile(rf"(offline-)?run-\d+_\d+-{re.escape(run_id)}(-\d+)?")
    return [Recording(folder) for folder in folders if name.fullmatch(folder.name)]


def sent_offline(earlier: list[Recording], recorded: int) -> int:
    """Iterations that W&B has, or gets, from earlier recordings that a new offline one does not supersede."""
    waiting = [recording.iterations_before for recording in earlier if recording.iterations_before is not None]
    if waiting:
        return min(waiting)
    return recorded if any(recording.may_be_sent for recording in earlier) else 0
