"""EnvPool: the same environments, stepped by C++ threads (Weng et al. 2022). An optional extra."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from trpo_lightning.environments import atari, gymnasium_backend
from trpo_lightning.environments.atari import pool_arguments, pool_id, register
from trpo_lightning.environments.spaces import (
    action_spec,
    check_observations,
    flatten_batch,
    notes,
    observation_shape,
    to_env_action,
)
from trpo_lightning.environments.supervised.deadline import Deadline
from trpo_lightning.environments.vector_environment import EnvironmentSpec, could_not_be_built
from trpo_lightning.errors import UserError, nearest
from trpo_lightning.extras import check_extra, has_extra
from trpo_lightning.settings import EnvSettings, is_atari

NO_LIMIT = 2**31 - 1
"""EnvPool's `max_episode_steps` for environments without a time limit."""


def describe_suitable(settings: EnvSettings) -> EnvironmentSpec | None:
    """What `auto` takes EnvPool for: it has the id, and gymnasium lacks it or means the same by it; None otherwise.

    Spaces are gymnasium's, where it has the id: types and bounds of EnvPool's differ in ways that mean nothing to
    training, and whoever acts later does so in gymnasium.
    """
    if not has_extra("envpool") or settings.asynchronous or settings.wrappers or ":" in settings.id:
        return None
    import envpool

    if pool_id(settings.id) not in envpool.list_all_envs():
        return None
    if is_atari(settings.id):
        register(settings)
    if settings.id not in gymnasium_backend.registered_ids():
        return None if settings.kwargs else describe(settings)
    if not _same_arguments(settings):
        return None
    try:
        mine, theirs = describe(settings), gymnasium_backend.describe(settings)
    except UserError:
        return None
    same = ("observation_shape", "actions", "max_episode_steps")
    if any(getattr(mine, name) != getattr(theirs, name) for name in same):
        return None
    return replace(mine, spaces=theirs.spaces)


def _same_arguments(settings: EnvSettings) -> bool:
    """Whether `env.kwargs` are numbers and switches that both know by the same name, with the same default.

    gymnasium's names count: an argument of EnvPool alone must not change what a run means.
    """
    if not settings.kwargs:
        return True
    import envpool

    spec = envpool.make_spec(pool_id(settings.id))
    theirs = dict(zip(spec._config_keys, spec._config_values, strict=True))
    mine = gymnasium_backend.arguments(settings.id)
    return all(
        isinstance(value, bool | int | float) and name in mine and name in theirs and mine[name] == theirs[name]
        for name, value in settings.kwargs.items()
    )


def _refuse_bare_game(env_id: str) -> None:
    """Raise `UserError` for EnvPool's own name of a game, with frames of its own that no setting describes."""
    from envpool.registration import registry

    if registry.specs.get(env_id, ("",))[0] == "envpool.atari":
        raise UserError(
            f"env.id={env_id} is EnvPool's name for a game: env.id=ALE/{env_id} is the same one on every backend, with "
            "settings for its frames (env.frame_skip and so on)"
        )


def _make(settings: EnvSettings, seeds: list[int], threads: int) -> Any:
    check_extra("envpool", "env.backend=envpool")
    if settings.wrappers:
        raise UserError(f"env.wrappers={settings.wrappers} need env.backend=gymnasium: EnvPool takes no wrappers")
    import envpool

    name = pool_id(settings.id)
    _refuse_bare_game(settings.id)
    if name not in envpool.list_all_envs():
        raise UserError(f"env.id={settings.id} is not in EnvPool{nearest(name, envpool.list_all_envs())}")
    limit = {} if settings.max_episode_steps is None else {"max_episode_steps": settings.max_episode_steps}
    arguments = pool_arguments(settings) if is_atari(settings.id) else {**limit, **settings.kwargs}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered.*")
        try:
            pool = envpool.make(
                name,
                env_type="gymnasium",
                num_envs=len(seeds),
                num_threads=min(threads, len(seeds)),
                seed=seeds,
                **arguments,
            )
            _ = pool.observation_space, pool.action_space  # built, with their warnings, on first access
        except Exception as error:
            could_not_be_built(settings, error)
    return pool


