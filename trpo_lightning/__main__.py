"""Command line: `python -m trpo_lightning train | experiment | evaluate | list`. Heavy imports wait until they are needed."""

import argparse
import os
import sys
from pathlib import Path

from trpo_lightning.errors import UserError

EXIT_USER_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 is success, 2 a user's error told in one line, 128 + n a stop by signal n."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    unknown = [item for item in rest if item.startswith("-")]
    try:
        if unknown:
            raise UserError(f"unknown option {unknown[0]}: see python -m trpo_lightning {options.command or ''} --help")
        return options.function(options) if options.command else parser.print_help() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m trpo_lightning", description="Trust-region policy optimization.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    train = commands.add_parser(
        "train", help="one run", description="One run. All keys:", formatter_class=_SettingsHelp, allow_abbrev=False
    )
    train.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as env.id=Hopper-v5")
    train.add_argument("--config", type=Path, metavar="FILE", help="settings of a file, such as a run's config.yaml")
    train.add_argument("--resume", type=Path, metavar="RUN_DIR", help="continue a run from its last barrier")
    train.add_argument("--run-dir", type=Path, metavar="DIR", help="default: runs/train/<env>/<name>/seed_<n>")
    train.add_argument("--quiet", action="store_true", help="no line per update and no progress bar")
    train.set_defaults(function=_train)

    experiment = commands.add_parser(
        "experiment", help="all runs of an experiment that are missing", allow_abbrev=False
    )
    experiment.add_argument("name", metavar="NAME")
    experiment.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all runs")
    experiment.add_argument("--root", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    experiment.set_defaults(function=_experiment)

    evaluate = commands.add_parser("evaluate", help="episodes of a trained policy", allow_abbrev=False)
    evaluate.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    evaluate.add_argument("--episodes", type=int, default=20, metavar="N", help="default: 20")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="of environments and actions; default: 0")
    evaluate.add_argument("--policy", choices=("last", "best"), default="last", help="which export; default: last")
    evaluate.add_argument("--video", action="store_true", help="write an mp4 of one episode, and log it to W&B")
    evaluate.set_defaults(function=_evaluate)

    listing = commands.add_parser("list", help="all experiments", allow_abbrev=False)
    listing.set_defaults(function=_list)
    return parser


class _SettingsHelp(argparse.HelpFormatter):
    """Adds every key with its default, meaning and source."""

    def format_help(self) -> str:
        from trpo_lightning.settings import RunSettings, get, keys

        defaults, lines = RunSettings(), []
        for key, item in keys().items():
            source = item.metadata["source"]
            choices = item.metadata["choices"]
            meaning = item.metadata["meaning"] + (f" ({' | '.join(choices)})" if choices else "")
            value = get(defaults, key)
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            lines.append(f"  {f'{key}={shown}':<42} {meaning}{f' [{source}]' if source else ''}")
        return super().format_help() + "\nkeys:\n" + "\n".join(lines) + "\n"


def _train(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment.config import load_settings
    from trpo_lightning.experiment.declaration import directory_of
    from trpo_lightning.threads import available_cores, thread_environment

    if options.resume:
        if options.config or options.run_dir:
            raise UserError("--resume takes settings from the run directory: leave out --config and --run-dir")
        settings, run_dir = _resumed_settings(options), options.resume
    else:
        settings = load_settings(options.overrides, options.config)
        run_dir = options.run_dir or Path("runs") / "train" / directory_of(settings)
    os.environ.update(thread_environment(settings.threads or available_cores()))

    from trpo_lightning.experiment.config import write_config
    from trpo_lightning.training.run import train_run

    resume = options.resume is not None
    outcome = train_run(settings, run_dir, write_config=write_config, resume=resume, quiet=options.quiet)
    if outcome.state == "interrupted":
        print(f"stopped at iteration {outcome.iteration}; continue with: train --resume {run_dir}")
        return 128 + outcome.signal_number
    if not options.quiet:
        print(f"finished: {outcome.env_steps:,} env steps in {outcome.iteration} iterations, all in {run_dir}")
    return 0


def _resumed_settings(options: argparse.Namespace):  # noqa: ANN202
    from trpo_lightning.experiment.config import changed_keys, load_settings, recorded_settings

    before = recorded_settings(options.resume)
    after = load_settings(options.overrides, options.resume / "config.yaml")
    changed = changed_keys(before, after)
    if changed:
        raise UserError(
            f"a continued run keeps its settings: {', '.join(changed)} cannot change "
            "(total_env_steps and tracking.* can); start a new one with another name="
        )
    return after


def _experiment(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment.declaration import SCALE, load_experiment
    from trpo_lightning.experiment.runner import run_experiment

    experiment = load_experiment(options.name)
    results = run_experiment(experiment, options.root, options.overrides)

    from trpo_lightning.experiment.report import report

    report(results, experiment.title, options.root / experiment.name / SCALE / "report")
    states = [result.state for result in results]
    if "interrupted" in states:
        return 130
    return 1 if "failed" in states else 0


def _evaluate(options: argparse.Namespace) -> int:
    from trpo_lightning.threads import available_cores, thread_environment

    os.environ.update(thread_environment(available_cores()))
    from trpo_lightning.experiment.evaluate import evaluate_run

    if options.episodes < 1:
        raise UserError(f"--episodes {options.episodes} is too small: it must be at least 1")
    evaluate_run(options.run_dir, options.policy, options.episodes, options.seed, options.video)
    return 0


def _list(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment.declaration import list_experiments

    for experiment in list_experiments():
        steps = sum(cell.settings.total_env_steps for cell in experiment.cells())
        print(
            f"{experiment.name:<24} {len(experiment.cells()):>3} runs {steps:>12,} env steps "
            f"{experiment.minutes:>6g} min   {experiment.title}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
