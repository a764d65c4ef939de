"""Faults of environments, each reported in one line that names the environment."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.seeding import np_random

from trpo_lightning.environments.supervised.deadline import Overdue
from trpo_lightning.environments.vector_environment import LIFE_LOST, EnvironmentFailure, with_line


class CheckedEnvironment(gym.Wrapper):
    """One environment, the `index`-th of several, whose every fault becomes an `EnvironmentFailure`.

    Faults are exceptions in reset and step, results that are not tuples of the length gymnasium asks for, rewards and
    ends that are not numbers, and observations whose shape or kind of number does not fit the observation space (or
    that cannot be encoded, such as a Discrete value out of range). Bounds of a Box are not checked, nor are numbers
    required to be finite: updates reject those that are not. `info` is dropped, except `LIFE_LOST`. The first episode
    after a seed is cut at step `first_limit`, if there is one.
    """

    def __init__(self, env: gym.Env, env_id: str, index: int, first_limit: int | None = None) -> None:
        super().__init__(env)
        self.env_id, self.index = env_id, index
        self.seed: int | None = None
        self.episode = self.steps = 0
        self.busy = False
        self.first_limit = first_limit

    def where(self) -> str:
        """The environment and the step it is in."""
        step = f"step {self.steps}" if self.steps else "the reset"
        return f"env.id={self.env_id}: environment {self.index} (seed {self.seed}) in {step} of episode {self.episode}"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode. Messages name the last seed given, and count episodes from it."""
        self.episode, self.steps = (self.episode + 1 if seed is None else 1), 0
        self.seed = self.seed if seed is None else seed
        self.busy = True
        try:
            if seed is not None:
                _seed_spaces(self.env, seed)
                _seed_generator(self.env.unwrapped, seed)
            outcome = self.env.reset(seed=seed, options=options)
            if not (isinstance(outcome, tuple) and len(outcome) == 2):
                raise EnvironmentFailure(f"reset returned {_kind(outcome)}, not (observation, info)")
            self._check(outcome[0])
        except (Exception, SystemExit) as error:
            self._fail(error)
        self.busy = False
        return outcome[0], {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        self.steps += 1
        self.busy = True
        try:
            outcome = self.env.step(action)
            if not (isinstance(outcome, tuple) and len(outcome) == 5):
                message = "not (observation, reward, terminated, truncated, info)"
                raise EnvironmentFailure(f"step returned {_kind(outcome)}, {message}")
            observation, reward, terminated, truncated, info = outcome
            self._check(observation)
            reward = reward if type(reward) is float else _number(reward, "reward")
            terminated = terminated if type(terminated) is bool else bool(_number(terminated, "terminated"))
            truncated = truncated if type(truncated) is bool else bool(_number(truncated, "truncated"))
        except (Exception, SystemExit) as error:
            self._fail(error)
        self.busy = False
        if self.episode == 1 and self.steps == self.first_limit:
            truncated = True
        lost = isinstance(info, dict) and LIFE_LOST in info
        return observation, reward, terminated, truncated, {LIFE_LOST: True} if lost else {}

    def close(self) -> None:
        """Close the environment; a failure is only a warning."""
        try:
            super().close()
        except (Exception, SystemExit) as error:
            print(f"warning: env.id={self.env_id}: environment {self.index} cannot be closed: {with_line(error)}")

    def _check(self, observation: Any) -> None:
        space = self.env.observation_space
        if type(observation) is np.ndarray and observation.dtype == space.dtype and observation.shape == space.shape:
            if isinstance(space, spaces.Box | spaces.MultiBinary):
                return
        if fault := space_mismatch(space, observation):
            raise EnvironmentFailure(f"its observation {fault}")

    def _fail(self, error: BaseException) -> NoReturn:
        what = str(error) if isinstance(error, EnvironmentFailure | Overdue) else with_line(error)
        if isinstance(error, TypeError) and re.search(r"reset\(\) got an unexpected keyword argument", what):
            what += " (give it gymnasium's keywords: reset(self, *, seed=None, options=None))"
        self.busy = False
        raise EnvironmentFailure(f"{self.where()}: {what}") from error


def _seed_spaces(env: gym.Env, seed: int) -> None:
    """Seed the spaces of an environment and of what it wraps, because some environments sample from them."""
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    for layer in layers:
        for space in (layer.observation_space, layer.action_space):
            with suppress(Exception):  # a custom space need not have a seed
                space.seed(seed)


def _seed_generator(env: Any, seed: int) -> None:
    """Seed `np_random`, for environments whose reset forgets to: it would begin with the system's entropy.

    gymnasium's `Env.reset` then makes the same one again.
    """
    if isinstance(getattr(env, "_np_random", ""), np.random.Generator | None):
        env._np_random, env._np_random_seed = np_random(seed)


def locate(environments: Sequence[gym.Env], env_id: str) -> str:
    """Where the environment is that is busy, if any is."""
    return next(
        (env.where() for env in environments if isinstance(env, CheckedEnvironment) and env.busy), f"env.id={env_id}"
    )


def space_mismatch(space: spaces.Space, observation: Any) -> str:
    """How an observation's structure, shape or kind of number differs from its space; empty if it fits."""
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, dict) or observation.keys() != space.spaces.keys():
            return f"is {_kind(observation)}, not a dict of {', '.join(space.spaces)}"
        return next((fault for k, part in space.spaces.items() if (fault := space_mismatch(part, observation[k]))), "")
    if isinstance(space, spaces.Tuple):
        if not isinstance(observation, tuple | list) or len(observation) != len(space.spaces):
            return f"is {_kind(observation)}, not a tuple of {len(space.spaces)}"
        parts = zip(space.spaces, observation, strict=True)
        return next((fault for part, item in parts if (fault := space_mismatch(part, item))), "")
    try:
        array = np.asarray(observation)
    except ValueError:
        return f"is {_kind(observation)}, not an array of shape {space.shape}"
    if array.dtype.kind not in "biuf":
        return f"is {_kind(observation)}, not numbers of shape {space.shape}"
    if array.shape != (space.shape or ()):
        return f"has shape {array.shape}, not {space.shape or ()}"
    if space.dtype is not None and not np.can_cast(array.dtype, space.dtype, "same_kind"):
        return f"has dtype {array.dtype}, not {space.dtype}"
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and not _in_range(space, array):
        return f"is {array.tolist()}, which is not in {space}"
    return ""


def _in_range(space: spaces.Discrete | spaces.MultiDiscrete, array: np.ndarray) -> bool:
    count = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return bool(((array >= space.start) & (array < space.start + count)).all())


def _number(value: Any, name: str) -> float:
    """The number, which may also come as an array of one."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise EnvironmentFailure(f"its {name} is {_kind(value)}, not a number")
    return array.item()


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
