"""From files and command lines to runs, figures and tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trpo_lightning.experiment.launchers.options import LauncherOptions
    from trpo_lightning.experiment.runner import CellResult


def run_experiment(
    name: str,
    scale: str = "full",
    arguments: Sequence[str] = (),
    *,
    root: str | Path = "runs",
    jobs: int | None = None,
    force: bool = False,
    options: "LauncherOptions | None" = None,
) -> "list[CellResult]":
    """Do the missing runs of an experiment and write its report, as `python -m trpo_lightning experiment` does.

    Example: `run_experiment("ablation_delta", "quick", ["seed=0"])`.

    Args:
        name: The experiment, without folder and suffix.
        scale: One of the scales in its file, or `full`.
        arguments: `key=value` texts that narrow the runs (seed, environment, variant, axis) or override settings.
        root: Folder of all runs; those of this experiment go to `<root>/<name>/<scale>`.
        jobs: Runs at a time; by default one for each core that a run leaves free, on a cluster as many as it takes.
        force: Move earlier runs away and do all of them again.
        options: Where the runs are done: `LauncherOptions("ray", address="head:6379")`; by default on this machine.

    Returns:
        The state of each run. A failed run does not stop the others.

    Raises:
        UserError: The experiment or an argument is invalid, a run directory holds other settings, or the cluster cannot
            be used.
    """
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.runner import run_cells
    from trpo_lightning.report.write import write_report

    experiment = load_experiment(name, scale)
    results = run_cells(experiment.cells(list(arguments)), Path(root), jobs=jobs, force=force, options=options)
    write_report(experiment, results, Path(root), arguments=arguments)
    return results
