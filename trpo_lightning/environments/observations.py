"""Observations, one or a batch, in any form that gymnasium returns, as the vectors and images that policies see."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from trpo_lightning.environments.spaces import flatten_batch, is_image, join_rows, observation_layout


def as_batch(space: spaces.Space, observations: Any) -> tuple[np.ndarray, bool]:
    """Turn raw observations into rows: vectors, images, or both packed.

    A batch is what a vector environment returns (arrays with a leading axis, in each part of a Dict or Tuple) or a list
    of observations. Vectors that `gymnasium.spaces.flatten` has already flattened are accepted, too, if they cannot be
    mistaken for something else.

    Returns:
        Rows `[B, *row_shape]`, and whether the observations were a batch (a single one gives `[1, *row_shape]`).

    Raises:
        ValueError: The observations do not belong to `space`.
    """
    try:
        return _parsed(space, observations)
    except ValueError as error:
        flat = _flattened(space, observations)
        if flat is None and _is_pair_of_reset(observations):
            raise ValueError(f"{error}; this looks like what `reset` returns: give its first part") from error
        if flat is None:
            raise
        return flat


def _is_pair_of_reset(observations: Any) -> bool:
    return isinstance(observations, tuple) and len(observations) == 2 and isinstance(observations[1], dict)


def _parsed(space: spaces.Space, observations: Any) -> tuple[np.ndarray, bool]:
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return _of_leaf(space, observations)
    # a list holds observations, a tuple the parts of one (or of a batch), unless only the opposite fits
    likely, other = (_of_sequence, _of_parts) if isinstance(observations, list) else (_of_parts, _of_sequence)
    try:
        return likely(space, observations)
    except ValueError:
        return other(space, observations)


def _of_leaf(space: spaces.Space, observations: Any) -> tuple[np.ndarray, bool]:
    try:
        array, shape = np.asarray(observations), space.shape or ()
    except ValueError as error:
        raise _unfit(space, observations) from error
    if array.dtype.kind not in "biuf" or shape not in (array.shape, array.shape[1:]) or array.ndim > len(shape) + 1:
        raise _unfit(space, observations)
    if is_image(space) and array.dtype != np.uint8:
        raise ValueError(f"images must be uint8, as in {space}, not {array.dtype}")
    batched = array.ndim > len(shape)
    rows = array if batched else array[None]
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec
        if not ((rows >= space.start) & (rows < space.start + count)).all() or (rows != rows.astype(np.int64)).any():
            raise _unfit(space, observations)
        rows = rows.astype(np.int64)
    return flatten_batch(space, rows), batched


def _of_parts(space: spaces.Space, observations: Any) -> tuple[np.ndarray, bool]:
    if isinstance(space, spaces.Dict):
        if not isinstance(observations, Mapping) or observations.keys() != space.spaces.keys():
            raise _unfit(space, observations)
        pairs = [(part, observations[name]) for name, part in space.spaces.items()]
    else:
        assert isinstance(space, spaces.Tuple)
        if not isinstance(observations, tuple | list) or len(observations) != len(space.spaces):
            raise _unfit(space, observations)
        pairs = list(zip(space.spaces, observations, strict=True))
    parts = [_parsed(part, item) for part, item in pairs]
    if len({(len(rows), batched) for rows, batched in parts}) > 1:
        raise _unfit(space, observations)
    return join_rows(space, [rows for rows, _ in parts]), parts[0][1]


def _of_sequence(space: spaces.Space, observations: Any) -> tuple[np.ndarray, bool]:
    listed = isinstance(observations, list | tuple | np.ndarray)
    if not listed or not len(observations):
        raise _unfit(space, observations)
    parts = [_of_parts(space, item) for item in observations]
    if any(batched for _, batched in parts):
        raise _unfit(space, observations)
    return np.concatenate([rows for rows, _ in parts]), True


def _flattened(space: spaces.Space, observations: Any) -> tuple[np.ndarray, bool] | None:
    """The observations themselves, if they are flat vectors already."""
    try:
        array = np.asarray(observations)
    except ValueError:
        return None
    if observation_layout(space).images:
        return None
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2) or array.shape[-1] != spaces.flatdim(space):
        return None
    return np.atleast_2d(array), array.ndim == 2


def _unfit(space: spaces.Space, observations: Any) -> ValueError:
    try:
        what = f"{type(observations).__name__} of shape {list(np.shape(observations))}"
    except ValueError:
        what = f"{type(observations).__name__} of unequal parts"
    return ValueError(f"observations must be one of {space} or a batch of them, not {what}")
