"""The border between policies and environments: translates spaces, observations and actions."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from trpo_lightning.errors import UserError
from trpo_lightning.policies.observations import Image, Layout, Shape
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions

DARK = 64
"""Images whose brightest pixel is below this are no pictures, but planes of small numbers."""


def action_spec(space: spaces.Space, env_id: str) -> ActionSpec:
    """What a policy needs to know about an action space. Raises `UserError` if no policy fits the space."""
    match space:
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            return ContinuousActions(int(np.prod(space.shape)))
        case spaces.Discrete():
            return DiscreteActions((int(space.n),))
        case spaces.MultiDiscrete():
            return DiscreteActions(tuple(int(n) for n in space.nvec.reshape(-1)))
        case spaces.MultiBinary():
            return BinaryActions(int(np.prod(space.shape)))
    raise UserError(
        f"env.id={env_id}: action space {space} is not one of Box of floats, Discrete, MultiDiscrete, MultiBinary: "
        "wrap it in a gymnasium.ActionWrapper that has one of these and whose `action` makes the environment's of it"
    )


def to_env_action(space: spaces.Space, *, scaled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A function from stored actions `[N, A]` to the batch that environments with this action space take.

    Continuous actions are clipped to the space's bounds here and nowhere else. If they are `scaled`, [-1, 1] is first
    mapped to the range of each bounded dimension.
    """
    if isinstance(space, spaces.Box):
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        stretched = _stretched(space) if scaled else lambda a: a
        return lambda a: np.clip(stretched(a), low, high).astype(space.dtype).reshape(-1, *space.shape)
    if isinstance(space, spaces.Discrete):
        return lambda a: (a[:, 0] + space.start).astype(space.dtype)
    start = space.start if isinstance(space, spaces.MultiDiscrete) else 0
    return lambda a: (a.reshape(-1, *space.shape) + start).astype(space.dtype)  # type: ignore[operator]


def _stretched(space: spaces.Box) -> Callable[[np.ndarray], np.ndarray]:
    """The linear map of [-1, 1] onto each bounded dimension's range; others, and ranges of exactly [-1, 1], stay."""
    middle, half, _, _ = affine_door(space, scaled=True)
    if (half == 1.0).all() and (middle == 0.0).all():
        return lambda a: a
    return lambda a: middle + half * a


def affine_door(space: spaces.Box, *, scaled: bool) -> tuple[np.ndarray, ...]:
    """What `to_env_action` does, as float64 vectors `[A]`: `clip(middle + half * action, low, high)`."""
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high) & scaled
    lower, upper = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return upper / 2 + lower / 2, upper / 2 - lower / 2, low, high


def one_action(space: spaces.Space, stored: np.ndarray, *, scaled: bool) -> Any:
    """A stored action `[A]` as a single environment's `step` takes it: an `int` for Discrete, otherwise an array."""
    action = to_env_action(space, scaled=scaled)(stored[None])[0]
    return int(action) if isinstance(space, spaces.Discrete) else np.asarray(action)


def check_observations(space: spaces.Space, env_id: str, wrapper: str = "") -> None:
    """Raise `UserError` for an observation space that is neither images nor flattens to a vector of fixed length.

    `wrapper` tells what the environment's own package makes vectors of such observations with.
    """
    parts = [
        (f"the part {name} of its observation" if name else "its observation", part) for name, part in _leaves(space)
    ]
    for where, part in parts:
        if not _flattens(part):
            advice = wrapper or "so that it returns vectors, or a Dict or Tuple of them"
            _refuse(env_id, f"{where} is a {type(part).__name__}", advice)
    for where, part in parts:
        if isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) > 3:
            advice = "so that it is (channels, height, width), such as grey frames stacked"
            _refuse(env_id, f"{where} has {len(part.shape)} axes (uint8 {part.shape})", advice)


def _refuse(env_id: str, what: str, advice: str) -> NoReturn:
    raise UserError(f"env.id={env_id}: {what}, and policies see vectors and images: wrap it, {advice}")


