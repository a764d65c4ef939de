"""Custom environments: `module:function` as text, and Python objects given to `TRPO`."""

import copy
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from trpo_lightning.environments.packages import missing_package
from trpo_lightning.errors import UserError
from trpo_lightning.settings import EnvSettings
from trpo_lightning.user_modules import import_user_module, one_line

OBJECTS: dict[str, Any] = {}
"""Functions, classes, specs and instances that have no importable name, by their `env.id` in this process."""
SEVERAL_AGENTS = "make one environment of all of them, as Joint in examples/several_agents.py does"


def adopt(environment: Any, settings: EnvSettings) -> None:
    """Set `env.id` for an environment in any form.

    Anything that can be imported, or found in gymnasium's registry, is recorded by name, so that it can be built
    elsewhere; other objects get an id in angle brackets that is valid in this process only.

    Args:
        environment: An id, a class, a function, an instance or a spec.
        settings: Where to set `env.id`.

    Raises:
        UserError: It is none of these, an empty text, or an instance together with `env.kwargs`.
    """
    if isinstance(environment, str) and environment.strip():
        settings.id = environment
    elif isinstance(environment, EnvSpec):
        _adopt_spec(environment, settings)
    elif isinstance(environment, gym.Env):
        if settings.kwargs:
            raise UserError(f"env.kwargs={settings.kwargs} does not go with an instance: it is made already")
        settings.id = _object_id(environment, f"{type(environment).__name__} instance")
    elif callable(environment) and not isinstance(environment, gym.vector.VectorEnv):
        settings.id = _name(environment) or _object_id(environment, getattr(environment, "__name__", "function"))
    else:
        what = repr(environment) if environment is None or environment == "" else f"a {type(environment).__name__}"
        if hint := port_hint(environment):
            raise UserError(f"{what} is not an environment of gymnasium's{hint}")
        raise UserError(
            f"{what} is not an environment: give the id of a registered one, module:function, a gymnasium.Env class or "
            "instance, a function that returns one, or a gymnasium.spec (env.num_envs of them are made)"
        )


def registered_id(environment: Any) -> str | None:
    """The id, where an environment is given as one or as the spec of one that is registered."""
    found = environment.id if isinstance(environment, EnvSpec) and _is_registered(environment) else environment
    return found if isinstance(found, str) and found.strip() else None


def names_code(settings: EnvSettings) -> str | None:
    """The setting that names a module to import or a function to call; None if gymnasium's registry does it all."""
    if settings.id in OBJECTS or ":" in settings.id:
        return f"env.id={settings.id}"
    known = {f"gymnasium.wrappers:{name}" for name in gym.wrappers.__all__}
    outside = [name for name in settings.wrappers if name not in known]
    return f"env.wrappers={outside[0]}" if outside else None


def port_hint(env: Any) -> str:
    """How an environment of another interface becomes one of gymnasium's; empty for what is no environment."""
    if hasattr(env, "possible_agents"):  # PettingZoo's
        return f": it has several agents, {SEVERAL_AGENTS}"
    if isinstance(env, gym.vector.VectorEnv) or hasattr(env, "num_envs"):
        return (
            ": give what makes one environment, env.num_envs of them are stepped together; where its members are "
            f"agents in one world, {SEVERAL_AGENTS}"
        )
    if hasattr(env, "observation_spec"):  # dm_env's
        return ": wrap it, shimmy.DmControlCompatibilityV0(env)"
    if any(base.__module__.partition(".")[0] == "gym" for base in type(env).__mro__):
        return ": derive it from gymnasium.Env, or wrap it (GymV21Environment or GymV26Environment of shimmy)"
    return ": derive it from gymnasium.Env" if hasattr(env, "step") else ""


