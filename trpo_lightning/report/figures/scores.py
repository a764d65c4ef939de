"""Scores for print: against the levels of an axis, and all variants sorted by score."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.figures.canvas import DASH, Page, handle
from trpo_lightning.report.figures.curves import BEHIND
from trpo_lightning.report.records import score_definition
from trpo_lightning.report.style import (
    INTERVALS_CAPTION,
    MOST_IN_A_PANEL,
    MULTIPLES_CAPTION,
    Sensitivity,
    Style,
    axis_scale,
    numeric_axis,
)
from trpo_lightning.report.summary import ALL, Summary

ROW = 0.2
"""Height in inches of a variant's row among sorted scores."""


def draw_intervals(experiment: Experiment, summaries: list[Summary], styles: dict[str, Style], path: Path) -> bool:
    """Draw every variant's score with interval and runs, best first, if curves need small multiples."""
    env_ids = list(dict.fromkeys(s.env_id for s in summaries if s.env_id != ALL))
    groups = {e: [s for s in summaries if s.env_id == e and len(s.scores)] for e in env_ids}
    most = max(map(len, groups.values()), default=0)
    if most <= MOST_IN_A_PANEL:
        return False
    definition = score_definition(experiment.score, experiment.metric)
    caption = f"Score: {definition}. {INTERVALS_CAPTION} Ring: the default."
    shown = {env_id: group for env_id, group in groups.items() if group}
    with Page(experiment.title, [caption], len(shown), path, size=(4.6, 0.7 + ROW * most)) as page:
        for axis, (env_id, group) in zip(page.axes, shown.items(), strict=True):
            axis.set_title(env_id)
            _draw_intervals(axis, sorted(group, key=lambda s: s.score.value), styles)
        page.label(f"score ({experiment.score})", "")
    return True


def _draw_intervals(axis: Any, rising: list[Summary], styles: dict[str, Style]) -> None:
    for place, summary in enumerate(rising):
        color, score = styles[summary.variant].color, summary.score
        axis.plot(summary.scores, [place] * len(summary.scores), "o", color=color, ms=2.5, alpha=0.4)
        if score.has_interval:
            axis.plot([score.low, score.high], [place, place], color=color, lw=2)
        axis.plot([score.value], [place], "o", color=color, ms=5)
        if summary.is_default:
            axis.plot([score.value], [place], "o", ms=10, mfc="none", mec="black", mew=1)
    texts = [f"{s.variant} ({len(s.scores)})" for s in rising]
    axis.set_yticks(range(len(rising)), texts, fontsize=8)
    axis.set_ylim(-0.7, len(rising) - 0.3)


def draw_sensitivity(experiment: Experiment, groups: list[Sensitivity], path: Path) -> bool:
    """Draw scores against the levels of the only numeric axis; return whether there was anything to draw.

    There is one panel for each environment, or for each line if one panel would hold too many.
    """
    key = numeric_axis(experiment)
    if key is None or not groups:
        return False
    definition = score_definition(experiment.score, experiment.metric)
    caption = f"Score: {definition}. Lines: interquartile mean over finished seeds with 95 % bootstrap interval. "
    caption += "Dots: single runs. Ring: the default."
    env_ids = list(dict.fromkeys(group.env_id for group in groups))
    scale = axis_scale([level for group in groups for level in group.levels])
    panels = {env_id: [group for group in groups if group.env_id == env_id] for env_id in env_ids}
    small = max(map(len, panels.values())) > MOST_IN_A_PANEL
    if small:
        caption += f" {MULTIPLES_CAPTION}"
        panels = {f"{group.env_id}\n{group.label}": [group] for group in groups}
    with Page(experiment.title, [caption], len(panels), path, small=small) as page:
        for axis, (title, own) in zip(page.axes, panels.items(), strict=True):
            for group in groups if small else []:
                if group.env_id == own[0].env_id:
                    axis.plot(group.levels, [s.score.value for s in group.summaries], color=BEHIND, lw=0.7, zorder=1)
            for group in own:
                _draw_sensitivity(axis, group)
            axis.set_title(title, **({"fontsize": 8} if small else {}))
            _set_levels(axis, scale, sorted({level for group in groups for level in group.levels}))
        page.label(key, f"score ({experiment.score})")
        lines = {group.label: group.style for group in groups}
        page.legend([handle(style, label) for label, style in lines.items()] if len(lines) > 1 and not small else [])
    return True


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
    """Set up the axis of the levels, with a tick at each if they are few."""
    if scale == "even":
        known = [2 * levels[0] - levels[1], *levels, 2 * levels[-1] - levels[-2]]  # one more on each side as a margin
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
