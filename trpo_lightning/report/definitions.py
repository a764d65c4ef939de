"""The same runs by three definitions of a score side by side: published numbers differ by their definition alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trpo_lightning.report.records import Record, score_of
from trpo_lightning.report.statistics import Estimate, interquartile_mean_interval
from trpo_lightning.report.summary import by_cell

DEFINITIONS = {
    "last_episodes": "last 100 training episodes",
    "last_evaluation": "last evaluation",
    "best_evaluation": "best evaluation",
}
"""Scores (see `records.score_definition`) and their headings."""


@dataclass(frozen=True)
class Defined:
    """One definition's statistics over the finished runs of a variant in one environment."""

    env_id: str
    variant: str
    definition: str
    scores: np.ndarray
    iqm: Estimate

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the scores over runs, with `n - 1`; NaN for one run."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else float("nan")


def by_definition(records: Iterable[Record]) -> list[Defined]:
    """Every definition of every environment and variant with finished runs; none if no run was ever evaluated."""
    finished = [record for record in records if record.finished]
    if not any(record.evaluation == record.evaluation for record in finished):
        return []
    return [
        Defined(env_id, variant, definition, scores, interquartile_mean_interval([scores]))
        for (env_id, variant), group in by_cell(finished).items()
        for definition in DEFINITIONS
        if len(scores := _scores(group, definition))
    ]


def _scores(group: list[Record], definition: str) -> np.ndarray:
    scores = np.array([score_of(record.columns, definition) for record in group])
    return scores[np.isfinite(scores)]
