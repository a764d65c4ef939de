"""`env.wrappers`: wrappers of gymnasium's, of a package's or of the user's own, around what `env.id` makes."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from trpo_lightning.environments.vector_environment import with_line
from trpo_lightning.errors import UserError
from trpo_lightning.settings import EnvSettings
from trpo_lightning.user_modules import import_user_module, one_line


def wrapped(env: gym.Env, settings: EnvSettings) -> gym.Env:
    """The environment in its `env.wrappers`, the first of them innermost.

    Raises:
        UserError: One cannot be found, or does not take this environment.
    """
    for name in settings.wrappers:
        what = f"env.wrappers={name}"
        wrapper = _wrapper(name, what)
        try:
            outer = wrapper(env)
        except Exception as error:
            raise UserError(
                f"{what} does not take env.id={settings.id}: {with_line(error)} (it is given the environment alone: "
                "where it needs more, env.id=module:function names a function of yours that wraps)"
            ) from error
        if not isinstance(outer, gym.Env):
            raise UserError(f"{what} returned a {type(outer).__name__}, not a gymnasium.Env")
        env = outer
    return env


def _wrapper(name: str, what: str) -> Callable[[gym.Env], Any]:
    module_name, colon, path = name.partition(":")
    if not colon or not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"{what} is not module:Class, such as gymnasium.wrappers:FlattenObservation")
    module = import_user_module(module_name, what)
    try:
        found = functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:  # gymnasium's own says which wrapper has another name now
        raise UserError(f"{what}: module {module_name} has no {path} ({one_line(error)})") from None
    if not callable(found):
        raise UserError(f"{what}: {path} is a {type(found).__name__}: name a class or a function")
    return found  # type: ignore[return-value]
