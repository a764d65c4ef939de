"""The function behind each command, which returns its exit code; heavy imports are deferred until they are needed."""

import argparse
import os
from pathlib import Path

from trpo_lightning.errors import UserError
from trpo_lightning.stopping import StopRequest


def _import_torch() -> None:
    try:
        import torch  # noqa: F401
    except Exception as error:  # a missing or incompatible library raises errors of many types
        raise UserError(f"PyTorch cannot be imported here: {type(error).__name__}: {error}") from error


def train(options: argparse.Namespace) -> int:
    """Train one run, from the beginning or from its last barrier."""
    with StopRequest() as stop:  # the imports take seconds
        return _train_until(options, stop)


def _train_until(options: argparse.Namespace, stop: StopRequest) -> int:
    from trpo_lightning.experiment.declaration import directory_of
    from trpo_lightning.runs.config import load_settings
    from trpo_lightning.threads import available_cores, thread_environment

    if options.resume:
        if options.config or options.run_dir:
            raise UserError("--resume takes settings from the run directory: leave out --config and --run-dir")
        settings, run_dir = _resumed_settings(options), options.resume
    else:
        settings = load_settings(options.overrides, options.config)
        run_dir = options.run_dir or Path("runs") / "train" / directory_of(settings)
    os.environ.update(thread_environment(settings.threads or available_cores()))
    _import_torch()
    from trpo_lightning.ranks import torchrun_place

    if settings.devices > 1 and (place := torchrun_place()) and place[0] > 0:
        from trpo_lightning.runs.ranks.follow import follow_torchrun

        return follow_torchrun(settings, place, stop)
    from trpo_lightning.runs.run import train_run

    resume = options.resume is not None
    outcome = train_run(settings, run_dir, resume=resume, quiet=options.quiet, stop=stop)
    if outcome.state == "interrupted":
        print(f"stopped at iteration {outcome.iteration}; continue with: train --resume {run_dir}")
        return 128 + outcome.signal_number
    if not options.quiet:
        print(f"finished: {outcome.env_steps:,} env steps in {outcome.iteration} iterations, all in {run_dir}")
    return 0


def _resumed_settings(options: argparse.Namespace):
    from trpo_lightning.runs.config import overridden, recorded_settings
    from trpo_lightning.settings import changed_bits, changed_keys, what_may_change

    before = recorded_settings(options.resume)
    after = overridden(before, str(options.resume / "config.yaml"), options.overrides)
    changed = changed_keys(before, after)
    if changed:
        raise UserError(
            f"a continued run keeps its settings: {', '.join(changed)} cannot change ({what_may_change()}); "
            "start a new one with another name="
        )
    for key in changed_bits(before, after):
        print(f"note: {key} changes: from here on the last bits may be others than without the change")
    return after


def benchmark(options: argparse.Namespace) -> int:
    """Measure speed, next to the simulator alone and to other libraries."""
    from trpo_lightning.benchmark.command import run

    return run(options)


def experiment(options: argparse.Namespace) -> int:
    """Start the missing runs of an experiment, or with `--dry-run` list all of its runs."""
    from trpo_lightning.experiment import run_experiment
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.launchers.options import FLAGS, read_options
    from trpo_lightning.experiment.states import outlook

    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs} is too small: it must be at least 1")
    launcher = read_options(options.launcher, {flag: getattr(options, flag) for flag in FLAGS})
    name, scale, arguments, root = options.name, options.scale, options.overrides, options.root
    if options.dry_run:
        for cell in load_experiment(name, scale).cells(arguments):
            run_dir, settings = root / cell.directory, cell.settings
            print(f"{outlook(settings, run_dir):<12} {settings.total_env_steps:>11,} env steps  {run_dir}")
        return 0
    results = run_experiment(
        name, scale, arguments, root=root, jobs=options.jobs, force=options.force, options=launcher
    )
    states = {result.state for result in results}
    return 1 if "failed" in states else 130 if states & {"interrupted", "missing"} else 0


def report(options: argparse.Namespace) -> int:
    """Write figures and tables of the runs so far."""
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.runner import results_so_far
    from trpo_lightning.report.write import write_report

    experiment = load_experiment(options.name, options.scale)
    results = results_so_far(experiment.cells(options.overrides), options.root)
    shown = options.external, options.panels, options.tracker
    write_report(experiment, results, options.root, *shown, arguments=options.overrides)
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Register an experiment as a W&B sweep."""
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


def sweep_run(options: argparse.Namespace) -> int:
    """Train one run of a sweep, as a W&B agent calls it."""
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.sweep import cell_of, run_of_sweep
    from trpo_lightning.threads import available_cores, thread_environment

    with StopRequest() as stop:
        experiment = load_experiment(options.name, options.scale)
        threads = cell_of(experiment, options.overrides).settings.threads or available_cores()
        os.environ.update(thread_environment(threads))
        _import_torch()
        return run_of_sweep(experiment, options.overrides, options.root, stop)


def evaluate(options: argparse.Namespace) -> int:
    """Run episodes with a trained policy."""
    from trpo_lightning.threads import available_cores, thread_environment

    if options.episodes < 1:
        raise UserError(f"--episodes {options.episodes} is too small: it must be at least 1")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} is too small: it must be at least 0")
    os.environ.update(thread_environment(available_cores()))
    _import_torch()
    from trpo_lightning.runs.evaluate import evaluate_run

    evaluate_run(options.run_dir, options.policy, options.episodes, options.seed, options.video)
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a trained policy as a folder that travels."""
    from trpo_lightning.threads import available_cores, thread_environment

    os.environ.update(thread_environment(available_cores()))
    _import_torch()
    from trpo_lightning.export.folder import export_policy

    for name, meaning in export_policy(options.run_dir, options.folder, options.policy, options.push).items():
        print(f"{options.folder / name}: {meaning}")
    return 0


def replay(options: argparse.Namespace) -> int:
    """Repeat the rejected update that stopped a run."""
    from trpo_lightning.threads import available_cores, thread_environment

    os.environ.update(thread_environment(available_cores()))
    _import_torch()
    from trpo_lightning.runs.config import find_named_methods, overridden
    from trpo_lightning.runs.replay import replay
    from trpo_lightning.training.failed_update import read_failed_update

    find_named_methods(options.file.parent)
    failed = read_failed_update(options.file)
    report, reproduced = replay(failed, overridden(failed.settings, str(options.file), options.overrides))
    print(report)
    return 0 if reproduced else 1


def list_experiments(options: argparse.Namespace) -> int:
    """List all experiments and how far each has got."""
    from trpo_lightning.experiment.listing import print_list

    return print_list(Path("runs"))
