"""What `tracking.loggers` needs: packages for the built-in trackers, a function for one of one's own."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trpo_lightning.errors import UserError
from trpo_lightning.settings import LOGGERS, RunSettings
from trpo_lightning.user_modules import import_user_module

NEEDED: dict[str, tuple[str, ...]] = {
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
}
"""Modules without which a tracker does not work."""


def check_loggers(settings: RunSettings) -> None:
    """Raise a `UserError` that says what to install, or that `module:function` does not exist; nothing is opened."""
    for name in settings.tracking.loggers:
        if name == "wandb" and settings.tracking.wandb == "disabled":
            continue
        if name in LOGGERS:
            check_package(name, f"tracking.loggers={name}")
        else:
            logger_function(name)


def check_package(tracker: str, what: str) -> None:
    """Raise a `UserError` with the line to type if a tracker's packages are not installed."""
    if any(find_spec(module) is None for module in NEEDED[tracker]):
        raise UserError(f"{what} needs the extra: pip install 'trpo_lightning[{tracker}]'")


def logger_function(name: str) -> Callable[[RunSettings, Path], Any]:
    """The function that `module:function` names. Raises `UserError` if there is none."""
    module, _, function = name.partition(":")
    found = getattr(import_user_module(module, f"tracking.loggers={name}"), function, None)
    if not callable(found):
        raise UserError(f"tracking.loggers={name}: module {module} has no function {function}")
    return found
