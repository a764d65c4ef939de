"""Locks on open files that go with the process that holds them, however it ends.

POSIX has `flock`, Windows locks a byte. Where there is neither, nothing is locked: two processes in one run directory
are then not kept apart.
"""

import os
from typing import IO

try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None


def try_lock(file: IO[str], *, shared: bool = False) -> bool:
    """Lock an open file until it is closed, if no other process has; whether it is locked now.

    `shared` locks do not exclude each other (on Windows they do). Raises `OSError` where a file system has no locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    elif msvcrt is not None:
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
    return True
