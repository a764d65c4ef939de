"""Figures for paper: learning curves, and scores against a parameter; PNG and PDF."""

import io
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.records import score_definition
from trpo_lightning.report.references import Reference, for_environment, letters
from trpo_lightning.report.style import (
    Sensitivity,
    Style,
    axis_scale,
    curves_caption,
    legend_label,
    numeric_axis,
    references_caption,
    steps_text,
    value_label,
    x_label,
)
from trpo_lightning.report.summary import Curve
from trpo_lightning.storage.files import write_atomically

COLUMNS = 3
PANEL = (4.3, 3.1)
"""Inches of a panel."""
DPI = 160
DASH = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.4)), "dashdot": (0, (5, 2, 1, 2)), "longdash": (0, (10, 3))}
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,  # text stays text
}


def draw_curves(
    experiment: Experiment, drawn: list[Curve], styles: dict[str, Style], references: list[Reference], path: Path
) -> bool:
    """One figure of all panels. Returns whether there was anything to draw; if not, nothing is written."""
    panels: dict[str, list[Curve]] = defaultdict(list)
    for curve in drawn:
        if curve.is_drawn:
            panels[curve.panel].append(curve)
    if not panels:
        return False
    env_ids = list(dict.fromkeys(curve.env_id for group in panels.values() for curve in group))
    shown = [r for r in references if any(r in for_environment(references, env_id) for env_id in env_ids)]
    caption = [curves_caption(experiment, drawn), *references_caption(shown, env_ids)]
    with Page(experiment.title, caption, len(panels), path) as page:
        for axis, (title, group) in zip(page.axes, panels.items(), strict=True):
            for curve in group:
                _draw_curve(axis, curve, styles[curve.variant])
            axis.set(title=title)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.xaxis.set_major_formatter(lambda steps, _: steps_text(steps) if steps >= 0 else "")
            _draw_references(axis, for_environment(shown, group[0].env_id), letters(shown))
        page.label(x_label(experiment), value_label(experiment.metric))
        entries = {styles[c.variant].label: styles[c.variant] for group in panels.values() for c in group}
        page.legend([_handle(style, legend_label(style, _of(drawn, styles, style))) for style in entries.values()])
    return True


def draw_sensitivity(experiment: Experiment, groups: list[Sensitivity], path: Path) -> bool:
    """Scores against the level of the only numeric axis, one panel for each environment; whether it was drawn."""
    key = numeric_axis(experiment)
    if key is None or not groups:
        return False
    definition = score_definition(experiment.score, experiment.metric)
    caption = f"Score: {definition}. Lines: interquartile mean over finished seeds with 95 % bootstrap interval. "
    caption += "Dots: single runs. Ring: the default."
    env_ids = list(dict.fromkeys(group.env_id for group in groups))
    scale = axis_scale([level for group in groups for level in group.levels])
    with Page(experiment.title, [caption], len(env_ids), path) as page:
        for axis, env_id in zip(page.axes, env_ids, strict=True):
            for group in groups:
                if group.env_id == env_id:
                    _draw_sensitivity(axis, group)
            axis.set_title(env_id)
            _set_levels(axis, scale, sorted({level for group in groups for level in group.levels}))
        page.label(key, f"score ({experiment.score})")
        lines = {group.label: group.style for group in groups}
        page.legend([_handle(style, label) for label, style in lines.items()] if len(lines) > 1 else [])
    return True


