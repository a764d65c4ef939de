"""The command line: every command with its options, as `python -m trpo_lightning COMMAND --help` shows them."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from trpo_lightning import commands
from trpo_lightning.errors import UserError
from trpo_lightning.experiment.launchers.options import FLAGS, LAUNCHERS
from trpo_lightning.settings.run import LOGGERS


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; each command sets `function`, which takes the parsed options and returns an exit code."""
    parser = _Parser(prog="python -m trpo_lightning", description="Trust-region policy optimization.")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for add in (
        _add_train,
        _add_experiment,
        _add_report,
        _add_sweep,
        _add_sweep_run,
        _add_evaluate,
        _add_export,
        _add_replay,
        _add_benchmark,
        _add_list,
    ):
        add(parsers)
    return parser


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, like all others; `more_help` turns the arguments so far into additional help."""

    more_help: Callable[[list[str]], str] | None = None
    _given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        self._given = list(args or ())
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        return super().format_help() + (self.more_help(list(self._given)) if self.more_help else "")


def _keys_help(given: list[str]) -> str:
    """List every key that has an effect with the methods chosen in `given`, one line each."""
    from trpo_lightning.settings import CHOICES, described_keys

    pairs = (item.partition("=")[::2] for item in given)
    described = described_keys({key: value for key, value in pairs if key in CHOICES})
    lines = [f"  {f'{key}={value}':<42} {meaning}" for key, value, meaning in described]
    return "\n".join(["", "keys with these methods (others: for example rule.name=cem --help):", *lines, ""])


_Parsers = argparse._SubParsersAction  # argparse has no public name for it


def _add_train(parsers: _Parsers) -> None:
    parser = parsers.add_parser("train", help="one run", description="One run.", allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as env.id=Hopper-v5")
    parser.add_argument("--config", type=Path, metavar="FILE", help="file with settings, such as a run's config.yaml")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="continue a run from its last barrier")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="default: runs/train/<env>/<name>/seed_<n>")
    parser.add_argument("--quiet", action="store_true", help="no line per update and no progress bar")
    parser.more_help = _keys_help
    parser.set_defaults(function=commands.train)


def _add_experiment(parsers: _Parsers) -> None:
    parser = parsers.add_parser("experiment", help="start an experiment's missing runs", allow_abbrev=False)
    _add_experiment_options(parser)
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time; default: one per core, or no limit")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and stop")
    parser.add_argument("--force", action="store_true", help="move earlier runs away and start all over")
    _add_launcher_options(parser)
    parser.set_defaults(function=commands.experiment)


def _add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """One for each key of a launcher's file that is a single value."""
    group = parser.add_argument_group("where the runs are done")
    group.add_argument(
        "--launcher",
        default="local",
        metavar="NAME",
        help=f"{', '.join(LAUNCHERS)}, or a YAML file with `launcher:` and the options below; default: local",
    )
    for flag, (kind, owners, meaning) in FLAGS.items():
        more = (
            {"action": "store_const", "const": True}
            if kind is bool
            else {"type": kind, "metavar": kind.__name__.upper()}
        )
        group.add_argument(f"--{flag.replace('_', '-')}", help=f"{owners}: {meaning}", **more)


def _add_report(parsers: _Parsers) -> None:
    parser = parsers.add_parser("report", help="figures and tables of what has run so far", allow_abbrev=False)
    _add_experiment_options(parser)
    parser.add_argument(
        "--with",
        dest="external",
        action="append",
        default=[],
        metavar="LABEL=SOURCE",
        help="join curves from elsewhere: FILES.csv:steps=COLUMN,return=COLUMN,env=ID, another --root, or wandb:PATH",
    )
    parser.add_argument(
        "--panel",
        dest="panels",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a custom panel: a function from the runs' records to a trpo_lightning.report.panels.Panel",
    )
    parser.add_argument(
        "--from",
        dest="tracker",
        choices=LOGGERS,
        metavar="TRACKER",
        help=f"read the runs from a tracker instead of their directories: {', '.join(LOGGERS)}",
    )
    parser.set_defaults(function=commands.report)


