"""A state as two files that travel: its tensors as safetensors, everything else as JSON.

Neither can hold code, and both are read without this package: the JSON says which tensor belongs where.
"""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from trpo_lightning.errors import UserError
from trpo_lightning.storage.files import write_atomically
from trpo_lightning.storage.migrations import FORMAT, migrated

WEIGHTS, REST = "policy.safetensors", "policy.json"


def write_portable(state: dict[str, Any], folder: Path) -> None:
    """Write a state of tensors and plain values. Raises `DiskError`, and `UserError` without the package."""
    _check_package(folder)
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    rest = _without_tensors({**state, "format": FORMAT}, "", tensors)
    write_atomically(folder / WEIGHTS, save(tensors, {"format": "pt"}))
    write_atomically(folder / REST, json.dumps(rest, indent=2, allow_nan=False).encode() + b"\n")


def is_portable(folder: Path) -> bool:
    """Whether `write_portable` wrote there."""
    return (folder / WEIGHTS).is_file() and (folder / REST).is_file()


def read_portable(folder: Path) -> dict[str, Any]:
    """Read the state that `write_portable` wrote. Raises `UserError` for anything else, and without the package."""
    _check_package(folder)
    from safetensors.torch import load_file

    try:
        rest = json.loads((folder / REST).read_text(encoding="utf-8"))
        state = _with_tensors(rest, load_file(folder / WEIGHTS))
        version = int(state.pop("format"))
        if version > FORMAT:
            raise ValueError(f"it has format {version}, this version reads up to {FORMAT}")
        return migrated(state, version)
    except Exception as error:  # a downloaded folder can contain anything
        raise UserError(f"{folder}: is no exported policy, or is damaged: {error}") from error


def _check_package(folder: Path) -> None:
    if find_spec("safetensors") is None:
        raise UserError(f"{folder}: exported policies need the extra: pip install 'trpo_lightning[export]'")


def _without_tensors(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The value with the name of each tensor in its place; numbers that JSON does not know become texts."""
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().cpu().contiguous()
        return {"tensor": place}
    if isinstance(value, dict):
        return {name: _without_tensors(item, f"{place}.{name}".strip("."), tensors) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_tensors(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _with_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_without_tensors`."""
    if isinstance(value, dict):
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        if value.keys() == {"float"}:
            return float(value["float"])
        return {name: _with_tensors(item, tensors) for name, item in value.items()}
    return [_with_tensors(item, tensors) for item in value] if isinstance(value, list) else value
