"""Pages of the reference that say what the code says: settings, metrics, files of a run, exit codes, commands."""

import argparse
import functools
import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any

from generate.markdown import sections, table

NOTICE = "*Made from the code when this site was built.*"


def pages() -> dict[str, str]:
    """The pages, by their paths."""
    return {
        "reference/settings.md": settings(),
        "reference/metrics.md": metrics(),
        "reference/files.md": files(),
        "reference/exit-codes.md": exit_codes(),
        "reference/command-line.md": command_line(),
    }


@dataclass(frozen=True)
class Key:
    """A setting as its declaration has it; `allowed` is its type with its range, or its choices."""

    name: str
    default: str
    allowed: str
    meaning: str
    source: str


def declared_keys() -> list[Key]:
    """All settings in order of their declaration."""
    from trpo_lightning.settings import RunSettings, get, keys
    from trpo_lightning.settings.keys import hint

    defaults = RunSettings()
    return [
        Key(
            name,
            _shown(get(defaults, name)),
            _allowed(hint(name), item.metadata),
            item.metadata["meaning"],
            item.metadata["source"],
        )
        for name, item in keys().items()
    ]


def settings() -> str:
    """A table for each group of keys."""
    groups: dict[str, list[Key]] = {}
    for key in declared_keys():
        groups.setdefault(key.name.rpartition(".")[0], []).append(key)
    parts = []
    for name, found in groups.items():
        rows = [(_anchor(key.name), _code(key.default), key.allowed, _meaning(key)) for key in found]
        parts += [f"## `{name}`" if name else "## The run", table(("key", "default", "values", "meaning"), rows)]
    return sections(
        "# Settings",
        "Every key of a run. On the command line `key=value` sets one; in a file it stands in its group. In Python its "
        "last part is enough where it is unambiguous: `TRPO(delta=0.01)`. `null` in a file or on the command line is "
        "`None` in Python. A value that is not allowed ends the command with one line that names the key.",
        NOTICE,
        *parts,
    )


def metrics() -> str:
    """A table for each group of metrics."""
    from trpo_lightning.training.metrics import METRICS

    groups: dict[str, list[tuple[str, str]]] = {}
    for name, meaning in METRICS.items():
        groups.setdefault(name.rpartition("/")[0], []).append((f"`{name}`", meaning))
    parts = []
    for name, rows in groups.items():
        parts += [f"## `{name}/`" if name else "## Counters", table(("metric", "meaning"), rows)]
    return sections(
        "# Metrics",
        "The columns of `metrics.csv`, one row an iteration, and the names under which W&B and every other logger of "
        "Lightning get them. A cell is empty where an iteration has no such number: no episode ended, or the update "
        "rule has no such part.",
        NOTICE,
        *parts,
    )


def files() -> str:
    """What stands in a run's directory."""
    from trpo_lightning.runs.files import FILES

    return sections(
        "# Files of a run",
        "In `runs/<experiment>/<scale>/<env>/<variant>/seed_<n>/`, for single runs in "
        "`runs/train/<env>/<name>/seed_<n>/`.",
        NOTICE,
        table(("file", "content"), [(f"`{name}`", meaning) for name, meaning in FILES.items()]),
        "Disk use is bounded: two barriers and two policies (about 200 KB for networks of 64 and 64 units), and some "
        "400 bytes an iteration.",
    )


def exit_codes() -> str:
    """What a command's exit code says, from the classes of errors."""
    from trpo_lightning import errors

    rows = [
        ("0", "success"),
        ("1", "a run failed, or an error of ours with its traceback; of `replay`: another result"),
    ]
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.UserError):
            meaning = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
            rows.append((str(kind.exit_code), f"`{kind.__name__}`: {meaning}"))
    rows += [
        ("130, 143", "stopped by Ctrl-C, by SIGTERM: a run ends after its iteration and resumes from its last barrier"),
        ("141", "nobody reads the output any more"),
    ]
    rows.sort(key=lambda row: int(row[0].split(",")[0]))
    return sections(
        "# Exit codes",
        "Of all commands. An error of the user's is told in one line on standard error, without a traceback.",
        NOTICE,
        table(("code", "meaning"), rows),
        "`experiment` has 1 if a run failed or got stuck, and 130 if any was stopped or is missing.",
    )


def command_line() -> str:
    """The help of each command."""
    from trpo_lightning.command_line import build_parser

    parser = build_parser()
    parts = []
    for name, command in _commands(parser).items():
        # as wide as the page, whatever the terminal; the settings of `train --help` have a page of their own
        command.formatter_class = functools.partial(argparse.HelpFormatter, width=88)
        parts += [f"## `{name}`", f"```text\n{command.format_help().strip()}\n```"]
    return sections(
        "# Command line",
        "`python -m trpo_lightning COMMAND`, or `trpo-lightning COMMAND` once the package is installed. "
        "`train --help` also lists all [settings](settings.md).",
        NOTICE,
        *parts,
    )


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    subparsers = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return subparsers.choices


def _anchor(name: str) -> str:
    """A key that can be linked to, and that breaks between its words where the page is narrow."""
    breakable = re.sub(r"([._])", r"\1<wbr>", name)
    return f'<code id="{name}">{breakable}</code>'


def _meaning(key: Key) -> str:
    return f"{key.meaning} *[{key.source}]*" if key.source else key.meaning


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _shown(value: Any) -> str:
    """As the command line takes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"


def _allowed(hint: Any, limits: dict[str, Any]) -> str:
    """`number, > 0, ≤ 1`, or the choices."""
    if limits["choices"]:
        return ", ".join(f"`{_shown(choice)}`" for choice in limits["choices"])
    signs = {"minimum": "≥", "above": ">", "maximum": "≤"}
    bounds = [f"{sign} {limits[name]:g}" for name, sign in signs.items() if limits[name] is not None]
    return ", ".join([_kind(hint), *bounds])


NAMES = {int: "integer", float: "number", str: "text", bool: "`true`, `false`", type(None): "`null`"}


def _kind(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return f"list of {_kind(inner[0])}s"
    if origin is dict or hint is dict:
        return "mapping"
    if inner:
        return " or ".join(_kind(part) for part in inner)
    return NAMES.get(hint, getattr(hint, "__name__", str(hint)))