def describe(settings: EnvSettings) -> EnvironmentSpec:
    """Build a pool of one environment to read its spaces and time limit."""
    pool = _make(settings, [0], 1)
    check_observations(pool.observation_space, settings.id)
    pool.reset()  # a pool that never began aborts the process when it ends
    limit = int(pool.spec.config.max_episode_steps)
    actions = action_spec(pool.action_space, settings.id)
    spaces = pool.observation_space, pool.action_space
    limit = limit if 0 < limit < NO_LIMIT else None
    said = atari.notes(settings) if is_atari(settings.id) else ()
    shape, said = observation_shape(pool.observation_space), (*said, *notes(pool.observation_space, settings.id))
    return EnvironmentSpec(shape, actions, limit, "envpool", spaces, notes=said)


def _outer_limit(settings: EnvSettings) -> int | None:
    """The time limit in steps, where it stands outside of the environment: its rewards and observations know none."""
    if is_atari(settings.id) or settings.id not in gymnasium_backend.registered_ids():
        return None
    return settings.max_episode_steps or gymnasium_backend.registered_limit(settings.id)


class EnvPoolEnvironments:
    """A synchronous pool: all environments step together, so that results do not depend on timing.

    Where gymnasium has the id, the time limit is applied here, as gymnasium applies it around an environment: EnvPool's
    own hides an end that comes in the last allowed step (it is flagged as truncated only). Its limit is then one
    step longer, and an environment that meets ours is reset in the next step, as EnvPool would have done.
    """

    def __init__(
        self, settings: EnvSettings, seeds: list[int], threads: int, first_limits: list[int] | None = None
    ) -> None:
        self.num_envs = len(seeds)
        self._make = partial(_make, threads=threads)
        self._settings, limit = settings, _outer_limit(settings)
        if limit is not None:
            self._settings = replace(settings, max_episode_steps=limit + 1)
        self._limit = NO_LIMIT if limit is None else limit
        self._first_limits = None if first_limits is None else np.array(first_limits)
        self._pool = self._make(self._settings, seeds)
        self._late = np.zeros(self.num_envs, dtype=bool)  # met our limit in the last step
        self._counts_lives, self.life_lost = settings.episodic_life, np.zeros(self.num_envs, dtype=bool)
        self._space = self._pool.observation_space
        self._to_env_action = to_env_action(self._pool.action_space, scaled=settings.scale_actions)
        where = f"env.id={settings.id}: one of {len(seeds)} environments of EnvPool (which does not say which)"
        self._deadline = Deadline(settings.timeout, lambda: where)

    def reset(self, seeds: list[int] | None = None) -> np.ndarray:
        if seeds is not None:  # a pool keeps those that it was made with
            self._pool = self._make(self._settings, seeds)
        self._late[:] = False
        with self._deadline:
            observations = self._pool.reset()[0]
        return flatten_batch(self._space, observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        to_env = self._to_env_action(actions)
        with self._deadline:
            if self._late.any():
                return self._step_others(to_env)
            observations, rewards, terminated, truncated, info = self._pool.step(to_env)
        if self._counts_lives:
            self.life_lost = terminated & ~info["terminated"].astype(bool)
        truncated = self._cut(info["elapsed_step"], terminated, truncated)
        return flatten_batch(self._space, observations), rewards, terminated, truncated

    def _cut(self, elapsed: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
        """Who is truncated, with those at our limit; these are reset later, unless EnvPool does it by itself."""
        at_limit = elapsed >= (self._limit if self._first_limits is None else self._first_limits)
        if self._first_limits is not None:
            self._first_limits[at_limit | terminated | truncated] = self._limit
            if (self._first_limits == self._limit).all():
                self._first_limits = None
        self._late = at_limit & ~terminated & ~truncated
        return truncated | at_limit

    def _step_others(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A step in which environments that met our limit only reset, as after any end of an episode."""
        late, others = np.flatnonzero(self._late).astype(np.int32), np.flatnonzero(~self._late).astype(np.int32)
        first = flatten_batch(self._space, self._pool.reset(late)[0])
        observations = np.empty((self.num_envs, *first.shape[1:]), dtype=first.dtype)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, dtype=bool), np.zeros(self.num_envs, dtype=bool)
        observations[late] = first
        self._late = np.zeros(self.num_envs, dtype=bool)
        if len(others):
            seen, rewards[others], terminated[others], ends, info = self._pool.step(actions[others], others)
            observations[others] = flatten_batch(self._space, seen)
            elapsed = np.zeros(self.num_envs, dtype=np.int64)
            elapsed[others], truncated[others] = info["elapsed_step"], ends
            truncated = self._cut(elapsed, terminated, truncated)
        return observations, rewards, terminated, truncated

    def close(self) -> None:
        del self._pool
