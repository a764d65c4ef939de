"""Command line: `python -m trpo_lightning COMMAND`. Heavy imports wait until they are needed."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from trpo_lightning.errors import DiskError, UserError
from trpo_lightning.output import OF_FILES, drop_what_does_not_fit
from trpo_lightning.stopping import StopRequest


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 is success, 1 a failed run, 128 + n a stop by signal n, others a `UserError`'s, in one line."""
    if arguments is None:
        drop_what_does_not_fit()
    parser = build_parser()
    try:
        options, rest = parser.parse_known_args(arguments)
        for item in rest:
            if item.startswith("-") or not hasattr(options, "overrides"):
                kind = "option" if item.startswith("-") else "argument"
                raise UserError(f"unknown {kind} {item}: see python -m trpo_lightning {options.command or ''} --help")
            options.overrides.append(item)  # argparse leaves what follows an option behind
        return options.function(options) if options.command else parser.print_help() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in OF_FILES:
            raise
        print(f"error: {error.filename or 'a file'}: cannot be read or written: {error.strerror}", file=sys.stderr)
        return DiskError.exit_code


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = _Parser(prog="python -m trpo_lightning", description="Trust-region policy optimization.")
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
    _add_experiment_options(experiment)
    experiment.add_argument("--jobs", type=int, metavar="N", help="runs at a time; default: one for each core")
    experiment.add_argument("--dry-run", action="store_true", help="print the runs and stop")
    experiment.add_argument("--force", action="store_true", help="move earlier runs away and do all anew")
    experiment.set_defaults(function=_experiment)

    report = commands.add_parser("report", help="figures and tables of what has run so far", allow_abbrev=False)
    _add_experiment_options(report)
    report.add_argument(
        "--with",
        dest="external",
        action="append",
        default=[],
        metavar="LABEL=SOURCE",
        help="join curves from elsewhere: FILES.csv:steps=COLUMN,return=COLUMN,env=ID, another --root, or wandb:PATH",
    )
    report.set_defaults(function=_report)

    sweep = commands.add_parser("sweep", help="register an experiment as a W&B sweep", allow_abbrev=False)
    _add_experiment_options(sweep)
    sweep.add_argument("--dry-run", action="store_true", help="print the sweep's configuration and stop")
    sweep.set_defaults(function=_sweep)

    sweep_run = commands.add_parser("sweep-run", help="one run of a sweep, as a W&B agent calls it", allow_abbrev=False)
    _add_experiment_options(sweep_run)
    sweep_run.set_defaults(function=_sweep_run)

    evaluate = commands.add_parser("evaluate", help="episodes of a trained policy", allow_abbrev=False)
    evaluate.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    evaluate.add_argument("--episodes", type=int, default=20, metavar="N", help="default: 20")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="of environments and actions; default: 0")
    evaluate.add_argument("--policy", choices=("last", "best"), default="last", help="which export; default: last")
    evaluate.add_argument("--video", action="store_true", help="write an mp4 of one episode, and log it to W&B")
    evaluate.set_defaults(function=_evaluate)

    replay = commands.add_parser(
        "replay", help="repeat the rejected update of a capsule, and say what is wrong with it", allow_abbrev=False
    )
    replay.add_argument("capsule", type=Path, metavar="CAPSULE", help="capsule_<iteration>.pt of a run directory")
    replay.add_argument("overrides", nargs="*", metavar="key=value", help="rule.* to try on the same batch")
    replay.set_defaults(function=_replay)

    benchmark = commands.add_parser(
        "benchmark", help="speed, next to the simulator alone and to other libraries", allow_abbrev=False
    )
    _add_benchmark_options(benchmark)
    benchmark.set_defaults(function=_benchmark)

    listing = commands.add_parser("list", help="all experiments", allow_abbrev=False)
    listing.set_defaults(function=_list)
    return parser


