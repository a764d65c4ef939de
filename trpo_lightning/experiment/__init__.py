"""From files and command lines to runs, figures and tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trpo_lightning.experiment.runner import CellResult


def run_experiment(
    name: str,
    scale: str = "full",
    arguments: Sequence[str] = (),
    *,
    root: str | Path = "runs",
    jobs: int | None = None,
    force: bool = False,
) -> "list[CellResult]":
    """What `python -m trpo_lightning experiment` does, from Python: the missing runs, then the report.

    `run_experiment("ablation_delta", "quick", ["seed=0"])`. Returns how each run stands. Raises `UserError`.
    """
    from trpo_lightning.experiment.declaration import load_experiment
    from trpo_lightning.experiment.runner import run_cells
    from trpo_lightning.report.write import write_report

    experiment = load_experiment(name, scale)
    results = run_cells(experiment.cells(list(arguments)), Path(root), jobs=jobs, force=force)
    write_report(experiment, results, Path(root))
    return results
