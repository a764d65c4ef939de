"""`trackers.json`: what is to be remembered of a run's trackers, such as a run's id in MLflow."""

import json
import threading
from pathlib import Path
from typing import Any

from trpo_lightning.storage.files import read_json, write_atomically

_lock = threading.Lock()
"""Trackers have a thread each, and share the file."""


class Note:
    """One tracker's entry of a run directory's `trackers.json`."""

    def __init__(self, run_dir: Path, tracker: str) -> None:
        self._file, self._tracker = run_dir / "trackers.json", tracker

    def read(self) -> dict[str, Any]:
        """Read the entry; it is empty before the tracker's first time. Raises `UserError` for a damaged file."""
        return dict(self._read().get(self._tracker, {}))

    def write(self, **values: Any) -> None:
        """Add values to the entry. Raises `DiskError`."""
        with _lock:
            notes = self._read()
            notes[self._tracker] = {**notes.get(self._tracker, {}), **values}
            write_atomically(self._file, json.dumps(notes, indent=2).encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        return read_json(self._file, missing={})
