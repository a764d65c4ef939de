"""Console output that cannot end a run: printed text is not a record, so a log file that cannot grow is no reason."""

import errno
import io
import logging
import sys
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
OF_FILES = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTDIR)
"""Error numbers that point to a disk or its permissions, not to this program."""


class _Log(io.FileIO):
    """A file that drops what does not fit onto a full disk."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return len(data)


def print_what_there_is_no_letter_for() -> None:
    """Print `?` for characters the console cannot encode (Latin-1, ASCII, Windows' code pages) instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            if not stream.encoding.lower().startswith("utf"):
                stream.reconfigure(errors="replace")


def drop_what_does_not_fit() -> None:
    """Print line by line, and carry on when the disk of a log is full; `logging` does not complain either."""
    logging.raiseExceptions = False
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.flush()
            buffer = io.BufferedWriter(_Log(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=True)
            setattr(sys, name, text)
