"""Aggregates records of runs: statistics for each environment and variant, and the curves of the figures."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from trpo_lightning.report.records import Record, score_of
from trpo_lightning.report.statistics import (
    NOTHING,
    Estimate,
    curve_interval,
    interquartile_mean_interval,
    probability_of_improvement,
)

POINTS = 240
"""Number of points of the common grid on which curves are averaged."""
RESAMPLES_OF_CURVES = 1000
ALL = "(all)"


@dataclass(frozen=True)
class Summary:
    """Statistics of one variant in one environment, over its finished runs.

    `improvement` is the probability that a run of this variant scores higher than one of the default. It is the only
    statistic in the rows for `ALL` environments: scores of different environments are never averaged.
    """

    env_id: str
    variant: str
    is_default: bool
    records: list[Record]
    scores: np.ndarray
    score: Estimate
    improvement: Estimate = NOTHING

    @property
    def declared(self) -> int:
        """Number of declared runs."""
        return len(self.records)

    @property
    def finished(self) -> int:
        """Number of finished runs."""
        return sum(record.finished for record in self.records)

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean()) if len(self.scores) else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation of the scores over runs, with `n - 1`; NaN for one run."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else float("nan")

    @property
    def steps_per_second(self) -> float:
        """Median over the finished runs."""
        return _median([record.steps_per_second for record in self.records if record.finished])

    @property
    def evaluation(self) -> float:
        """Median over the finished runs."""
        return _median([record.evaluation for record in self.records if record.finished])


@dataclass(frozen=True)
class Line:
    """The curve of a single run."""

    seed: int
    state: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A variant in one panel: interquartile mean and interval over `runs` finished runs, `[G]`, and single lines.

    If there are too few finished runs, or they share no part of the x axis, `x` is empty and `lines` holds the runs.
    Unfinished runs are always lines.
    """

    env_id: str
    variant: str
    runs: int
    declared: int
    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lines: list[Line] = field(default_factory=list)
    panel: str = ""
    """The panel's title: the environment and, if the panel has its own level, that level."""

    @property
    def is_drawn(self) -> bool:
        """Whether the curve has anything to draw."""
        return bool(len(self.x) or self.lines)


def by_cell(records: list[Record]) -> dict[tuple[str, str], list[Record]]:
    """Group records by environment, then variant, in order of appearance."""
    order = {env_id: i for i, env_id in enumerate(dict.fromkeys(record.env_id for record in records))}
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.env_id, record.variant].append(record)
    return dict(sorted(groups.items(), key=lambda item: order[item[0][0]]))


def summarize(records: list[Record], default: str) -> list[Summary]:
    """A row for each environment and variant, then, with several environments, one for each variant over all."""
    groups = by_cell(records)
    scores = {cell: _scores(group) for cell, group in groups.items()}
    rows = []
    for (env_id, variant), group in groups.items():
        own, others = scores[env_id, variant], scores.get((env_id, default), np.empty(0))
        compared = variant != default and len(own) and len(others)
        rows.append(
            Summary(
                env_id=env_id,
                variant=variant,
                is_default=variant == default,
                records=group,
                scores=own,
                score=interquartile_mean_interval([own]) if len(own) else NOTHING,
                improvement=probability_of_improvement([own], [others]) if compared else NOTHING,
            )
        )
    return rows + _over_all(groups, scores, default)


def _over_all(groups: dict[tuple[str, str], list[Record]], scores: dict, default: str) -> list[Summary]:
    """Probability of improvement over all environments of the default, for variants with scores in all of them."""
    env_ids = [env_id for env_id, variant in groups if variant == default]
    if len(env_ids) < 2:
        return []
    rows = []
    for variant in dict.fromkeys(variant for _, variant in groups if variant != default):
        own = [scores.get((env_id, variant), np.empty(0)) for env_id in env_ids]
        others = [scores[env_id, default] for env_id in env_ids]
        if all(map(len, own)) and all(map(len, others)):
            records = [record for env_id in env_ids for record in groups[env_id, variant]]
            improvement = probability_of_improvement(own, others)
            rows.append(Summary(ALL, variant, False, records, np.empty(0), NOTHING, improvement))
    return rows


def curves(
    records: list[Record], metric: str, x: str = "env_steps", panel: Callable[[Record], str] | None = None
) -> list[Curve]:
    """The curve of each environment and variant, including those with nothing to draw.

    `panel` returns the name of a record's panel; by default each environment has one.
    """
    return [
        replace(_curve(*cell, group, metric, x), panel=panel(group[0]) if panel else cell[0])
        for cell, group in by_cell(records).items()
    ]


def _curve(env_id: str, variant: str, group: list[Record], metric: str, x: str) -> Curve:
    lines = [Line(record.seed, record.state, *record.curve(metric, x)) for record in group]
    whole = [line for line, record in zip(lines, group, strict=True) if record.finished and len(line.x)]
    others = [line for line, record in zip(lines, group, strict=True) if not record.finished and len(line.x)]
    nothing = np.empty(0)
    start = max((line.x[0] for line in whole), default=0.0)
    end = min((line.x[-1] for line in whole), default=0.0)
    if len(whole) < 2 or start >= end:
        return Curve(env_id, variant, len(whole), len(group), nothing, nothing, nothing, nothing, whole + others)
    grid = np.linspace(start, end, POINTS)
    values = np.stack([np.interp(grid, line.x, line.y) for line in whole])  # [n, G]
    return Curve(env_id, variant, len(whole), len(group), grid, *curve_interval(values, RESAMPLES_OF_CURVES), others)


def _scores(group: list[Record]) -> np.ndarray:
    scores = np.array([record.score for record in group if record.finished])
    return scores[np.isfinite(scores)]


def _median(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.median(known)) if known else float("nan")


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
        if len(scores := _defined_scores(group, definition))
    ]


def _defined_scores(group: list[Record], definition: str) -> np.ndarray:
    scores = np.array([score_of(record.columns, definition) for record in group])
    return scores[np.isfinite(scores)]
