"""Checksummed files: one line of text with the format and the SHA-256 of what follows, then the bytes of `torch.save`.

They hold only tensors and plain values, and are loaded with `weights_only=True` after the hash is checked: otherwise a
flipped bit would load silently.
"""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch

from trpo_lightning.errors import UserError
from trpo_lightning.storage.files import write_atomically
from trpo_lightning.storage.migrations import FORMAT, migrated

HEADER = re.compile(rb"trpo_lightning checkpoint (\d{1,9}) sha256=([0-9a-f]{64})\n")


def save(state: dict[str, Any], path: Path) -> None:
    """Write a state atomically. Raises `DiskError`, and then leaves earlier files as they are."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    write_atomically(path, f"trpo_lightning checkpoint {FORMAT} sha256={digest}\n".encode() + data)


def read(path: Path) -> dict[str, Any]:
    """Read a state from a file and bring it to this version's format.

    Raises:
        UserError: The file is missing, foreign or damaged, has an unknown format, or holds more than a state; the
            message names the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    match = HEADER.match(data)
    if match is None:
        raise UserError(f"{path}: is not a file of trpo_lightning, or its beginning is damaged")
    written = int(match[1])
    if not 1 <= written <= FORMAT:
        raise UserError(f"{path}: has format {written}, this version reads up to {FORMAT}")
    payload = data[match.end() :]
    if hashlib.sha256(payload).hexdigest().encode() != match[2]:
        raise UserError(f"{path}: is damaged: its SHA-256 does not fit its contents")
    try:
        state = torch.load(io.BytesIO(payload), weights_only=True)
    except Exception as error:  # a forged file can carry a valid hash: torch decides what may be loaded
        raise UserError(f"{path}: is refused: it holds more than tensors and plain values") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: is not a file of trpo_lightning: it holds a {type(state).__name__}")
    try:
        return migrated(state, written)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: has format {written} and lacks parts of it ({error!r})") from error
