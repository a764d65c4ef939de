"""The learning curve of a single run, for a page about its policy."""

from pathlib import Path

from trpo_lightning.report.figures.canvas import DPI, SETTINGS
from trpo_lightning.report.records import Columns, pairs

CURVES = {
    "episode/return_mean": ("training episodes", "#1f77b4"),
    "evaluation/return_mean": ("evaluations, deterministic policy", "#d62728"),
}


def draw_run(columns: Columns, title: str, path: Path) -> bool:
    """Returns of training and of evaluations over env steps, as a PNG; whether there was anything to draw."""
    drawn = {name: pairs(columns, name) for name in CURVES}
    drawn = {name: (steps, values) for name, (steps, values) in drawn.items() if len(steps)}
    if not drawn:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context(SETTINGS):
        figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        for name, (steps, values) in drawn.items():
            label, color = CURVES[name]
            axis.plot(steps, values, label=label, color=color, linewidth=1.2, marker="." if len(steps) < 40 else "")
        axis.set(title=title, xlabel="env steps", ylabel="return")
        axis.legend()
        figure.savefig(path, dpi=DPI)
        plt.close(figure)
    return True
