"""gymnasium's vector environments: any registered id, any custom environment."""

import difflib
import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trpo_lightning.environments import atari, tasks  # noqa: F401  registers them
from trpo_lightning.environments.cautions import statistics_cautions
from trpo_lightning.environments.packages import package_hint, wrapper_of_package
from trpo_lightning.environments.spaces import (
    action_spec,
    check_observations,
    flatten_batch,
    notes,
    observation_shape,
    to_env_action,
)
from trpo_lightning.environments.supervised.checked_environment import CheckedEnvironment, locate
from trpo_lightning.environments.supervised.deadline import Deadline
from trpo_lightning.environments.user_code import port_hint, signature_of, user_function
from trpo_lightning.environments.vector_environment import (
    LIFE_LOST,
    EnvironmentSpec,
    Spaces,
    could_not_be_built,
    first_options,
)
from trpo_lightning.environments.wrappers import wrapped
from trpo_lightning.errors import UserError
from trpo_lightning.settings import EnvSettings, is_atari


def make_one(settings: EnvSettings, **kwargs: Any) -> gym.Env:
    """One environment, with its time limit and wrappers. Raises `UserError` naming the id where it cannot be built."""
    kwargs = {**settings.kwargs, **kwargs}
    env = atari.make(settings, kwargs) if is_atari(settings.id) else _made(settings, user_function(settings), kwargs)
    if not isinstance(env, gym.Env):
        raise UserError(f"env.id={settings.id} returned a {_full_name(type(env))}, not a gymnasium.Env{port_hint(env)}")
    return wrapped(env, settings)


def _made(settings: EnvSettings, function: Callable[..., Any] | None, kwargs: dict[str, Any]) -> Any:
    limit = settings.max_episode_steps
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(out of date|precision lowered).*")
        try:
            if function is None:
                name = settings.id.partition(":")[2] or settings.id
                _refuse_vectors(settings.id, name)
                return gym.make(name, max_episode_steps=limit, disable_env_checker=True, **kwargs)
            env = function(**kwargs)
        except gym.error.UnregisteredEnv as error:
            raise UserError(f"env.id={settings.id} is not registered{_hint(settings.id)}") from error
        except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise UserError(f"env.id={settings.id} needs a package that is not installed: {error}") from error
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, gym.error.Error) and "," in settings.id:
                raise UserError(f"env.id={settings.id}: a run has one, an experiment several") from error
            could_not_be_built(settings, error)
    return gym.wrappers.TimeLimit(env, limit) if limit is not None and isinstance(env, gym.Env) else env


def _refuse_vectors(env_id: str, name: str) -> None:
    """Raise a `UserError` for an id that stands for a vector environment and nothing else."""
    spec = gym.registry.get(name)
    if spec is not None and spec.entry_point is None and spec.vector_entry_point is not None:
        raise UserError(
            f"env.id={env_id} is registered as a vector environment only: name an id, or module:function, that makes "
            "one environment; env.num_envs of them are stepped together"
        )


def registered_ids() -> list[str]:
    """All ids that gymnasium knows."""
    return list(gym.registry)


def registered_limit(env_id: str) -> int | None:
    """The time limit of a registered id, in steps."""
    return gym.spec(env_id).max_episode_steps


def arguments(env_id: str) -> dict[str, Any]:
    """The keyword arguments of a registered id, with their defaults."""
    spec = gym.spec(env_id)
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    return {**(signature_of(creator) if creator else {}), **spec.kwargs}


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _hint(env_id: str) -> str:
    """The package that registers an unknown id, or registered ids that look like it."""
    own = ":" in env_id
    if not own and (hint := package_hint(env_id)):
        return f": {hint}"
    env_id = env_id.partition(":")[2] or env_id
    ids = {name.lower(): name for name in gym.registry}
    matches = [ids[match] for match in difflib.get_close_matches(env_id.lower(), ids, n=3, cutoff=0.5)]
    hint = f" (did you mean {', '.join(matches)}?)" if matches else ""
    return hint if own else f"{hint}; one of your own is named module:Class or module:id"


