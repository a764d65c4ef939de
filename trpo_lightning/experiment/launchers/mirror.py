"""A folder on another machine, copied as it changes: what was copied so far is always a run that can go on.

The files of a run depend on each other: a barrier needs the rows of `metrics.csv` before it, and `status.json` must not
say `finished` before the last row is there. So the state is read first and written last, and barriers next to it.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trpo_lightning.storage.files import write_atomically, writing

NOT_COPIED = (".lock",)
"""Files that belong to one machine."""


@dataclass(frozen=True)
class Part:
    """The end of a file, from `offset` on: 0 for the whole file, which replaces another."""

    path: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Changes:
    """What has happened in a folder, in the order in which it was read; `number` counts these records."""

    number: int = 0
    parts: list[Part] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Known:
    """A file as it was when it was read last."""

    stamp: tuple[int, int, int]
    size: int
    digest: bytes


class Watched:
    """Finds what has changed in a folder since the other side last had everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._received: dict[str, _Known] = {}
        self._sent: dict[str, _Known] = {}
        self._number = 0

    def changes(self, received: int) -> Changes:
        """What the other side lacks, which has `received` the changes of that number: an answer may get lost.

        Raises `FileNotFoundError` if the folder is gone, which is no reason to remove the other one's files.
        """
        self.folder.stat()
        if received == self._number:
            self._received = self._sent
        self._number += 1
        self._sent, parts = {}, []
        for name in sorted(_files(self.folder), key=_order):
            with suppress(FileNotFoundError):  # replaced or removed meanwhile
                parts += self._part(name)
        gone = [name for name in self._received if name not in self._sent]
        return Changes(self._number, parts, gone)

    def _part(self, name: str) -> list[Part]:
        known = self._received.get(name)
        with open(self.folder / name, "rb") as file:
            facts = os.fstat(file.fileno())
            stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            if known is not None and known.stamp == stamp:
                self._sent[name] = known
                return []
            data = file.read()
        grown = known is not None and known.digest == _digest(data[: known.size]) and 0 < known.size < len(data)
        offset = known.size if known is not None and grown else 0
        self._sent[name] = _Known(stamp, len(data), _digest(data))
        return [Part(name, offset, data[offset:])]


def contents(folder: Path) -> Changes:
    """All files of a folder, as changes to an empty one."""
    return Watched(folder).changes(0)


def apply(folder: Path, changes: Changes) -> None:
    """Do in `folder` what has happened in the other one. Raises `DiskError`."""
    for part in reversed(changes.parts):
        path = folder / part.path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if part.offset:
            with writing(path), open(path, "r+b") as file:
                file.seek(part.offset)
                file.write(part.data)
        else:
            write_atomically(path, part.data)
    for name in changes.removed:
        with suppress(FileNotFoundError):
            (folder / name).unlink()


def _files(folder: Path) -> list[str]:
    """Plain files by relative path; links lead out of the folder, and temporary files are not whole."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = [path.relative_to(folder).as_posix() for path in found if not path.name.endswith(".tmp")]
    return [name for name in names if name not in NOT_COPIED]


def _order(name: str) -> tuple[int, str]:
    return (0 if name == "status.json" else 1 if name.startswith("checkpoints/") else 2), name


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