def _add_sweep(parsers: _Parsers) -> None:
    parser = parsers.add_parser("sweep", help="register an experiment as a W&B sweep", allow_abbrev=False)
    _add_experiment_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the sweep's configuration and stop")
    parser.set_defaults(function=commands.sweep)


def _add_sweep_run(parsers: _Parsers) -> None:
    parser = parsers.add_parser("sweep-run", help="one run of a sweep, as a W&B agent calls it", allow_abbrev=False)
    _add_experiment_options(parser)
    parser.set_defaults(function=commands.sweep_run)


def _add_evaluate(parsers: _Parsers) -> None:
    parser = parsers.add_parser("evaluate", help="run episodes with a trained policy", allow_abbrev=False)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of environments and actions; default: 0")
    parser.add_argument("--policy", choices=("last", "best"), default="last", help="which export; default: last")
    parser.add_argument("--video", action="store_true", help="write an mp4 of one episode, and log it to W&B")
    parser.set_defaults(function=commands.evaluate)


def _add_export(parsers: _Parsers) -> None:
    parser = parsers.add_parser(
        "export",
        help="write a trained policy as a folder for a model hub",
        description="Weights, normalizer, config, ONNX, and a card with scores and learning curve.",
        allow_abbrev=False,
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--to", dest="folder", type=Path, metavar="DIR", required=True, help="a new folder")
    parser.add_argument("--policy", choices=("last", "best"), default="last", help="which one; default: last")
    parser.add_argument("--push", metavar="REPO", help="also upload it, to USER/NAME on the Hugging Face hub")
    parser.set_defaults(function=commands.export)


def _add_replay(parsers: _Parsers) -> None:
    parser = parsers.add_parser(
        "replay",
        help="repeat the update whose rejection stopped a run",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="failed_update_<iteration>.pt of a run directory")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="rule.* settings to try on the same batch")
    parser.set_defaults(function=commands.replay)


def _add_benchmark(parsers: _Parsers) -> None:
    parser = parsers.add_parser(
        "benchmark", help="measure speed against the simulator alone and other libraries", allow_abbrev=False
    )
    _add_benchmark_options(parser)
    parser.set_defaults(function=commands.benchmark)


def _add_list(parsers: _Parsers) -> None:
    parser = parsers.add_parser("list", help="all experiments", allow_abbrev=False)
    parser.set_defaults(function=commands.list_experiments)


def _add_experiment_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="narrow axes, env.id, seed or name; set others"
    )
    parser.add_argument("--scale", default="full", metavar="SCALE", help="such as quick; default: full")
    parser.add_argument("--root", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")


def _add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    names = (
        "ceiling, peers, parity, returns, time_to_return, experiments, ranks, update, growth, reuse, memory, pixels, "
        "startup, profile, gpu"
    )
    parser.add_argument(
        "--sections", metavar="LIST", help=f"comma-separated, from {names}; default: all but returns and time_to_return"
    )
    parser.add_argument("--returns", action="store_true", help="also train to compare returns (half an hour)")
    parser.add_argument("--env", metavar="LIST", help="default: Hopper-v5,HalfCheetah-v5,Humanoid-v5 (peers: two)")
    parser.add_argument("--threads", metavar="LIST", help="default: 1,2 if there are enough cores")
    numbers = {
        "num-envs": (32, "environments in ceiling and the sections that build on it"),
        "steps": (100_000, "env steps of each measurement after its warm-up"),
        "repeats": (3, "repetitions of each measurement, interleaved with the others of its section"),
        "max-batch": (2**20, "steps of the largest batch in growth and gpu"),
        "return-steps": (300_000, "env steps of a run in returns, and at most in time_to_return"),
        "return-seeds": (5, "runs of each library in returns and time_to_return"),
    }
    for name, (default, meaning) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{meaning}; default: {default}")
    folder = Path("experiments/results/benchmark")
    parser.add_argument("--out", type=Path, default=folder, metavar="DIR", help=f"default: {folder}")
    venv = Path(".venv-benchmark")
    parser.add_argument("--peers-venv", type=Path, default=venv, metavar="DIR", help=f"default: {venv}")
