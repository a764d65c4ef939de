"""EnvPool: the same environments stepped by C++ threads (Weng et al. 2022). An optional extra."""

import importlib.util
import warnings
from typing import Any

import numpy as np

from trpo_lightning.environments import gymnasium_backend
from trpo_lightning.environments.spaces import action_spec, check_observations, flatten_batch, to_env_action
from trpo_lightning.environments.supervised.deadline import Deadline
from trpo_lightning.environments.vector_environment import EnvironmentSpec, could_not_be_built
from trpo_lightning.errors import UserError, nearest
from trpo_lightning.settings import EnvSettings

NO_LIMIT = 2**31 - 1
"""EnvPool's `max_episode_steps` where an environment has no time limit."""


def installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("envpool") is not None


def suits(settings: EnvSettings) -> bool:
    """Whether `auto` takes EnvPool: it has the id, and gymnasium lacks it or means the same by it."""
    if not installed() or settings.asynchronous or ":" in settings.id:
        return False
    import envpool

    if settings.id not in envpool.list_all_envs():
        return False
    if settings.id not in gymnasium_backend.registered_ids():
        return not settings.kwargs
    if not _same_arguments(settings):
        return False
    try:
        mine, theirs = describe(settings), gymnasium_backend.describe(settings)
    except UserError:
        return False
    same = ("observation_shape", "actions", "max_episode_steps")
    return all(getattr(mine, name) == getattr(theirs, name) for name in same)


def _same_arguments(settings: EnvSettings) -> bool:
    """Whether `env.kwargs` are numbers and switches that both know by the same name, with the same default.

    gymnasium's names count: an argument of EnvPool alone must not change what a run means.
    """
    if not settings.kwargs:
        return True
    import envpool

    spec = envpool.make_spec(settings.id)
    theirs = dict(zip(spec._config_keys, spec._config_values, strict=True))
    mine = gymnasium_backend.arguments(settings.id)
    return all(
        isinstance(value, bool | int | float) and name in mine and name in theirs and mine[name] == theirs[name]
        for name, value in settings.kwargs.items()
    )


def _make(settings: EnvSettings, seeds: list[int], threads: int) -> Any:
    if not installed():
        raise UserError("env.backend=envpool needs the extra: pip install 'trpo_lightning[envpool]'")
    import envpool

    if settings.id not in envpool.list_all_envs():
        raise UserError(f"env.id={settings.id} is not in EnvPool{nearest(settings.id, envpool.list_all_envs())}")
    limit = {} if settings.max_episode_steps is None else {"max_episode_steps": settings.max_episode_steps}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered.*")
        try:
            pool = envpool.make(
                settings.id,
                env_type="gymnasium",
                num_envs=len(seeds),
                num_threads=min(threads, len(seeds)),
                seed=seeds,
                **limit,
                **settings.kwargs,
            )
            _ = pool.observation_space, pool.action_space  # built, with their warnings, on first access
        except Exception as error:
            could_not_be_built(settings, error)
    return pool


def describe(settings: EnvSettings) -> EnvironmentSpec:
    """Build a pool of one to see its spaces and time limit."""
    pool = _make(settings, [0], 1)
    check_observations(pool.observation_space, settings.id)
    example = flatten_batch(pool.observation_space, pool.reset()[0])
    limit = int(pool.spec.config.max_episode_steps)
    actions = action_spec(pool.action_space, settings.id)
    return EnvironmentSpec(example.shape[1:], actions, limit if 0 < limit < NO_LIMIT else None, "envpool")


class EnvPoolEnvironments:
    """A synchronous pool: all environments step together, so that results do not depend on timing."""

    def __init__(self, settings: EnvSettings, seeds: list[int], threads: int) -> None:
        self.num_envs = len(seeds)
        self._pool = _make(settings, seeds, threads)
        self._space = self._pool.observation_space
        self._to_env_action = to_env_action(self._pool.action_space)
        where = f"env.id={settings.id}: one of {len(seeds)} environments of EnvPool (which does not say which)"
        self._deadline = Deadline(settings.timeout, lambda: where)

    def reset(self) -> np.ndarray:
        with self._deadline:
            observations = self._pool.reset()[0]
        return flatten_batch(self._space, observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        with self._deadline:
            observations, rewards, terminated, truncated, _ = self._pool.step(self._to_env_action(actions))
        return flatten_batch(self._space, observations), rewards, terminated, truncated

    def close(self) -> None:
        del self._pool