def is_image(space: spaces.Space) -> bool:
    """Whether a space holds images: bytes with an axis for channels, first or last."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8


def observation_layout(space: spaces.Space) -> Layout:
    """How policies see a space: its images, and everything else as one vector."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return Layout((Image(space.shape),), 0) if is_image(space) else Layout((), gym.spaces.flatdim(space))  # type: ignore[arg-type]
    parts = [observation_layout(part) for _, part in _leaves(space)]
    images = tuple(image for part in parts for image in part.images)
    return Layout(images, sum(part.vector for part in parts))


def observation_shape(space: spaces.Space) -> Shape:
    """The shape of one observation as policies see it."""
    return observation_layout(space).shape


def notes(space: spaces.Space, env_id: str) -> tuple[str, ...]:
    """What is said about a space before training: how its images are taken, and what might have been one."""
    layout = observation_layout(space)
    lines = [f"env.id={env_id}: {image}, divided by 255 and not normalized" for image in layout.images]
    if layout.images and layout.vector:
        lines.append(f"env.id={env_id}: a vector of {layout.vector} beside them")
    for name, part in _leaves(space):
        shape = part.shape or ()
        if is_image(part) and (most := int(part.high.max())) < DARK:  # type: ignore[attr-defined]
            lines.append(
                f"env.id={env_id}: its pixels end at {most}, of which the network sees {most}/255: scale them up in a "
                "wrapper (gymnasium.wrappers.TransformObservation)"
            )
        looks = isinstance(part, spaces.Box) and len(shape) in (2, 3) and min(sorted(shape)[-2:]) >= 16
        if looks and not is_image(part):
            what = f"the part {name} of its observation" if name else "its observation"
            lines.append(
                f"env.id={env_id}: {what} ({part.dtype} {shape}) is a vector of {math.prod(shape):,} numbers: images "
                "are uint8 with an axis for channels"
            )
    return tuple(lines)


def _flattens(space: spaces.Space) -> bool:
    try:
        return space.is_np_flattenable
    except NotImplementedError:  # a custom space, such as MiniGrid's missions
        return False


def _leaves(space: spaces.Space, name: str = "") -> list[tuple[str, spaces.Space]]:
    """The parts of a space that are no Dict or Tuple, with where they are; a space alone has no name."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        return [leaf for key, part in parts for leaf in _leaves(part, f"{name}.{key}" if name else str(key))]
    return [(name, space)]


def flatten_batch(space: spaces.Space, observations: Any) -> np.ndarray:
    """A batch of observations as rows `[N, *row_shape]`: vectors in the order of `gymnasium.spaces.flatten`, images."""
    if isinstance(space, spaces.Dict):
        return join_rows(space, [flatten_batch(part, observations[k]) for k, part in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, observations, strict=True)
        return join_rows(space, [flatten_batch(part, batch) for part, batch in pairs])
    if is_image(space):
        return np.asarray(observations)
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return np.asarray(observations).reshape(len(observations), -1)
    return np.stack([np.asarray(gym.spaces.flatten(space, row)) for row in observations])


def join_rows(space: spaces.Dict | spaces.Tuple, rows: list[np.ndarray]) -> np.ndarray:
    """Rows `[N, *row_shape]` of a space from those of its parts, in order."""
    layout = observation_layout(space)
    if not layout.images:
        return np.concatenate(rows, axis=1)
    parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else list(space.spaces)
    layouts = [observation_layout(part) for part in parts]
    images = [image for part, x in zip(layouts, rows, strict=True) for image in _images(part, x)]
    vectors = [part.vectors(x) for part, x in zip(layouts, rows, strict=True)]
    return layout.pack(images, np.concatenate([v.reshape(len(v), -1).astype(np.float32) for v in vectors], axis=1))


def _images(layout: Layout, rows: np.ndarray) -> list[np.ndarray]:
    if not layout.is_packed:
        return [rows] if layout.images else []
    ends = np.cumsum([image.size for image in layout.images])
    starts = [0, *ends[:-1]]
    parts = zip(layout.images, starts, ends, strict=True)
    return [rows[:, start:end].reshape(len(rows), *image.shape) for image, start, end in parts]


def bytes_of_a_number(space: spaces.Space) -> int:
    """Bytes per number of a flattened observation."""
    return np.dtype(spaces.flatten_space(space).dtype or np.float64).itemsize
