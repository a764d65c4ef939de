"""One figure: how close training comes to its ceiling, and how many times faster it is than other libraries."""

from pathlib import Path
from typing import Any

from trpo_lightning.benchmark.results import Result
from trpo_lightning.report.figures.canvas import DPI, SETTINGS
from trpo_lightning.report.style import OKABE_ITO

PANELS = (
    ("ceiling", "x", "Training / environment alone", "share of the simulator's own speed"),
    ("peers", "x", "Ours / other library, same settings", "times its steps per second"),
)
"""Section, unit, title and axis label of each panel."""


def draw(sections: dict[str, list[Result]], path: Path) -> bool:
    """Draw bars of medians with whiskers over the range of repeats; returns whether there was anything to draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [(panel, _bars(sections.get(panel[0], []), panel[1])) for panel in PANELS]
    shown = [(panel, bars) for panel, bars in shown if bars]
    if not shown:
        return False
    with plt.rc_context(SETTINGS):
        height = 1.1 + 0.42 * max(len(bars) for _, bars in shown)
        figure, axes = plt.subplots(1, len(shown), figsize=(5.6 * len(shown), height), squeeze=False)
        for axis, ((_, _, title, label), bars) in zip(axes.flat, shown, strict=True):
            _panel(axis, bars)
            axis.set_title(title, loc="left")
            axis.set_xlabel(label)
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)
    return True


def _bars(results: list[Result], unit: str) -> list[Result]:
    return [result for result in results if result.unit == unit and result.values]


def _panel(axis: Any, bars: list[Result]) -> None:
    several = len({bar.quantity for bar in bars}) > 1
    for place, bar in enumerate(reversed(bars)):
        color = OKABE_ITO[0] if bar.verdict != "missed" else OKABE_ITO[1]
        whiskers = [[bar.median - bar.low], [bar.high - bar.median]]
        axis.barh(place, bar.median, xerr=whiskers, color=color, height=0.62, error_kw={"linewidth": 1, "capsize": 2})
        inside = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": "white"}
        axis.annotate(f"{bar.median:.2f}", (0, place), (4, 0), **inside)
        if bar.target is not None:
            axis.plot([bar.target.limit] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.4)
    names = [f"{bar.subject}\n{bar.quantity}" if several else bar.subject for bar in reversed(bars)]
    axis.set_yticks(range(len(bars)), names, fontsize=8)
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, 1.15 * max(max(bar.high, bar.target.limit if bar.target else 0.0) for bar in bars))
    axis.plot([], [], color="black", linewidth=1.4, label="target")
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
