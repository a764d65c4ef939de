"""What the runs say about an experiment's claims: holds, does not hold, or not decided, with the numbers behind it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trpo_lightning.experiment.claims import COMPARISONS, STATISTICS, Claim
from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.records import Record, score_of
from trpo_lightning.report.statistics import (
    NOTHING,
    Estimate,
    bootstrap,
    interquartile_mean,
    probability_of_improvement,
)

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not decided"

OF_RUNS: dict[str, Callable[[Record], float]] = {
    "score": lambda record: record.score,
    "improvement": lambda record: record.score,
    "least_score_ratio": lambda record: record.score,
    "last_evaluation": lambda record: record.evaluation,
    "best_evaluation": lambda record: score_of(record.columns, "best_evaluation"),
    "final_over_best": lambda record: record.final_over_best,
    "worst_stretch": lambda record: record.worst_stretch,
}
"""Statistics made from one number per run rather than from its learning curve."""


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict and its reason, with the statistic, its interval and the fewest seeds of any variant."""

    claim: Claim
    verdict: str
    estimate: Estimate
    seeds: int
    reason: str


def judge(experiment: Experiment, records: list[Record]) -> list[Verdict]:
    """A verdict for each claim.

    A claim holds, or does not hold, if the whole bootstrap interval lies on one side of its threshold. It is not
    decided if the interval straddles the threshold, if a variant has fewer finished runs than the claim requires, or
    if any declared run of its variants is unfinished or has no number: the missing runs might be the bad ones.
    """
    return [_judge(claim, experiment, records) for claim in experiment.claims]


def criterion(claim: Claim, experiment: Experiment) -> str:
    """The claim's condition as text: which statistic must lie where."""
    of, than = (_short(list(names), " or ") for names in (claim.of, claim.than))
    level = "" if claim.level is None else f" {claim.level:g}"
    where = f" in {claim.environment}" if claim.environment else ""
    bound = {"above": "> {:g}", "below": "< {:g}", "within": "in [-{0:g}, {0:g}]"}[claim.direction]
    if claim.statistic == "improvement":
        measured = f"P({of} > {than})"
    elif claim.statistic in COMPARISONS:
        measured = f"{claim.statistic}: {of} beside {than}"
    else:
        best = " of the best" if max(len(claim.of), len(claim.than)) > 1 else ""
        best = " of the worst run" if claim.every_run else best
        measured = f"{claim.statistic}{level}{best}: {of}{f' minus {than}' if than else ''}"
    along = f" over {experiment.x}" if claim.statistic in ("area", "first") else ""
    return f"{measured}{along}{where} {bound.format(claim.threshold)}"


def explanation_of_verdicts(verdicts: list[Verdict], experiment: Experiment) -> str:
    """Explains the statistics, and when a claim is decided."""
    used = dict.fromkeys(verdict.claim.statistic for verdict in verdicts)
    levels = sorted({f"{100 * verdict.claim.confidence:g}" for verdict in verdicts})
    parts = [f"{name}: {STATISTICS[name]}" for name in used]
    parts += [f"metric: {experiment.metric}"] if {"area", "first"} & set(used) else []
    return (
        f"{'; '.join(parts)}. Interquartile means over runs, of several variants the best one's; "
        f"{' or '.join(levels)} % bootstrap intervals, too narrow for few runs. A claim is decided where its whole "
        "interval lies on one side of the threshold, all declared runs of its variants are finished, and they are at "
        "least as many as it asks for. Statistics and thresholds were fixed before the runs."
    )


def _short(names: list[str], between: str, most: int = 5) -> str:
    """The first names, and the number of further ones."""
    rest = len(names) - most
    return between.join([*names[:most], *([f"{rest} more"] if rest > 0 else [])])


def _judge(claim: Claim, experiment: Experiment, records: list[Record]) -> Verdict:
    env_ids = list(dict.fromkeys(record.env_id for record in records)) if claim.environment is None else []
    cells = [(env_id, name) for env_id in env_ids or [claim.environment] for name in (*claim.of, *claim.than)]
    groups = {cell: [r for r in records if (r.env_id, r.variant) == cell] for cell in cells}
    empty = [f"{name} in {env_id}" for (env_id, name), group in groups.items() if not group]
    if empty:
        return Verdict(claim, UNDECIDED, NOTHING, 0, f"no run of {_short(empty, ', ')} is declared at this scale")
    declared = sum(map(len, groups.values()))
    finished = [[record for record in group if record.finished] for group in groups.values()]
    values = _values(claim, experiment, finished)
    seeds = min(map(len, values))
    estimate = _estimate(claim, values, max(1, len(env_ids))) if seeds else NOTHING
    missing = declared - sum(map(len, finished))
    numberless = declared - missing - sum(map(len, values))
    if missing:
        return Verdict(claim, UNDECIDED, estimate, seeds, f"{missing} of {declared} runs are not finished")
    if numberless:
        return Verdict(claim, UNDECIDED, estimate, seeds, f"{numberless} of {declared} runs have no such number")
    if seeds < claim.seeds:
        return Verdict(claim, UNDECIDED, estimate, seeds, f"{seeds} of at least {claim.seeds} seeds")
    open_ended = _open_ended(claim, experiment, finished)
    if open_ended:
        return Verdict(claim, UNDECIDED, estimate, seeds, f"{open_ended} runs end before the threshold")
    never = [_never(claim, experiment, group) for group in finished]
    verdict, reason = _decided(claim, estimate, sum(never[: len(claim.of)]), sum(never[len(claim.of) :]))
    return Verdict(claim, verdict, estimate, seeds, reason)