class Page:
    """A figure of panels with a title above, one legend and a caption below; saved at the end."""

    def __init__(self, title: str, caption: list[str], panels: int, path: Path) -> None:
        self.title, self.path, self.panels = title, path, panels
        self.columns = min(panels, COLUMNS)
        self.rows = -(-panels // self.columns)
        self.width = max(PANEL[0] * self.columns, 5.6)
        wide = int(self.width * 17.5)
        self.caption = "\n".join(line for part in caption for line in textwrap.wrap(part, wide))
        self.handles: list[Any] = []

    def __enter__(self) -> "Page":
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        self._style = plt.rc_context(SETTINGS)
        self._style.__enter__()
        self.figure = plt.figure(figsize=(self.width, PANEL[1] * self.rows), layout="constrained")
        grid = self.figure.subplots(self.rows, self.columns, squeeze=False)
        flat = list(grid.flat)
        for axis in flat[self.panels :]:
            axis.set_visible(False)
        self.axes = flat[: self.panels]
        return self

    def label(self, x: str, y: str) -> None:
        """Name the axes, on the outer panels."""
        for index, axis in enumerate(self.axes):
            if index + self.columns >= self.panels:
                axis.set_xlabel(x)
            if index % self.columns == 0:
                axis.set_ylabel(y)

    def legend(self, handles: list[Any]) -> None:
        """Show these below the panels."""
        self.handles = handles

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        from matplotlib import pyplot as plt

        try:
            if kind is None:
                self._finish()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                metadata = {".png": {}, ".pdf": {"CreationDate": None}}  # the same curves are the same bytes
                for suffix, facts in metadata.items():
                    file = io.BytesIO()
                    self.figure.savefig(file, format=suffix[1:], dpi=DPI, metadata=facts)
                    write_atomically(self.path.with_suffix(suffix), file.getvalue())
        finally:
            plt.close(self.figure)
            self._style.__exit__(kind, error, trace)

    def _finish(self) -> None:
        """Make room below the panels for legend and caption."""
        columns = max(1, min(len(self.handles), int(self.width * 13 / max(map(_length, self.handles), default=1))))
        legend = -(-len(self.handles) // columns) * 0.17 + (0.12 if self.handles else 0)
        text = 0.125 * (self.caption.count("\n") + 1) + 0.08
        height = PANEL[1] * self.rows + 0.35 + legend + text
        self.figure.set_size_inches(self.width, height)
        self.figure.suptitle("\n".join(textwrap.wrap(self.title, int(self.width * 11))), fontsize=11, fontweight="bold")
        layout: Any = self.figure.get_layout_engine()
        layout.set(rect=(0, (text + legend) / height, 1, 1 - (text + legend) / height), wspace=0.04, hspace=0.04)
        if self.handles:
            corner = (0.5, (text + legend) / height)
            self.figure.legend(handles=self.handles, loc="upper center", bbox_to_anchor=corner, ncols=columns)
        self.figure.text(0.012, (text - 0.02) / height, self.caption, fontsize=6.8, color="#555555", va="top")


def _draw_curve(axis: Any, curve: Curve, style: Style) -> None:
    dash = DASH[style.dash]
    for line in curve.lines:
        finished = line.state == "finished"
        marker = "o" if len(line.x) == 1 else None
        form: Any = dash if finished else DASH["dot"]
        axis.plot(
            line.x, line.y, color=style.color, lw=0.9, alpha=0.9 if finished else 0.6, ls=form, marker=marker, ms=3
        )
    if len(curve.x):
        axis.fill_between(curve.x, curve.low, curve.high, color=style.color, alpha=0.18, lw=0)
        axis.plot(curve.x, curve.middle, color=style.color, lw=style.width * 0.75, ls=dash)


def _draw_references(axis: Any, references: list[Reference], marks: dict[str, str]) -> None:
    """Dashed lines with a letter at the right end; a diamond where the published budget ends."""
    if not references:
        return
    limits = axis.get_xlim()
    for reference in references:
        axis.axhline(reference.score, color="#777777", lw=0.9, ls=(0, (6, 3)), zorder=1)
        if limits[0] <= reference.env_steps <= limits[1]:
            axis.plot([reference.env_steps], [reference.score], marker="D", ms=3.5, color="#777777", zorder=1)
    axis.set_xlim(limits)
    low, high = axis.get_ylim()
    scores = np.array([reference.score for reference in references])
    for reference, place in zip(references, _apart(scores, (high - low) * 0.062), strict=True):
        axis.annotate(
            marks[reference.key],
            xy=(1, reference.score),
            xytext=(1.035, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color="#555555",
            arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "lw": 0.5, "shrinkA": 0, "shrinkB": 0},
        )


def _apart(values: np.ndarray, gap: float) -> np.ndarray:
    """The values, moved apart until neighbours are `gap` from each other, in the same order."""
    order = np.argsort(values, kind="stable")
    places = values[order].astype(np.float64)
    for _ in range(200):
        short = gap - np.diff(places)
        if np.all(short <= gap * 1e-3):
            break
        push = np.where(short > 0, short / 2, 0)
        places[:-1] -= push
        places[1:] += push
    found = np.empty_like(places)
    found[order] = places
    return found


def _draw_sensitivity(axis: Any, group: Sensitivity) -> None:
    style, levels = group.style, np.array(group.levels, dtype=np.float64)
    values = np.array([s.score.value for s in group.summaries])
    ends = np.array([[s.score.low, s.score.high] for s in group.summaries]).T  # [2, levels]
    known = np.isfinite(ends).all(axis=0)
    axis.plot(levels, values, color=style.color, lw=1.5, ls=DASH[style.dash], marker="o", ms=4)
    spread = np.abs(ends[:, known] - values[known])
    axis.errorbar(levels[known], values[known], yerr=spread, color=style.color, lw=0, elinewidth=1.3, capsize=3)
    for level, summary in zip(levels, group.summaries, strict=True):
        axis.plot(
            [level] * len(summary.scores), summary.scores, color=style.color, lw=0, marker="o", ms=2.5, alpha=0.35
        )
        if summary.is_default:
            axis.plot([level], [summary.score.value], marker="o", ms=11, mfc="none", mec="black", mew=1.1)


def _set_levels(axis: Any, scale: str, levels: Sequence[float]) -> None:
    """The axis of the levels, with a tick at each if they are few."""
    if scale == "even":
        known = [2 * levels[0] - levels[1], *levels, 2 * levels[-1] - levels[-2]]  # one more on each side, as a margin
        places = np.arange(float(len(known)))
        axis.set_xscale(
            "function", functions=(partial(np.interp, xp=known, fp=places), partial(np.interp, xp=places, fp=known))
        )
        axis.set_xlim(np.interp([0.7, len(known) - 1.7], places, known))
    else:
        axis.set_xscale(scale)
    if len(levels) <= 8:
        axis.set_xticks(levels, [f"{level:g}" for level in levels])
        axis.minorticks_off()


def _handle(style: Style, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.color, ls=DASH[style.dash], lw=style.width, label=label)


def _length(handle: Any) -> int:
    return len(handle.get_label()) + 6


def _of(drawn: list[Curve], styles: dict[str, Style], style: Style) -> list[Curve]:
    return [curve for curve in drawn if styles[curve.variant].label == style.label and curve.is_drawn]
