"""The runs behind the page "Reading a run": their settings, how they are recorded, and their curves as SVG.

`python docs/guide/curves.py [NAME ...]` records them again, on one core each, in half a minute to a minute per run. The
page calls `figure` and `command` while the site is built.
"""

import csv
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS_DIR = Path(__file__).parent / "runs"
HOPPER = "env.id=Hopper-v5 total_env_steps=200_000"
PENDULUM = "env.id=broken_reward:make env.num_envs=4 rollout.steps_per_iteration=800 total_env_steps=40_000"
SOLVED = """env.id=InvertedPendulum-v5 total_env_steps=1_000_000 seed=1 env.num_envs=32
    rollout.steps_per_iteration=4096 rule.delta=0.02 policy.initial_log_std=0"""
SOLVED = " ".join(SOLVED.split())
"""Larger steps than the defaults'."""
RUNS = {
    "healthy": HOPPER,
    "huge_steps": f"{HOPPER} rule.delta=1 rule.kl_slack=null rule.improvement_ratio=null rule.max_step_size=null "
    "rule.kl_state_slack=null policy.least_log_std=null",
    "no_value_fit": f"{HOPPER} value.epochs=0",
    "unsolved": f"{HOPPER} rule.damping=0 rule.fisher_fraction=0.01",
    "kept": SOLVED,
    "lost": f"{SOLVED} rule.max_step_size=null rule.kl_state_slack=null",
    "broken_reward": f"{PENDULUM} env.kwargs.steps=2000 checkpoint.every=0",
}
"""Settings of each run; `broken_reward:make` is a file beside the records."""
ALL = "threads=1 evaluation.every=0 tracking.wandb=disabled"
COLUMNS = {
    "env_steps": "env steps",
    "episode/return_mean": "return",
    "advantages/std": "std of advantages",
    "trust_region/kl": "KL",
    "trust_region/kl_quadratic": "KL, quadratic model",
    "trust_region/surrogate_improvement": "surrogate rise",
    "trust_region/expected_improvement": "surrogate rise, first order",
    "cg/residual": "CG residual",
    "line_search/backtracks": "backtracks",
    "policy/entropy": "entropy in nats",
    "value/explained_variance": "explained variance",
    "update/rejected": "rejected updates",
}
"""Metrics that are kept from a record, with their names in figures."""
HEALTHY, SICK = "#3B8BC4", "#D55E00"
GREY = "#888888"
"""Colour of axes and texts, legible on white and on black."""


def command(name: str) -> str:
    """The command that recorded a run, as a reader would type it."""
    return f"python -m trpo_lightning train {RUNS[name]} {ALL} name={name}"


def read(name: str) -> dict[str, list[float]]:
    """The record's columns; NaN where a cell is empty."""
    with open(RUNS_DIR / f"{name}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {column: [float(row[column] or "nan") for row in rows] for column in COLUMNS}


def figure(
    names: list[str], metrics: list[str], log: tuple[str, ...] = (), marks: dict[str, float] | None = None
) -> str:
    """One panel for each metric over env steps, with a line for each run, as SVG for a page.

    Args:
        names: Names from `RUNS`; healthy runs have a colour of their own.
        metrics: Names from `COLUMNS`; `a|b` draws b dashed in a's panel.
        log: Those of `metrics` with a logarithmic axis.
        marks: By metric, a value that gets a dotted line.
    """
    runs = {name: read(name) for name in names}
    panels = [_panel(runs, metric, metric in log, marks or {}, legend=metric == metrics[0]) for metric in metrics]
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.4rem">{"".join(panels)}</div>'


def _panel(
    runs: dict[str, dict[str, list[float]]], metric: str, log: bool, marks: dict[str, float], legend: bool
) -> str:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(3.1, 2.5), layout="constrained")
    axes = drawing.subplots()
    solid, _, dashed = metric.partition("|")
    for name, run in runs.items():
        color = HEALTHY if name in ("healthy", "kept") else SICK
        steps = [value / 1000 for value in run["env_steps"]]
        axes.plot(steps, run[solid], color=color, linewidth=1.4, label=name.replace("_", " "))
        if dashed:
            axes.plot(steps, run[dashed], color=color, linewidth=1.1, linestyle="--")
    if solid in marks:
        axes.axhline(marks[solid], color=GREY, linewidth=1, linestyle=":")
    axes.set_title(COLUMNS[solid], fontsize=10, color=GREY)
    axes.set_xlabel("thousand env steps", fontsize=8, color=GREY)
    axes.set_yscale("log" if log else "linear")
    axes.tick_params(labelsize=8, colors=GREY, which="both")
    axes.patch.set_alpha(0)
    axes.spines[:].set_color(GREY)
    if legend and len(runs) > 1:
        axes.legend(fontsize=8, labelcolor=GREY, framealpha=0)
    return _svg(drawing, f"{COLUMNS[solid]} of {', '.join(runs)}".replace("_", " "))


def _svg(drawing, label: str) -> str:
    """The drawing as an `<svg>` element beside others, with the same bytes each time and text as text."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        drawing.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    style = "flex:1 1 12rem;max-width:24rem;height:auto"
    return found.replace("<svg ", f'<svg role="img" aria-label="{label}" style="{style}" ', 1)


def record(name: str) -> None:
    """Do a run again and keep the columns that figures need."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / name
        words = [sys.executable, *command(name).split()[1:], "--run-dir", str(run_dir), "--quiet"]
        found = os.pathsep.join([str(RUNS_DIR), os.environ.get("PYTHONPATH", "")])
        ended = subprocess.run(words, env={**os.environ, "PYTHONPATH": found})
        print(f"{name}: exit code {ended.returncode}")
        with open(run_dir / "metrics.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    with open(RUNS_DIR / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_short(row[column]) for column in COLUMNS] for row in rows)


def _short(cell: str) -> str:
    """Six digits are more than a figure shows."""
    return f"{float(cell):.6g}" if cell else ""


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RUNS:
        record(chosen)