def time_limit(env: gym.Env) -> int | None:
    """The smallest time limit among an environment's wrappers, in steps, or None."""
    limits = [env.spec.max_episode_steps if env.spec else None]
    while isinstance(env, gym.Wrapper):
        limits.append(getattr(env, "_max_episode_steps", None))
        env = env.env
    return min((limit for limit in limits if limit is not None), default=None)


def describe(settings: EnvSettings) -> EnvironmentSpec:
    """Build one environment to read its spaces and time limit."""
    env = make_one(settings)
    try:
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), gym.Space):
                raise UserError(f"env.id={settings.id}: its {name} is not a gymnasium space: set it in the constructor")
        check_observations(env.observation_space, settings.id, wrapper_of_package(env))
        return EnvironmentSpec(
            observation_shape(env.observation_space),
            action_spec(env.action_space, settings.id),
            time_limit(env),
            "gymnasium",
            (env.observation_space, env.action_space),
            statistics_cautions(env, settings.id),
            (*(atari.notes(settings) if is_atari(settings.id) else ()), *notes(env.observation_space, settings.id)),
        )
    finally:
        CheckedEnvironment(env, settings.id, 0).close()


def checked_environment(
    settings: EnvSettings, index: int = 0, spaces: Spaces | None = None, first_limit: int | None = None
) -> CheckedEnvironment:
    """Make one environment that reports its faults in one line, the `index`-th of several that all have `spaces`."""
    env = make_one(settings)
    mine = env.observation_space, env.action_space
    if spaces is not None and mine != spaces:
        CheckedEnvironment(env, settings.id, index).close()
        name, one, other = next(
            (name, *pair)
            for name, *pair in zip(("observation", "action"), mine, spaces, strict=True)
            if pair[0] != pair[1]
        )
        raise UserError(
            f"env.id={settings.id}: environment {index} has the {name} space {one}, but the policy was made for "
            f"{other}: all environments need the same"
        )
    return CheckedEnvironment(env, settings.id, index, first_limit)


class GymnasiumEnvironments:
    """`SyncVectorEnv`: the environments step one after the other, in this process."""

    def __init__(
        self,
        settings: EnvSettings,
        seeds: list[int],
        spaces: Spaces | None = None,
        first_limits: list[int] | None = None,
    ) -> None:
        logging.getLogger("gymnasium").setLevel(logging.ERROR)
        self.num_envs = len(seeds)
        self._seeds: Any = list(seeds)
        self._options = first_options(settings)
        self.life_lost = self._none_lost = np.zeros(len(seeds), dtype=bool)
        envs = _all_or_none(settings, spaces, first_limits or [None] * len(seeds))
        makers = [partial(_handed_over, env) for env in envs]
        self._envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._space = self._envs.single_observation_space
        self._to_env_action = to_env_action(self._envs.single_action_space, scaled=settings.scale_actions)
        self._deadline = Deadline(settings.timeout, partial(locate, self.members, settings.id))

    @property
    def members(self) -> Sequence[CheckedEnvironment]:
        """The single environments."""
        return self._envs.envs  # type: ignore[return-value]

    def reset(self, seeds: list[int] | None = None) -> np.ndarray:
        with self._deadline:
            observations, _ = self._envs.reset(
                seed=self._seeds if seeds is None else list(seeds), options=self._options
            )
        self._seeds = None  # later episodes draw on from the environments' own generators
        return flatten_batch(self._space, observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        with self._deadline:
            observations, rewards, terminated, truncated, info = self._envs.step(self._to_env_action(actions))
        self.life_lost = info.get(LIFE_LOST, self._none_lost)
        return flatten_batch(self._space, observations), rewards, terminated, truncated

    def close(self) -> None:
        with self._deadline:
            self._envs.close()


def _all_or_none(
    settings: EnvSettings, spaces: Spaces | None, first_limits: Sequence[int | None]
) -> list[CheckedEnvironment]:
    """Make an environment for each of these; if one cannot be built, close those made before it."""
    envs: list[CheckedEnvironment] = []
    try:
        for index, first_limit in enumerate(first_limits):
            envs.append(checked_environment(settings, index, spaces, first_limit))
    except BaseException:
        for env in envs:
            env.close()
        raise
    return envs


def _handed_over(env: CheckedEnvironment) -> CheckedEnvironment:
    return env
