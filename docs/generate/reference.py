"""Pages of the reference generated from the code: settings, metrics, files of a run, exit codes, commands."""

import argparse
import functools
import inspect

from generate import settings_page
from generate.markdown import NOTICE, sections, table


def pages() -> dict[str, str]:
    """The pages, by path."""
    return {
        "reference/settings.md": settings_page.page(),
        "reference/metrics.md": metrics(),
        "reference/files.md": files(),
        "reference/exit-codes.md": exit_codes(),
        "reference/command-line.md": command_line(),
    }


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
        "The columns of `metrics.csv`, one row per iteration, and the names under which W&B and every other Lightning "
        "logger get them. A cell is empty if an iteration has no such number: no episode ended, or the update rule has "
        "no such part.",
        NOTICE,
        *parts,
    )


def files() -> str:
    """The files in a run's directory."""
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
    """The meanings of exit codes, from the classes of errors."""
    from trpo_lightning import errors

    rows = [
        ("0", "success"),
        ("1", "a run failed, or a bug, with its traceback; for `replay`: a different result"),
    ]
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.UserError):
            meaning = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
            rows.append((str(kind.exit_code), f"`{kind.__name__}`: {meaning}"))
    rows += [
        ("130, 143", "stopped by Ctrl-C, by SIGTERM: a run ends after its iteration and resumes from its last barrier"),
        ("141", "nobody reads the output any longer"),
    ]
    rows.sort(key=lambda row: int(row[0].split(",")[0]))
    return sections(
        "# Exit codes",
        "The exit codes of all commands. User errors are reported in one line on standard error, without a traceback.",
        NOTICE,
        table(("code", "meaning"), rows),
        "`experiment` returns 1 if a run failed or got stuck, and 130 if any was stopped or is missing.",
    )


def command_line() -> str:
    """The help of each command."""
    from trpo_lightning.command_line import build_parser

    parser = build_parser()
    parts = []
    for name, command in _commands(parser).items():
        # as wide as the page, whatever the terminal; the settings in `train --help` have a separate page
        command.formatter_class = functools.partial(argparse.HelpFormatter, width=88)
        command.more_help = None
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
