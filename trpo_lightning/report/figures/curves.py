"""Learning curves for print."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.figures.canvas import DASH, Page, handle
from trpo_lightning.report.references import Reference, for_environment, letters
from trpo_lightning.report.style import (
    MOST_IN_A_PANEL,
    MULTIPLES_CAPTION,
    Style,
    curves_caption,
    legend_label,
    references_caption,
    seeds_text,
    steps_text,
    value_label,
    x_label,
)
from trpo_lightning.report.summary import Curve

BEHIND = "#bdbdbd"
"""Colour of the other variants' middles in a small multiple."""


@dataclass(frozen=True)
class _Panel:
    """Curves in colour, and the grey ones behind them for comparison."""

    title: str
    group: str
    """Panels of a group share their y axis, so that they can be compared in print."""
    curves: list[Curve]
    behind: list[Curve] = field(default_factory=list)


def draw_curves(
    experiment: Experiment, drawn: list[Curve], styles: dict[str, Style], references: list[Reference], path: Path
) -> bool:
    """Draw all panels in one figure, as small multiples if a panel would hold too many variants.

    Returns whether there was anything to draw; if not, nothing is written.
    """
    groups: dict[str, list[Curve]] = defaultdict(list)
    for curve in drawn:
        if curve.is_drawn:
            groups[curve.panel].append(curve)
    if not groups:
        return False
    small = max(map(len, groups.values())) > MOST_IN_A_PANEL
    panels = _multiples(groups, styles) if small else [_Panel(name, name, group) for name, group in groups.items()]
    env_ids = list(dict.fromkeys(curve.env_id for group in groups.values() for curve in group))
    shown = [r for r in references if any(r in for_environment(references, env_id) for env_id in env_ids)]
    caption = [curves_caption(experiment, drawn), *references_caption(shown, env_ids)]
    caption[0] += f" {MULTIPLES_CAPTION}" if small else ""
    with Page(experiment.title, caption, len(panels), path, small=small) as page:
        for axis, panel in zip(page.axes, panels, strict=True):
            _draw_panel(axis, panel, styles)
            _draw_references(axis, _published(shown, panel))
        _share_y(page.axes, panels)
        for axis, panel in zip(page.axes, panels, strict=True):
            _draw_letters(axis, _published(shown, panel), letters(shown))
        page.label(x_label(experiment), "" if small else value_label(experiment.metric))
        if small:
            page.figure.supylabel(value_label(experiment.metric), fontsize=9)
        else:
            entries = {styles[c.variant].label: styles[c.variant] for panel in panels for c in panel.curves}
            page.legend([handle(style, legend_label(style, _of(drawn, styles, style))) for style in entries.values()])
    return True


def _multiples(groups: dict[str, list[Curve]], styles: dict[str, Style]) -> list[_Panel]:
    """A panel for each curve, with the others of its group behind it."""
    several = len(groups) > 1
    return [
        _Panel(
            title=f"{name}\n{title}" if several else title,
            group=name,
            curves=[curve],
            behind=[other for other in group if other is not curve],
        )
        for name, group in groups.items()
        for curve in group
        for title in [f"{styles[curve.variant].label}, {seeds_text(curve)}"]
    ]


def _draw_panel(axis: Any, panel: _Panel, styles: dict[str, Style]) -> None:
    for curve in panel.behind:
        if len(curve.x):
            axis.plot(curve.x, curve.middle, color=BEHIND, lw=0.7, zorder=1)
        for line in curve.lines if not len(curve.x) else []:
            axis.plot(line.x, line.y, color=BEHIND, lw=0.5, zorder=1)
    for curve in panel.curves:
        _draw_curve(axis, curve, styles[curve.variant])
    axis.set_title(panel.title, **({"fontsize": 8} if panel.behind else {}))
    axis.xaxis.get_major_locator().set_params(integer=True, **({"nbins": 4} if panel.behind else {}))
    axis.xaxis.set_major_formatter(lambda steps, _: steps_text(steps) if steps >= 0 else "")


def _share_y(axes: list[Any], panels: list[_Panel]) -> None:
    """Give the small multiples of a group the same limits."""
    for group in {panel.group for panel in panels}:
        same = [axis for axis, panel in zip(axes, panels, strict=True) if panel.group == group]
        low, high = zip(*(axis.get_ylim() for axis in same), strict=True)
        for axis in same:
            axis.set_ylim(min(low), max(high))


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


def _published(references: list[Reference], panel: _Panel) -> list[Reference]:
    return for_environment(references, panel.curves[0].env_id)


def _draw_references(axis: Any, references: list[Reference]) -> None:
    """Draw dashed lines, with a diamond where the published budget ends."""
    limits = axis.get_xlim()
    for reference in references:
        axis.axhline(reference.score, color="#777777", lw=0.9, ls=(0, (6, 3)), zorder=1)
        if limits[0] <= reference.env_steps <= limits[1]:
            axis.plot([reference.env_steps], [reference.score], marker="D", ms=3.5, color="#777777", zorder=1)
    axis.set_xlim(limits)


def _draw_letters(axis: Any, references: list[Reference], marks: dict[str, str]) -> None:
    """Draw the letter of each dashed line at its right end, moved apart from the others."""
    if not references:
        return
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
    """The values in the same order, moved apart until neighbours are at least `gap` from each other."""
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


def _of(drawn: list[Curve], styles: dict[str, Style], style: Style) -> list[Curve]:
    return [curve for curve in drawn if styles[curve.variant].label == style.label and curve.is_drawn]
