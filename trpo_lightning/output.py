"""What is printed is no record: a run must not end because its log file cannot grow."""

import errno
import io
import logging
import sys
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
OF_FILES = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTDIR)
"""Errors that say something about a disk or its permissions, not about this program."""


class _Log(io.FileIO):
    """Drops what there is no room for."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return len(data)


def print_what_there_is_no_letter_for() -> None:
    """Print `?` for what a console's encoding lacks (Latin-1, ASCII, Windows' code pages), instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            if not stream.encoding.lower().startswith("utf"):
                stream.reconfigure(errors="replace")


def drop_what_does_not_fit() -> None:
    """Print line by line, and go on where a log's disk is full, without a word about it from `logging`."""
    logging.raiseExceptions = False
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.flush()
            buffer = io.BufferedWriter(_Log(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=True)
            setattr(sys, name, text)
