"""Scores over the levels of two numeric axes, as a heat map: for paper and interactive."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.figures import Page
from trpo_lightning.report.interactive import Panels, safe
from trpo_lightning.report.records import score_definition
from trpo_lightning.report.style import heat_axes
from trpo_lightning.report.summary import ALL, Summary
from trpo_lightning.report.tables import number

BRIGHT = 0.55
"""From this share of the colour scale on, viridis is bright enough for black text."""


@dataclass(frozen=True)
class HeatMap:
    """One environment: `scores` and numbers of finished `runs`, `[rows, columns]`; NaN where no run is finished.

    Rows are the levels of the first axis, columns those of the second, in rising order; `default` is the place of the
    default (row, column), or None.
    """

    env_id: str
    keys: tuple[str, str]
    rows: list[float]
    columns: list[float]
    scores: np.ndarray
    runs: np.ndarray
    default: tuple[int, int] | None


def heat_maps(experiment: Experiment, summaries: list[Summary]) -> list[HeatMap]:
    """A heat map for each environment, if the experiment has exactly two numeric axes; else nothing."""
    keys = heat_axes(experiment)
    if keys is None:
        return []
    found = []
    for env_id in dict.fromkeys(s.env_id for s in summaries if s.env_id != ALL):
        cells = [s for s in summaries if s.env_id == env_id and all(key in s.records[0].levels for key in keys)]
        places = {tuple(s.records[0].levels[key] for key in keys): s for s in cells}
        rows, columns = (sorted({place[index] for place in places}) for index in (0, 1))
        scores = np.full((len(rows), len(columns)), np.nan)
        runs, default = np.zeros(scores.shape, dtype=int), None
        for (row, column), summary in places.items():
            place = rows.index(row), columns.index(column)
            scores[place], runs[place] = summary.score.value, summary.finished
            default = place if summary.is_default else default
        if np.isfinite(scores).any():
            found.append(HeatMap(env_id, keys, rows, columns, scores, runs, default))
    return found


def heat_map_caption(experiment: Experiment) -> str:
    """What the numbers are."""
    definition = score_definition(experiment.score, experiment.metric)
    return f"Numbers: interquartile mean of the score over finished seeds. Score: {definition}. Framed: the default."


def draw_heat_map(experiment: Experiment, maps: list[HeatMap], path: Path) -> bool:
    """One panel for each environment, as PNG and PDF; whether there was anything to draw."""
    if not maps:
        return False
    with Page(experiment.title, [heat_map_caption(experiment)], len(maps), path) as page:
        for axis, heat in zip(page.axes, maps, strict=True):
            _draw(axis, heat)
        page.label(maps[0].keys[1], maps[0].keys[0])
    return True


def heat_map_html(maps: list[HeatMap]) -> str:
    """The same as a `div` with its script. Empty if there are none."""
    import plotly.graph_objects as go

    if not maps:
        return ""
    page = Panels([heat.env_id for heat in maps], maps[0].keys[1], maps[0].keys[0])
    for heat in maps:
        texts = [[number(float(score)) for score in row] for row in heat.scores]
        first, second = (safe(key.rpartition(".")[2]) for key in heat.keys)
        trace = go.Heatmap(
            x=[f"{level:g}" for level in heat.columns],
            y=[f"{level:g}" for level in heat.rows],
            z=[[None if value != value else float(value) for value in row] for row in heat.scores],
            text=texts,
            customdata=heat.runs.tolist(),
            texttemplate="%{text}",
            colorscale="Viridis",
            showscale=False,
            hovertemplate=f"{first}=%{{y}}, {second}=%{{x}}<br>IQM %{{text}}, %{{customdata}} runs<extra></extra>",
        )
        page.figure.add_trace(trace, **page.place[heat.env_id])
    page.figure.update_xaxes(type="category")
    page.figure.update_yaxes(type="category")
    return page.html("heat-map")


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
