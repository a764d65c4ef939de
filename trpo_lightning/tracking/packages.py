"""What `tracking.loggers` needs: packages for the built-in trackers, a function for one of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trpo_lightning.extras import check_extra
from trpo_lightning.settings import LOGGERS, RunSettings
from trpo_lightning.user_modules import import_user_function


def check_loggers(settings: RunSettings) -> None:
    """Raise a `UserError` that says what to install, or that `module:function` does not exist; nothing is opened."""
    for name in settings.tracking.loggers:
        if name == "wandb" and settings.tracking.wandb == "disabled":
            continue
        if name in LOGGERS:
            check_extra(name, f"tracking.loggers={name}")
        else:
            logger_function(name)


def logger_function(name: str) -> Callable[[RunSettings, Path], Any]:
    """The function that `module:function` names. Raises `UserError` if there is none."""
    return import_user_function(name, f"tracking.loggers={name}")
