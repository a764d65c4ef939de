"""Why curves look as they do: rejected updates, backtracks, KL against its radius, and where the time went."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from trpo_lightning.report.records import PARTS_OF_COLLECT, Columns, Record, disjoint_parts, iteration_seconds
from trpo_lightning.report.summary import by_cell

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MANY_BACKTRACKS = 4
"""Updates with this many backtracks or more are counted together."""


@dataclass(frozen=True)
class Diagnosis:
    """What happened inside the updates of one variant in one environment, over all iterations of all its runs.

    `backtracks` counts updates by their number of backtracks, up to `MANY_BACKTRACKS`. `kl` holds the `QUANTILES` of
    KL / delta over accepted updates, `above` the share of them beyond 1. The `seconds` of all parts sum to the wall
    clock. Whatever the method does not have is empty or NaN.
    """

    env_id: str
    variant: str
    iterations: int
    rejected: int
    reasons: dict[str, int]
    backtracks: list[int]
    mean_backtracks: float
    kl: list[float]
    above: float
    residual: float
    explained_variance: float
    seconds: dict[str, float]


def diagnose(records: list[Record]) -> list[Diagnosis]:
    """A diagnosis of each environment and variant that has rows of our runs, in order of appearance."""
    cells = {
        cell: [r for r in group if len(r.columns.get("update/rejected", ()))]
        for cell, group in by_cell(records).items()
    }
    return [_diagnosis(*cell, group) for cell, group in cells.items() if group]


def _diagnosis(env_id: str, variant: str, group: list[Record]) -> Diagnosis:
    ratios = np.concatenate([_kl_over_delta(record.columns) for record in group])
    backtracks = np.concatenate([_known(record.columns, "line_search/backtracks") for record in group])
    reasons: Counter[str] = Counter()
    for record in group:
        reasons.update(record.reasons)
    return Diagnosis(
        env_id=env_id,
        variant=variant,
        iterations=sum(len(record.columns["env_steps"]) for record in group),
        rejected=sum(int(_rejections(record.columns).sum()) for record in group),
        reasons=dict(reasons.most_common()),
        backtracks=_counts(backtracks),
        mean_backtracks=float(backtracks.mean()) if len(backtracks) else float("nan"),
        kl=[float(q) for q in np.quantile(ratios, QUANTILES)] if len(ratios) else [],
        above=float((ratios > 1).mean()) if len(ratios) else float("nan"),
        residual=_median(group, "cg/residual"),
        explained_variance=_median(group, "value/explained_variance"),
        seconds=_seconds(group),
    )


def _rejections(columns: Columns) -> np.ndarray:
    """Whether each iteration's update was rejected: `update/rejected` counts them so far."""
    return np.diff(np.nan_to_num(columns["update/rejected"]), prepend=0.0) > 0


def _kl_over_delta(columns: Columns) -> np.ndarray:
    """KL over delta of each accepted update."""
    if not {"trust_region/kl", "trust_region/delta"} <= columns.keys():
        return np.empty(0)
    kl, delta = columns["trust_region/kl"], columns["trust_region/delta"]
    made = np.isfinite(kl) & (delta > 0) & ~_rejections(columns)
    return kl[made] / delta[made]


def _counts(backtracks: np.ndarray) -> list[int]:
    places = np.minimum(backtracks, MANY_BACKTRACKS).astype(int)
    return np.bincount(places, minlength=MANY_BACKTRACKS + 1).tolist() if len(places) else []


def _seconds(group: list[Record]) -> dict[str, float]:
    """Seconds spent in each part over all runs; `overhead` is the time that no other part accounts for."""
    found: Counter[str] = Counter()
    for record in group:
        columns = record.columns
        inside = {name: _sum(columns, name) for name in PARTS_OF_COLLECT if name in columns}
        parts = {name: _sum(columns, name) for name in disjoint_parts(columns)}
        parts["time/collect"] = parts.get("time/collect", sum(inside.values())) - sum(inside.values())
        parts.pop("time/overhead", None)
        own = {**inside, **parts}
        own["time/overhead"] = float(np.nansum(iteration_seconds(columns))) - sum(own.values())
        found.update({name.removeprefix("time/"): max(value, 0.0) for name, value in own.items()})
    names = {"collect": "rest of collect"}
    return {names.get(name, name): value for name, value in found.items() if value > 0}


def _sum(columns: Columns, name: str) -> float:
    return float(np.nansum(columns[name]))


def _median(group: list[Record], metric: str) -> float:
    values = np.concatenate([_known(record.columns, metric) for record in group])
    return float(np.median(values)) if len(values) else float("nan")


def _known(columns: Columns, metric: str) -> np.ndarray:
    values = columns.get(metric, np.empty(0))
    return values[np.isfinite(values)]
