"""Scores over the levels of two numeric axes, for print."""

from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.figures.canvas import Page
from trpo_lightning.report.heat_map import HeatMap, heat_map_caption
from trpo_lightning.report.tables import number

BRIGHT = 0.55
"""Share of the colour scale from which viridis is bright enough for black text."""


def draw_heat_map(experiment: Experiment, maps: list[HeatMap], path: Path) -> bool:
    """Draw a panel for each environment, as PNG and PDF; return whether there was anything to draw."""
    if not maps:
        return False
    with Page(experiment.title, [heat_map_caption(experiment)], len(maps), path) as page:
        for axis, heat in zip(page.axes, maps, strict=True):
            _draw(axis, heat)
        page.label(maps[0].keys[1], maps[0].keys[0])
    return True


def _draw(axis: Any, heat: HeatMap) -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(heat.scores, origin="lower", aspect="auto", cmap="viridis")
    axis.set(title=heat.env_id)
    axis.set_xticks(range(len(heat.columns)), [f"{level:g}" for level in heat.columns])
    axis.set_yticks(range(len(heat.rows)), [f"{level:g}" for level in heat.rows])
    axis.grid(False)
    low, high = np.nanmin(heat.scores), np.nanmax(heat.scores)
    for (row, column), score in np.ndenumerate(heat.scores):
        share = (score - low) / (high - low) if high > low else 0.0
        color = "black" if share != share or share > BRIGHT else "white"
        axis.text(column, row, number(float(score), 3), ha="center", va="center", color=color, fontsize=7)
    if heat.default is not None:
        row, column = heat.default
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="black", lw=1.8))
