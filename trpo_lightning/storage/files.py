"""Reading and writing files: a crash leaves the old file or the new one, never half of either."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trpo_lightning.errors import DiskError, UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn operating system errors inside the block into a `DiskError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path}: cannot be written: {error.strerror or error}: what was written before is whole; make room or "
            "mend the folder, then go on (a run with train --resume RUN_DIR)"
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file in the same folder (which must exist), flush it to disk, and rename it.

    Raises `DiskError`, and then leaves the old file as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()
        if hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders; there the rename has to suffice
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def read_json(path: Path, missing: Any) -> Any:
    """Read one of this package's JSON files.

    Args:
        path: The file.
        missing: What to return if there is no such file; what the file holds must have its type.

    Raises:
        UserError: The file cannot be read, or holds a value of another type.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return missing
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: move it away, no run needs it ({error})") from error
    if type(value) is not type(missing):
        raise UserError(f"{path}: is not what this program writes there: move it away, no run needs it")
    return value


def plain(value: Any) -> Any:
    """Convert ordered dicts to dicts and tuples to lists, so that a file holds only tensors and plain values."""
    import torch

    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, torch.Tensor | str | int | float | bool):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")