class _Parser(argparse.ArgumentParser):
    """Tells its errors in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see {self.prog} --help")


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
    with StopRequest() as stop:  # the imports take seconds
        return _train_until(options, stop)


def _train_until(options: argparse.Namespace, stop: StopRequest) -> int:
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
    outcome = train_run(settings, run_dir, write_config=write_config, resume=resume, quiet=options.quiet, stop=stop)
    if outcome.state == "interrupted":
        print(f"stopped at iteration {outcome.iteration}; continue with: train --resume {run_dir}")
        return 128 + outcome.signal_number
    if not options.quiet:
        print(f"finished: {outcome.env_steps:,} env steps in {outcome.iteration} iterations, all in {run_dir}")
    return 0


def _resumed_settings(options: argparse.Namespace):
    from trpo_lightning.experiment.config import load_settings, recorded_settings
    from trpo_lightning.settings import changed_keys

    before = recorded_settings(options.resume)
    after = load_settings(options.overrides, options.resume / "config.yaml")
    changed = changed_keys(before, after)
    if changed:
        raise UserError(
            f"a continued run keeps its settings: {', '.join(changed)} cannot change "
            "(tracking.* and rule.max_rejections can, and the budget unless rule.final_delta is set); "
            "start a new one with another name="
        )
    return after


def _add_experiment_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="narrow axes, env.id, seed or name; set others"
    )
    parser.add_argument("--scale", default="full", metavar="SCALE", help="such as quick; default: full")
    parser.add_argument("--root", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")


def _add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    names = "ceiling, peers, returns, experiments, update, growth, startup, profile, gpu"
    parser.add_argument("--sections", metavar="LIST", help=f"of {names}; default: all but returns")
    parser.add_argument("--returns", action="store_true", help="also train to compare returns (hours)")
    parser.add_argument("--env", metavar="LIST", help="default: Hopper-v5,HalfCheetah-v5,Humanoid-v5 (peers: two)")
    parser.add_argument("--threads", metavar="LIST", help="default: 1,2 as far as there are cores")
    numbers = {
        "num-envs": (32, "environments of ceiling and what builds on it"),
        "steps": (100_000, "env steps of each measurement after its warm-up"),
        "repeats": (3, "of each measurement, in turns with the others of its section"),
        "max-batch": (2**20, "steps of the largest batch in growth and gpu"),
        "return-steps": (300_000, "env steps of a run in returns"),
        "return-seeds": (5, "runs of each library in returns"),
    }
    for name, (default, meaning) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{meaning}; default: {default}")
    folder = Path("experiments/results/benchmark")
    parser.add_argument("--out", type=Path, default=folder, metavar="DIR", help=f"default: {folder}")
    venv = Path(".venv-benchmark")
    parser.add_argument("--peers-venv", type=Path, default=venv, metavar="DIR", help=f"default: {venv}")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md, between its markers")


def _benchmark(options: argparse.Namespace) -> int:
    from trpo_lightning.benchmark.command import run

    return run(options)


def _experiment(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment import run_experiment
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.runner import results_so_far

    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs} is too small: it must be at least 1")
    name, scale, arguments, root = options.name, options.scale, options.overrides, options.root
    if options.dry_run:
        for result in results_so_far(load_experiment(name, scale).cells(arguments), root):
            print(f"{result.state:<12} {result.cell.settings.total_env_steps:>11,} env steps  {result.run_dir}")
        return 0
    results = run_experiment(name, scale, arguments, root=root, jobs=options.jobs, force=options.force)
    states = {result.state for result in results}
    return 1 if "failed" in states else 130 if states & {"interrupted", "missing"} else 0


def _report(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.report import write_report
    from trpo_lightning.experiment.runner import results_so_far

    experiment = load_experiment(options.name, options.scale)
    results = results_so_far(experiment.cells(options.overrides), options.root)
    write_report(experiment, results, options.root, options.external)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.sweep import register, sweep_config

    experiment = load_experiment(options.name, options.scale)
    if options.dry_run:
        import yaml

        print(yaml.safe_dump(sweep_config(experiment, options.overrides, options.root), sort_keys=False), end="")
        return 0
    settings = experiment.cells(options.overrides)[0].settings.tracking
    command = register(experiment, options.overrides, options.root, settings.project, settings.entity)
    print(f"start this on each machine, in a clone of the project with its environment activated:\n{command}")
    return 0


def _sweep_run(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.sweep import cell_of, run_of_sweep
    from trpo_lightning.threads import available_cores, thread_environment

    with StopRequest() as stop:
        experiment = load_experiment(options.name, options.scale)
        threads = cell_of(experiment, options.overrides).settings.threads or available_cores()
        os.environ.update(thread_environment(threads))
        return run_of_sweep(experiment, options.overrides, options.root, stop)


def _evaluate(options: argparse.Namespace) -> int:
    from trpo_lightning.threads import available_cores, thread_environment

    os.environ.update(thread_environment(available_cores()))
    from trpo_lightning.experiment.evaluate import evaluate_run

    if options.episodes < 1:
        raise UserError(f"--episodes {options.episodes} is too small: it must be at least 1")
    evaluate_run(options.run_dir, options.policy, options.episodes, options.seed, options.video)
    return 0


def _replay(options: argparse.Namespace) -> int:
    from trpo_lightning.threads import available_cores, thread_environment

    os.environ.update(thread_environment(available_cores()))
    from trpo_lightning.experiment.config import overridden
    from trpo_lightning.training.capsule import read_capsule
    from trpo_lightning.training.replay import replay

    capsule = read_capsule(options.capsule)
    report, reproduced = replay(capsule, overridden(capsule.settings, str(options.capsule), options.overrides))
    print(report)
    return 0 if reproduced else 1


def _list(options: argparse.Namespace) -> int:
    from trpo_lightning.experiment.declaration import experiment_names, load_experiment
    from trpo_lightning.experiment.runner import results_so_far

    print(f"{'experiment':<26} {'scale':<6} {'runs':>4} {'done':>4} {'env steps':>13} {'min':>5}  title")
    for name in experiment_names():
        for scale in ("full", *load_experiment(name).scales):
            experiment = load_experiment(name, scale)
            cells = experiment.cells()
            done = sum(result.state == "finished" for result in results_so_far(cells, Path("runs")))
            steps = sum(cell.settings.total_env_steps for cell in cells)
            numbers = f"{len(cells):>4} {done:>4} {steps:>13,} {experiment.minutes:>5g}"
            print(f"{name:<26} {scale:<6} {numbers}  {experiment.title}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
