"""gymnasium's vector environments: any registered id, any `module:function` of the user's."""

import difflib
import importlib
import inspect
import logging
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trpo_lightning.environments import tasks  # noqa: F401  registers them
from trpo_lightning.environments.spaces import action_spec, check_observations, flatten_batch, to_env_action
from trpo_lightning.environments.supervised.checked_environment import CheckedEnvironment, locate
from trpo_lightning.environments.supervised.deadline import Deadline
from trpo_lightning.environments.vector_environment import EnvironmentSpec, could_not_be_built
from trpo_lightning.errors import UserError
from trpo_lightning.settings import EnvSettings


def user_function(env_id: str) -> Any:
    """The callable of `module:function`, or None where the part after the colon is a gymnasium id (`module:Id-v0`)."""
    module_name, colon, name = env_id.partition(":")
    if not colon:
        return None
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"env.id={env_id}: module {module_name} cannot be imported: {error}") from error
    function = getattr(module, name, None)
    if function is None and name not in gym.registry:
        raise UserError(f"env.id={env_id}: module {module_name} has no {name}, and registers no such environment")
    return function


def make_one(settings: EnvSettings, **kwargs: Any) -> gym.Env:
    """One environment, with its time limit. Raises `UserError` naming the id where it cannot be built."""
    function = user_function(settings.id)
    kwargs = {**settings.kwargs, **kwargs}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(out of date|precision lowered).*")
        try:
            if function is None:
                name = settings.id.partition(":")[2] or settings.id
                return gym.make(name, max_episode_steps=settings.max_episode_steps, disable_env_checker=True, **kwargs)
            env = function(**kwargs)
        except gym.error.UnregisteredEnv as error:
            raise UserError(f"env.id={settings.id} is not registered{_close_ids(settings.id)}") from error
        except gym.error.DependencyNotInstalled as error:
            raise UserError(f"env.id={settings.id} needs a package that is not installed: {error}") from error
        except Exception as error:
            could_not_be_built(settings, error)
    if not isinstance(env, gym.Env):
        raise UserError(f"env.id={settings.id} returned a {type(env).__name__}, not a gymnasium.Env")
    if settings.max_episode_steps is not None:
        env = gym.wrappers.TimeLimit(env, settings.max_episode_steps)
    return env


def registered_ids() -> list[str]:
    """All ids that gymnasium knows."""
    return list(gym.registry)


def arguments(env_id: str) -> dict[str, Any]:
    """The keyword arguments of a registered id with their defaults."""
    spec = gym.spec(env_id)
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    defaults = {name: item.default for name, item in inspect.signature(creator).parameters.items()} if creator else {}
    return {**defaults, **spec.kwargs}


def _close_ids(env_id: str) -> str:
    ids = {name.lower(): name for name in gym.registry}
    matches = [ids[match] for match in difflib.get_close_matches(env_id.lower(), ids, n=3, cutoff=0.5)]
    return f" (did you mean {', '.join(matches)}?)" if matches else ""


def time_limit(env: gym.Env) -> int | None:
    """The smallest time limit among an environment's wrappers, in steps, or None."""
    limits = [env.spec.max_episode_steps if env.spec else None]
    while isinstance(env, gym.Wrapper):
        limits.append(getattr(env, "_max_episode_steps", None))
        env = env.env
    return min((limit for limit in limits if limit is not None), default=None)


def describe(settings: EnvSettings) -> EnvironmentSpec:
    """Build one environment to see its spaces and time limit."""
    env = make_one(settings)
    try:
        check_observations(env.observation_space, settings.id)
        shape = gym.spaces.flatten_space(env.observation_space).shape
        assert shape is not None
        return EnvironmentSpec(shape, action_spec(env.action_space, settings.id), time_limit(env), "gymnasium")
    finally:
        env.close()


def checked_environment(settings: EnvSettings, index: int = 0) -> CheckedEnvironment:
    """One environment that tells its faults in one line, as the `index`-th of several."""
    return CheckedEnvironment(make_one(settings), settings.id, index)


class GymnasiumEnvironments:
    """`SyncVectorEnv`: the environments step one after another in this process."""

    def __init__(self, settings: EnvSettings, seeds: list[int]) -> None:
        logging.getLogger("gymnasium").setLevel(logging.ERROR)
        self.num_envs = len(seeds)
        self._seeds: list[int | None] | None = list(seeds)
        makers = [partial(checked_environment, settings, index) for index in range(len(seeds))]
        self._envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._space = self._envs.single_observation_space
        self._to_env_action = to_env_action(self._envs.single_action_space)
        self._deadline = Deadline(settings.timeout, partial(locate, self.members, settings.id))

    @property
    def members(self) -> Sequence[CheckedEnvironment]:
        """The environments themselves."""
        return self._envs.envs  # type: ignore[return-value]

    def reset(self) -> np.ndarray:
        with self._deadline:
            observations, _ = self._envs.reset(seed=self._seeds)
        self._seeds = None  # later episodes continue the environments' own random numbers
        return flatten_batch(self._space, observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        with self._deadline:
            observations, rewards, terminated, truncated, _ = self._envs.step(self._to_env_action(actions))
        return flatten_batch(self._space, observations), rewards, terminated, truncated

    def close(self) -> None:
        with self._deadline:
            self._envs.close()
