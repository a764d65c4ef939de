"""A lock that lets only one process at a time work in a run directory."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from trpo_lightning.errors import BusyError, DiskError
from trpo_lightning.storage.file_lock import try_lock

ATTEMPTS = 15
PAUSE = 0.1
"""Seconds between attempts: even checking a lock holds it for a moment, longer on a busy machine."""

_held: set[IO[str]] = set()


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock the run directory for this process; the lock disappears with the process, however it ends.

    Removes files that a killed process left half-written. Raises `BusyError` if another process holds the lock.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = open(run_dir / ".lock", "a", encoding="utf-8")
    except OSError as error:
        raise DiskError(f"{run_dir}: cannot be written: {error.strerror}") from error
    with file:
        _lock(file, run_dir)
        _held.add(file)
        try:
            for folder in (run_dir, run_dir / "checkpoints"):
                for unfinished in folder.glob(".*.tmp"):
                    with suppress(OSError):
                        unfinished.unlink()
            yield
        finally:
            _held.discard(file)


def _lock(file: IO[str], run_dir: Path) -> None:
    for attempt in range(ATTEMPTS):
        if try_lock(file):
            return
        if attempt < ATTEMPTS - 1:
            time.sleep(PAUSE)
    raise BusyError(f"{run_dir}: another process is working on this run")


def _let_go() -> None:
    """Release the lock in a forked child: an environment process that outlives a killed run must not hold it."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_let_go)
