"""Imports the user's modules that settings name; nothing else in the package imports by name."""

import importlib
import os
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from trpo_lightning.errors import UserError

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of installed packages, wherever they are."""


def import_user_module(name: str, what: str) -> ModuleType:
    """Import a module by name; importing runs its code, so the name must come from the user.

    Args:
        name: The dotted name.
        what: The setting that names it, such as `env.id=my_module:make`.

    Raises:
        UserError: It cannot be imported; the message names the file and line of the user's code that fails.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        if missing:
            hint = "it is looked for in the current folder, in PYTHONPATH and among installed packages"
            raise UserError(f"{what}: module {name} cannot be imported: {error} ({hint})") from error
        text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:300]
        kind = type(error).__name__ + (f": {text}" if text else "")
        raise UserError(f"{what}: module {name} cannot be imported: {_line_of(error)}: {kind}") from error


def import_user_function(name: str, what: str) -> Callable[..., Any]:
    """Import what `module:function` names.

    Raises:
        UserError: The module cannot be imported, or has no such function; the message begins with `what`.
    """
    module, _, function = name.partition(":")
    found = getattr(import_user_module(module, what), function, None)
    if not callable(found):
        raise UserError(f"{what}: module {module} has no function {function}")
    return found


def one_line(error: BaseException) -> str:
    """The type and text of a third-party exception, short enough for one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def own_line(error: BaseException) -> str:
    """`file:line` where the user's code failed, the last frame of it; empty if none was reached."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    elsewhere = tuple(f"{folder}{os.sep}" for folder in (*libraries, Path(__file__).parent))
    frames = traceback.extract_tb(error.__traceback__)  # compiled modules name files that are not here
    files = [frame for frame in frames if Path(frame.filename).is_file()]
    own = [f for f in files if not f.filename.startswith(elsewhere) and INSTALLED.isdisjoint(Path(f.filename).parts)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""


def users_failure(error: BaseException) -> str | None:
    """One line for an exception from the user's own classes and functions; None if it is none of these."""
    line = own_line(error)
    return f"{line}: {one_line(error)}" if line else None


def _line_of(error: BaseException) -> str:
    """`file:line` where an import failed, in the user's code if that was reached."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return own_line(error) or f"{frame.filename}:{frame.lineno}"
