"""What has run so far, as a figure and a table."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trpo_lightning.experiment.runner import CellResult
from trpo_lightning.training.metrics_file import read_rows

EPISODES_IN_SCORE = 100
"""The score of a run: mean return of its last so many training episodes (stochastic policy, raw rewards)."""


@dataclass(frozen=True)
class Curve:
    """Mean return of the episodes that ended in each iteration, against env steps; and the run's score."""

    env_id: str
    variant: str
    seed: int
    run_dir: Path
    state: str
    env_steps: np.ndarray
    returns: np.ndarray
    score: float
    evaluation: float
    steps_per_second: float


def read_curve(result: CellResult) -> Curve:
    """The curve of a run from its `metrics.csv`; iterations in which no episode ended are left out."""
    rows = read_rows(result.run_dir / "metrics.csv")
    with_return = [row for row in rows if row["episode/return_mean"]]
    evaluations = [float(row["evaluation/return_mean"]) for row in rows if row["evaluation/return_mean"]]
    rates = [float(row["time/steps_per_second"]) for row in rows]
    settings = result.cell.settings
    return Curve(
        env_id=settings.env.id,
        variant=settings.name,
        seed=settings.seed,
        run_dir=result.run_dir,
        state=result.state,
        env_steps=np.array([int(row["env_steps"]) for row in with_return]),
        returns=np.array([float(row["episode/return_mean"]) for row in with_return]),
        score=final_score(rows),
        evaluation=evaluations[-1] if evaluations else float("nan"),
        steps_per_second=float(np.median(rates)) if rates else float("nan"),
    )


def final_score(rows: list[dict[str, str]], episodes: int = EPISODES_IN_SCORE) -> float:
    """Mean return of the last episodes: whole iterations from the end until they hold so many, weighted by their counts."""
    total = count = 0.0
    for row in reversed(rows):
        if row["episode/return_mean"]:
            total += float(row["episode/return_mean"]) * float(row["episode/count"])
            count += float(row["episode/count"])
        if count >= episodes:
            break
    return total / count if count else float("nan")


def draw(curves: list[Curve], title: str, path: Path) -> None:
    """One panel for each environment; a thin line for each run, a thick one for the mean over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        if len(curve.env_steps):
            panels[curve.env_id].append(curve)
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.8), squeeze=False, layout="constrained")
    for axis, (env_id, group) in zip(axes[0], panels.items(), strict=True):
        _panel(axis, env_id, group)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    plt.close(figure)


def _panel(axis, env_id: str, curves: list[Curve]) -> None:  # noqa: ANN001
    variants: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        variants[curve.variant].append(curve)
    for index, (variant, group) in enumerate(variants.items()):
        color = f"C{index}"
        for curve in group:
            axis.plot(curve.env_steps, curve.returns, color=color, alpha=0.35, linewidth=0.9)
        grid = np.linspace(max(c.env_steps[0] for c in group), min(c.env_steps[-1] for c in group), 200)
        mean = np.mean([np.interp(grid, c.env_steps, c.returns) for c in group], axis=0)
        seeds = f"{len(group)} seed{'s' if len(group) > 1 else ''}"
        axis.plot(grid, mean, color=color, linewidth=2.0, label=f"{variant} ({seeds})")
    axis.set(title=env_id, xlabel="env steps", ylabel="mean return of the iteration's episodes")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)


def write_table(curves: list[Curve], path: Path) -> None:
    """A row for each run, as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["env", "variant", "seed", "state", "score", "evaluation", "env_steps", "steps_per_second"])
        for c in curves:
            steps = int(c.env_steps[-1]) if len(c.env_steps) else 0
            writer.writerow(
                [
                    c.env_id,
                    c.variant,
                    c.seed,
                    c.state,
                    round(c.score, 2),
                    round(c.evaluation, 2),
                    steps,
                    round(c.steps_per_second),
                ]
            )


def print_table(curves: list[Curve], figure: Path) -> None:
    """The short table that ends an experiment."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("environment", "variant", "seed"):
        table.add_column(column)
    for column in ("return*", "evaluation", "steps/s", "state"):
        table.add_column(column, justify="right")
    table.add_column("run directory", overflow="fold")
    for c in curves:
        numbers = (f"{c.score:.1f}", f"{c.evaluation:.1f}", f"{c.steps_per_second:,.0f}")
        table.add_row(c.env_id, c.variant, str(c.seed), *numbers, c.state, str(c.run_dir))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"[dim]* mean of the last {EPISODES_IN_SCORE} training episodes, stochastic policy[/dim]")
    console.print(f"figure: {figure}\ntable:  {figure.parent / 'runs.csv'}")


def report(results: list[CellResult], title: str, folder: Path) -> list[Curve]:
    """Figure, CSV and console table of an experiment's runs."""
    curves = [read_curve(result) for result in results]
    figure = folder / "learning_curves.png"
    draw(curves, title, figure)
    write_table(curves, folder / "runs.csv")
    print()
    print_table(curves, figure)
    return curves
