"""The data behind the page's figures: the rows of all runs, and what was computed from them."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from trpo_lightning.report.diagnosis import MANY_BACKTRACKS, Diagnosis
from trpo_lightning.report.page.contents import Report
from trpo_lightning.report.records import Columns, Record, iteration_seconds, score_of
from trpo_lightning.report.references import for_environment, letters
from trpo_lightning.report.statistics import LEVEL
from trpo_lightning.report.style import (
    MOST_IN_A_PANEL,
    axis_scale,
    numeric_axis,
    panel_of,
    steps_text,
    value_label,
    value_text,
)
from trpo_lightning.report.summary import ALL, POINTS, RESAMPLES_OF_CURVES
from trpo_lightning.training.metrics import METRICS

MOST_ROWS = 30_000
"""Most rows of all runs together in a page; beyond that, successive rows are drawn as one (see `thinned`)."""
X_AXES = {"env_steps": "env steps", "iteration": "iterations", "seconds": "seconds"}


def payload(data: Report) -> dict[str, Any]:
    """Everything the page draws, ready for JSON."""
    experiment, panel = data.experiment, panel_of(data.experiment, data.records)
    every = rows_in_one(data.records)
    labels = {style.label: style for style in data.styles.values()}
    panels = {panel(record): record.env_id for record in data.records}
    return {
        "metric": experiment.metric,
        "x": experiment.x,
        "xAxes": X_AXES,
        "about": {name: METRICS.get(name, "a metric of this experiment's own") for name in metric_names(data.records)},
        "names": {name: value_label(name) for name in metric_names(data.records)},
        "environments": list(dict.fromkeys(record.env_id for record in data.records)),
        "panels": [{"name": name, "environment": env_id} for name, env_id in panels.items()],
        "series": [asdict(style) for style in labels.values()],
        "variants": {name: list(labels).index(style.label) for name, style in data.styles.items()},
        "runs": [_run(record, panel(record), every) for record in data.records],
        "references": _references(data, panels),
        "scores": _scores(data),
        "scoreName": f"score ({experiment.score})",
        "sensitivity": _sensitivity(data),
        "heatMaps": _heat_maps(data),
        "diagnoses": [_diagnosis(diagnosis) for diagnosis in data.diagnoses],
        "ownPanels": [None if own.figure is None else json.loads(own.figure.to_json()) for own in data.panels],
        "manyBacktracks": MANY_BACKTRACKS,
        "mostInAPanel": MOST_IN_A_PANEL,
        "points": POINTS,
        "resamples": RESAMPLES_OF_CURVES,
        "level": LEVEL,
        "every": every,
    }


def metric_names(records: list[Record]) -> list[str]:
    """Metrics with a number in any run: known ones in the order of `METRICS`, then others in order of appearance."""
    found = {name for record in records for name, values in record.columns.items() if np.isfinite(values).any()}
    others = [name for record in records for name in record.columns if name in found and name not in METRICS]
    return [name for name in METRICS if name in found] + list(dict.fromkeys(others))


def rows_in_one(records: list[Record]) -> int:
    """How many successive rows of a run the page shows as one; 1 if there are at most `MOST_ROWS`."""
    rows = sum(len(record.columns.get("env_steps", ())) for record in records)
    return max(1, -(-rows // MOST_ROWS))


def thinned(values: np.ndarray, every: int) -> np.ndarray:
    """The last number of each block of `every` rows, counted from the end, so that the last row stays.

    A mean would be smoothing that nobody asked for. NaN where a block has no number.
    """
    if every == 1 or not len(values):
        return values
    blocks = np.concatenate([np.full(-len(values) % every, np.nan), values]).reshape(-1, every)[:, ::-1]
    return blocks[np.arange(len(blocks)), np.isfinite(blocks).argmax(axis=1)]


def _run(record: Record, panel: str, every: int) -> dict[str, Any]:
    columns: Columns = {name: v for name, v in record.columns.items() if np.isfinite(v).any()}
    seconds = iteration_seconds(columns)
    if np.isfinite(seconds).any():
        columns = {**columns, "seconds": np.cumsum(np.nan_to_num(seconds))}
    return {
        "environment": record.env_id,
        "panel": panel,
        "variant": record.variant,
        "seed": record.seed,
        "finished": record.finished,
        "state": record.state,
        "final": _number(record.evaluation),
        "best": _number(score_of(record.columns, "best_evaluation")),
        "finalOverBest": _number(record.final_over_best),
        "columns": {name: _numbers(thinned(values, every)) for name, values in columns.items()},
    }


def _diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    fields = {name: _number(value) if isinstance(value, float) else value for name, value in asdict(diagnosis).items()}
    return {**fields, "seconds": {name: _number(value) for name, value in diagnosis.seconds.items()}}


def _references(data: Report, panels: dict[str, str]) -> list[dict[str, Any]]:
    marks = letters(data.references)
    return [
        {
            "mark": marks[reference.key],
            "panel": name,
            "score": reference.score,
            "envSteps": reference.env_steps,
            "says": f"{marks[reference.key]}: {reference.label}<br>{reference.env_id} {value_text(reference)}<br>"
            f"after {steps_text(reference.env_steps)} steps",
        }
        for name, env_id in panels.items()
        for reference in for_environment(data.references, env_id)
    ]


def _scores(data: Report) -> list[dict[str, Any]]:
    return [
        {
            "environment": s.env_id,
            "variant": s.variant,
            "isDefault": s.is_default,
            "value": _number(s.score.value),
            "low": _number(s.score.low),
            "high": _number(s.score.high),
            "runs": _numbers(s.scores),
            "finished": s.finished,
            "declared": s.declared,
        }
        for s in data.summaries
        if s.env_id != ALL
    ]


def _sensitivity(data: Report) -> dict[str, Any] | None:
    groups = data.sensitivities
    if not groups:
        return None
    levels = sorted({level for group in groups for level in group.levels})
    return {
        "key": numeric_axis(data.experiment),
        "scale": axis_scale(levels),
        "levels": levels,
        "groups": [
            {
                "environment": group.env_id,
                "label": group.label,
                **{name: getattr(group.style, name) for name in ("color", "dash")},
                "levels": group.levels,
                "variants": [summary.variant for summary in group.summaries],
            }
            for group in groups
        ],
    }


def _heat_maps(data: Report) -> list[dict[str, Any]]:
    return [
        {
            "environment": heat.env_id,
            "keys": [key.rpartition(".")[2] for key in heat.keys],
            "rows": [f"{level:g}" for level in heat.rows],
            "columns": [f"{level:g}" for level in heat.columns],
            "scores": [_numbers(row) for row in heat.scores],
            "runs": heat.runs.tolist(),
            "default": heat.default,
        }
        for heat in data.heat_maps
    ]


def _numbers(values: np.ndarray) -> list[float | int | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | int | None:
    """A number with as many digits as anyone can see, integers in full; None if it is not finite."""
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else float(f"{value:.5g}")
