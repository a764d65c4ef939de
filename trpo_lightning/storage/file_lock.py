"""Locks on open files, released when the process that holds them ends, however it ends.

POSIX has `flock`, Windows locks a byte. Where neither is available nothing is locked, and two processes can work in the
same run directory.
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
    """Lock an open file until it is closed, without waiting.

    Args:
        file: The open file.
        shared: Shared locks do not exclude each other (on Windows they do).

    Returns:
        Whether the file is locked now; False if another process holds the lock.

    Raises:
        OSError: The file system does not support locks.
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
