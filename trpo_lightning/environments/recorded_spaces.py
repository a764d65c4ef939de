"""Spaces as plain values, for files that can be read without the environment."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from trpo_lightning.environments.vector_environment import EnvironmentSpec, Spaces
from trpo_lightning.policies.observations import Layout
from trpo_lightning.policies.spaces import BinaryActions, ContinuousActions


def recorded(space: spaces.Space) -> dict[str, Any] | None:
    """A space as text, numbers and tensors, from which `rebuilt` makes it again; None for an unknown kind of space."""
    match space:
        case spaces.Box():
            bounds = {"low": _numbers(space.low), "high": _numbers(space.high)}
            return {"kind": "box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
        case spaces.Discrete():
            return {"kind": "discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
        case spaces.MultiDiscrete():
            numbers = {"nvec": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
            return {"kind": "multi_discrete", "dtype": str(space.dtype), **numbers}
        case spaces.MultiBinary():
            n = int(space.n) if isinstance(space.n, int | np.integer) else list(space.shape)
            return {"kind": "multi_binary", "n": n}
        case spaces.Dict():
            parts = [[name, recorded(part)] for name, part in space.spaces.items()]
            known = all(isinstance(name, str) and part is not None for name, part in parts)
            return {"kind": "dict", "parts": parts} if known else None
        case spaces.Tuple():
            parts = [recorded(part) for part in space.spaces]
            return {"kind": "tuple", "parts": parts} if all(part is not None for part in parts) else None
    return None


def rebuilt(record: dict[str, Any]) -> spaces.Space:
    """The inverse of `recorded`. Raises `ValueError` for an unknown kind of space."""
    match record["kind"]:
        case "box":
            shape, dtype = tuple(record["shape"]), np.dtype(record["dtype"])
            low, high = (np.broadcast_to(np.asarray(record[name]), shape).astype(dtype) for name in ("low", "high"))
            return spaces.Box(low, high, shape, dtype)  # type: ignore[arg-type]
        case "discrete":
            return spaces.Discrete(record["n"], start=record["start"], dtype=np.dtype(record["dtype"]))  # type: ignore[arg-type]
        case "multi_discrete":
            dtype = np.dtype(record["dtype"])
            return spaces.MultiDiscrete(np.array(record["nvec"]), dtype=dtype, start=np.array(record["start"]))  # type: ignore[arg-type]
        case "multi_binary":
            return spaces.MultiBinary(record["n"])
        case "dict":  # in recorded order, which is that of the flattened vector
            return spaces.Dict([(name, rebuilt(part)) for name, part in record["parts"]])
        case "tuple":
            return spaces.Tuple([rebuilt(part) for part in record["parts"]])
    raise ValueError(f"there is no space of kind {record['kind']!r}")


def recorded_pair(pair: Spaces | None) -> list[dict[str, Any]] | None:
    """Both spaces of an environment as plain values; None unless both can be recorded."""
    records = [recorded(space) for space in pair or ()]
    return None if not records or None in records else records  # type: ignore[return-value]


def rebuilt_pair(records: list[dict[str, Any]] | None) -> Spaces | None:
    """The inverse of `recorded_pair`."""
    return None if records is None else (rebuilt(records[0]), rebuilt(records[1]))


def spaces_of(spec: EnvironmentSpec) -> Spaces:
    """An environment's spaces or, if they are unknown, those of its flattened observations and actions."""
    if spec.spaces is not None:
        return spec.spaces
    layout = Layout.of(spec.observation_shape)  # of a vector: images are younger than records of spaces
    observations, actions = spaces.Box(-np.inf, np.inf, (layout.vector,), np.float64), spec.actions
    if isinstance(actions, ContinuousActions):
        return observations, spaces.Box(-np.inf, np.inf, (actions.size,), np.float32)
    if isinstance(actions, BinaryActions):
        return observations, spaces.MultiBinary(actions.size)
    choices = actions.choices
    return observations, spaces.Discrete(choices[0]) if len(choices) == 1 else spaces.MultiDiscrete(list(choices))


def _numbers(bounds: np.ndarray) -> float | int | torch.Tensor:
    """The bounds as one number if they are all equal, since an image has as many bounds as pixels."""
    if bounds.size and (bounds == bounds.flat[0]).all():
        return bounds.flat[0].item()
    return torch.from_numpy(bounds.astype(np.float64 if bounds.dtype.kind == "f" else np.int64))
