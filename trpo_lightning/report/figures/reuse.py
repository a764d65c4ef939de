"""The section about sample reuse: do the returns that an update promises hold in the next batch?"""

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from trpo_lightning.report.page.markup import table
from trpo_lightning.report.panels import Panel
from trpo_lightning.report.records import Record
from trpo_lightning.report.summary import by_cell
from trpo_lightning.report.tables import number

NORMAL_95 = 1.96
PERIODS = 10
"""Parts of a run for which the figure has a point."""
NEEDED = tuple(f"reuse/return_{name}" for name in ("predicted", "low", "high", "measured", "measured_error"))


@dataclass(frozen=True)
class Promises:
    """Errors of all predictions of a cell: (measured - predicted) / std, with the share of the run that was done.

    The std is that of the difference of two independent estimates, from both standard errors.
    """

    env_id: str
    variant: str
    shares: np.ndarray
    errors: np.ndarray
    records: list[Record]

    @property
    def kept(self) -> float:
        """Share of the measurements within the 95 % interval of the prediction."""
        return float((np.abs(self.errors) < NORMAL_95).mean())


def reuse_panels(records: list[Record]) -> list[Panel]:
    """One panel for all variants that reuse batches; none without them."""
    found = [promises for cell, group in by_cell(records).items() if (promises := _promises(*cell, group))]
    if not found:
        return []
    text = (
        "Each update predicts the new policy's mean discounted return to go, from the states of the batches it learned "
        "from; the next batch measures it. Errors are in units of the standard error of the difference; 95 % should "
        "lie within 1.96. Effective size: what all transitions are worth for the new policy, over what as many batches "
        "of its own would be. Medians over all iterations of all runs."
    )
    return [Panel("Sample reuse: predicted and measured returns", text, _figure(found), _table(found))]


def _promises(env_id: str, variant: str, group: list[Record]) -> Promises | None:
    shares, errors = [], []
    for record in group:
        columns = record.columns
        if not all(name in columns and np.isfinite(columns[name]).any() for name in NEEDED):
            continue
        predicted, low, high, measured, error = (columns[name] for name in NEEDED)
        std = np.hypot((high - low)[:-1] / (2.0 * NORMAL_95), error[1:])
        z = (measured[1:] - predicted[:-1]) / np.where(std > 0.0, std, np.nan)
        known = np.isfinite(z)
        shares.append((columns["env_steps"][1:] / columns["env_steps"][-1])[known])
        errors.append(z[known])
    if not sum(map(len, errors)):
        return None
    return Promises(env_id, variant, np.concatenate(shares), np.concatenate(errors), group)


def _figure(found: list[Promises]) -> Any:
    """Median error and its middle half over the course of the runs."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for promises in found:
        periods = np.minimum((promises.shares * PERIODS).astype(int), PERIODS - 1)
        groups = [(k, promises.errors[periods == k]) for k in range(PERIODS) if (periods == k).any()]
        low, middle, high = np.array([np.quantile(errors, (0.25, 0.5, 0.75)) for _, errors in groups]).T
        spread = {"type": "data", "array": (high - middle).tolist(), "arrayminus": (middle - low).tolist()}
        x = [100.0 * (k + 0.5) / PERIODS for k, _ in groups]
        name = f"{promises.env_id} {promises.variant}"
        figure.add_trace(go.Scatter(x=x, y=middle.tolist(), error_y=spread, name=name, mode="lines+markers"))
    for limit in (-NORMAL_95, NORMAL_95):
        figure.add_hline(y=limit, line={"dash": "dot", "width": 1})
    figure.update_layout(xaxis_title="share of the run, %", yaxis_title="(measured - predicted) / standard error")
    return figure


def _table(found: list[Promises]) -> str:
    headings = ("environment", "variant", "predictions", "within 95 %", "median error", "batches", "effective size")
    headings = (*headings, "KL of the oldest", "ratios cut off")
    rows = []
    for promises in found:
        names = ("reuse/batches", "reuse/kl_oldest", "reuse/truncated")
        batches, kl, truncated = (_median(promises.records, name) for name in names)
        numbers = (number(float(np.median(promises.errors)), 3), number(batches, 3), f"{_worth(promises.records):.0%}")
        numbers = (f"{len(promises.errors):,}", f"{promises.kept:.0%}", *numbers, number(kl, 3), number(truncated, 3))
        rows.append(("", [escape(text) for text in (promises.env_id, promises.variant, *numbers)]))
    return table(headings, rows, tuple(range(2, len(headings))))


def _median(records: list[Record], name: str) -> float:
    values = np.concatenate([record.columns.get(name, np.empty(0)) for record in records])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _worth(records: list[Record]) -> float:
    """Median of the effective sample size over the env steps of as many batches."""
    shares = []
    for record in records:
        size, batches = (record.columns.get(f"reuse/{n}", np.empty(0)) for n in ("effective_sample_size", "batches"))
        steps = np.diff(record.columns.get("env_steps", np.empty(0)), prepend=0.0)
        if len(size) == len(batches) == len(steps):
            shares.append(size / (batches * steps))
    values = np.concatenate(shares) if shares else np.empty(0)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")