def _decided(claim: Claim, estimate: Estimate, of_never: int, than_never: int) -> tuple[str, str]:
    """Verdict and reason, from the position of the interval.

    In a difference, runs that never reach a level give only a lower bound: those of `of` leave the interval open
    above, those of `than` below.
    """
    low, high, threshold = estimate.low, estimate.high, claim.threshold
    if claim.every_run:
        low = high = estimate.value
    if claim.than:
        low, high = -math.inf if than_never else low, math.inf if of_never else high
    if claim.direction == "within":
        inside, outside = -threshold <= low and high <= threshold, high < -threshold or low > threshold
    else:
        inside, outside = low > threshold, high < threshold
        if claim.direction == "below":
            inside, outside = outside, inside
    if inside or outside:
        return HOLDS if inside else FAILS, ""
    never = of_never + than_never if claim.than else 0
    return UNDECIDED, f"{never} runs never reach the level" if never else "the interval straddles the threshold"


def _values(claim: Claim, experiment: Experiment, groups: list[list[Record]]) -> list[np.ndarray]:
    """For each variant, the numbers of all runs that have one."""
    if (number := OF_RUNS.get(claim.statistic)) is not None:
        values = [[number(record) for record in group] for group in groups]
    elif claim.statistic == "share_of_steps":
        values = [share for own, other in zip(groups[::2], groups[1::2], strict=True) for share in _shares(own, other)]
    else:
        drawn = [[record.curve(experiment.metric, experiment.x) for record in group] for group in groups]
        ends = [(x[0], x[-1]) for group in drawn for x, _ in group if len(x) > 1]
        low, high = max((end[0] for end in ends), default=0.0), min((end[1] for end in ends), default=0.0)
        if claim.level is not None:
            values = [[_first(x, y, claim.level) for x, y in group] for group in drawn]
        else:
            values = [[_area(x, y, low, high) for x, y in group] for group in drawn]
    arrays = [np.array(group, dtype=np.float64) for group in values]
    return [array[np.isfinite(array)] for array in arrays]


def _shares(own: list[Record], other: list[Record]) -> list[list[float]]:
    """For each run, the share of its env steps that it needed to the other variant's final returns; and those."""
    finals = [returns[-1] for record in other if len(returns := record.recent_returns()[1])]
    if not finals:
        return [[], []]
    level, shares = float(interquartile_mean(np.array(finals))), []
    for steps, returns in (record.recent_returns() for record in own):
        shares.append(_first(steps, returns, level) / float(steps[-1]) if len(steps) else math.nan)
    return [shares, finals]


def _area(x: np.ndarray, y: np.ndarray, low: float, high: float) -> float:
    """Mean of a curve between `low` and `high`, by the trapezoidal rule."""
    if len(x) < 2 or low >= high:
        return float("nan")
    places = np.concatenate([[low], x[(x > low) & (x < high)], [high]])
    heights = np.interp(places, x, y)
    return float(np.sum(np.diff(places) * (heights[1:] + heights[:-1]) / 2) / (high - low))


def _first(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """The x at which a curve first reaches a level; if it never does, one iteration after its end, a lower bound."""
    reached = np.flatnonzero(y >= level)
    if len(reached):
        return float(x[reached[0]])
    return float(2 * x[-1] - x[-2]) if len(x) > 1 else float("nan")


def _open_ended(claim: Claim, experiment: Experiment, groups: list[list[Record]]) -> int:
    """How many runs never reach the level and end before the threshold, so that they might yet decide either way."""
    if claim.level is None or claim.than:  # differences are judged by `_decided`
        return 0
    curves = [record.curve(experiment.metric, experiment.x) for group in groups for record in group]
    return sum(bool(y.max() < claim.level and _first(x, y, claim.level) <= claim.threshold) for x, y in curves)


def _never(claim: Claim, experiment: Experiment, group: list[Record]) -> int:
    """How many runs never reach the level."""
    if claim.level is None:
        return 0
    return sum(bool(r.curve(experiment.metric, experiment.x)[1].max() < claim.level) for r in group)


def _estimate(claim: Claim, values: list[np.ndarray], environments: int) -> Estimate:
    if claim.statistic == "improvement":
        pairs = [values[2 * index : 2 * index + 2] for index in range(environments)]
        own, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return probability_of_improvement(own, others, level=claim.confidence)
    if claim.statistic == "share_of_steps":
        shares = values[::2]
        return bootstrap(shares, lambda s: interquartile_mean(np.concatenate(s, axis=-1)), level=claim.confidence)
    if claim.statistic == "least_score_ratio":
        return bootstrap(values, _least_ratio, level=claim.confidence)
    if claim.every_run:
        worst = {"above": np.min, "below": np.max, "within": lambda x: x[np.abs(x).argmax()]}[claim.direction]
        return Estimate(float(worst(values[0])))
    best: Callable[..., np.ndarray] = np.min if claim.statistic == "first" else np.max

    def difference(samples: list[np.ndarray]) -> np.ndarray:
        means = [interquartile_mean(sample) for sample in samples]  # each [R]
        own, others = means[: len(claim.of)], means[len(claim.of) :]
        return best(own, axis=0) - (best(others, axis=0) if others else 0.0)

    return bootstrap(values, difference, level=claim.confidence)


def _least_ratio(samples: list[np.ndarray]) -> np.ndarray:
    """1 + (own - other) / |other| of the scores' interquartile means, least over environments; samples are `[R, n]`."""
    means = [interquartile_mean(sample) for sample in samples]
    ratios = [1.0 + (own - other) / np.abs(other) for own, other in zip(means[::2], means[1::2], strict=True)]
    return np.min(ratios, axis=0)
