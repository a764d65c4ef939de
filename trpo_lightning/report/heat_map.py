"""Scores over the levels of two numeric axes."""

from dataclasses import dataclass

import numpy as np

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.records import score_definition
from trpo_lightning.report.style import heat_axes
from trpo_lightning.report.summary import ALL, Summary


@dataclass(frozen=True)
class HeatMap:
    """One environment: `scores` and numbers of finished `runs`, `[rows, columns]`; NaN where no run is finished.

    Rows are the levels of the first axis, columns those of the second, in ascending order; `default` is the (row,
    column) of the default, or None.
    """

    env_id: str
    keys: tuple[str, str]
    rows: list[float]
    columns: list[float]
    scores: np.ndarray
    runs: np.ndarray
    default: tuple[int, int] | None


def heat_maps(experiment: Experiment, summaries: list[Summary]) -> list[HeatMap]:
    """A heat map for each environment, if the experiment has exactly two numeric axes; else an empty list."""
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
    """The caption, which says what the numbers are."""
    definition = score_definition(experiment.score, experiment.metric)
    return f"Numbers: interquartile mean of the score over finished seeds. Score: {definition}. Framed: the default."
