"""What goes into files, and how it gets there: a crash leaves the old file or the new one, never half of either."""

import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, flush it to the disk, rename it. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def plain(value: Any) -> Any:
    """Ordered dicts as dicts and tuples as lists, so that a file holds nothing but tensors and plain values."""
    import torch

    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, torch.Tensor | str | int | float | bool):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")