def _adopt_spec(spec: EnvSpec, settings: EnvSettings) -> None:
    if not _is_registered(spec):
        settings.id = _object_id(spec, f"{spec.id} spec")
        return
    known = gym.registry[spec.id]
    settings.id = spec.id
    own = {name: value for name, value in spec.kwargs.items() if known.kwargs.get(name, ...) != value}
    own.pop("render_mode", None)  # concerns the display of one instance
    settings.kwargs = {**own, **settings.kwargs}
    if settings.max_episode_steps is None and spec.max_episode_steps != known.max_episode_steps:
        settings.max_episode_steps = spec.max_episode_steps


def _is_registered(spec: EnvSpec) -> bool:
    """Whether gymnasium makes this environment from its id, apart from its arguments and time limit."""
    known = gym.registry.get(spec.id)
    return known is not None and known.entry_point == spec.entry_point and not spec.additional_wrappers


def _name(function: Any) -> str | None:
    """`module:name`, if that leads back to the object."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module is None or name is None:
        return None
    try:
        found = functools.reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):  # a lambda, or defined in a function
        return None
    return f"{module}:{name}" if found is function else None


def _object_id(thing: Any, kind: str) -> str:
    known = next((env_id for env_id, other in OBJECTS.items() if other is thing), None)
    env_id = known or f"<{kind} {len(OBJECTS) + 1}>"
    OBJECTS[env_id] = thing
    return env_id


def is_lone_instance(settings: EnvSettings) -> bool:
    """Whether `env.id` is a user's instance that is not copied, so that only one environment is open at a time."""
    return settings.num_envs == 1 and isinstance(OBJECTS.get(settings.id), gym.Env)


def user_function(settings: EnvSettings) -> Callable[..., Any] | None:
    """The function that makes the environment, or None if gymnasium's registry does (`Id-v0`, `module:Id-v0`).

    Raises:
        UserError: The module has no such function, or cannot be imported; the message names the user's failing line.
    """
    env_id = settings.id
    if env_id.startswith("<"):
        return _maker_of_object(settings)
    module_name, colon, name = env_id.partition(":")
    if not colon:
        return None
    if not name or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"env.id={env_id} is not module:function, such as my_package.tasks:make_env")
    if hint := missing_package(module_name, name):
        raise UserError(f"env.id={env_id}: {hint}")
    module = import_user_module(module_name, f"env.id={env_id}")
    if name in gym.registry:
        return None
    try:
        function = functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        hint = ": what a script or a notebook defines is there only in its own process" * (module_name == "__main__")
        raise UserError(
            f"env.id={env_id}: module {module_name} has no {name}, and registers no such environment{hint}"
        ) from None
    if not callable(function):
        raise UserError(f"env.id={env_id}: {name} is a {type(function).__name__}: name a class or a function")
    return function


def _maker_of_object(settings: EnvSettings) -> Callable[..., Any]:
    thing = OBJECTS.get(settings.id)
    if thing is None:
        raise UserError(
            f"env.id={settings.id} was an object of the process that trained the policy, and cannot be made here: "
            "`act` needs none; to train or evaluate, put a function that makes it into a module, module:function"
        )
    if isinstance(thing, EnvSpec):
        return functools.partial(gym.make, thing)
    if isinstance(thing, gym.Env):
        return functools.partial(_instance, thing, settings)
    return thing


def _instance(env: gym.Env, settings: EnvSettings, **kwargs: Any) -> gym.Env:
    """The user's instance itself, which is left open, or a copy of it."""
    if kwargs:
        raise UserError(f"env.id={settings.id} is an instance, which takes no arguments ({', '.join(kwargs)})")
    if is_lone_instance(settings):
        return _KeptOpen(env)
    try:
        return copy.deepcopy(env)
    except Exception as error:
        raise UserError(
            f"env.id={settings.id} cannot be copied for env.num_envs={settings.num_envs} ({one_line(error)}): give a "
            "class or a function that makes it, or num_envs=1"
        ) from error


class _KeptOpen(gym.Wrapper):
    """Leaves closing to whoever made the environment."""

    def close(self) -> None:
        """Do nothing."""


def signature_of(creator: Callable[..., Any]) -> dict[str, Any]:
    """The names of a function's arguments with their defaults."""
    return {name: item.default for name, item in inspect.signature(creator).parameters.items()}
