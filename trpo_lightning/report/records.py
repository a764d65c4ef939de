"""The record of a run: its metrics as columns, its score, its cost and its provenance."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.experiment.runner import CellResult
from trpo_lightning.runs.config import recorded_settings
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.settings import RunSettings, changed_keys, covers
from trpo_lightning.training.metrics import METRICS, TEXT_METRICS

EPISODES_IN_SCORE = 100
PARTS_OF_COLLECT = ("time/simulator", "time/inference")
"""Timings that `time/collect` already includes."""
STRETCH = 50_000
"""Env steps over which training returns are averaged when looking for a fall."""
FINISHED = "finished"
UNFINISHED = "unfinished"
"""State of a run that finished a smaller budget than is now declared: the next `experiment` call continues it."""

Columns = dict[str, np.ndarray]
"""A run's metrics by name, each `[iterations]`, NaN where there is no number."""


@dataclass(frozen=True)
class Record:
    """One run, declared or from elsewhere; all numbers of a run without rows are NaN.

    `score` is the number that the experiment's `score` key selects, `evaluation` the last deterministic evaluation;
    `reasons` counts rejected updates by reason. `notes` say what a reader must know before believing the numbers.
    """

    env_id: str
    variant: str
    seed: int
    state: str
    run_dir: Path | None
    levels: dict[str, Any] = field(default_factory=dict)
    columns: Columns = field(default_factory=dict)
    score: float = float("nan")
    provenance: list[dict[str, Any]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run has finished and counts in statistics."""
        return self.state == FINISHED

    @property
    def name(self) -> str:
        """Environment, variant and seed in one line."""
        return f"{self.env_id} {self.variant} seed {self.seed}"

    @property
    def evaluation(self) -> float:
        """Mean return of the last evaluation of the deterministic policy."""
        return score_of(self.columns, "last_evaluation")

    @property
    def final_over_best(self) -> float:
        """How much of the run's best evaluation the last one kept, at most 1 (see `kept`)."""
        return kept(self.evaluation, score_of(self.columns, "best_evaluation"))

    @property
    def worst_stretch(self) -> float:
        """What the largest fall in training left of the return before it (see the function `worst_stretch`)."""
        return worst_stretch(self.columns)

    @property
    def env_steps(self) -> int:
        """Env steps in the last row."""
        steps = _finite(self.columns, "env_steps")
        return int(steps[-1]) if len(steps) else 0

    @property
    def steps_per_second(self) -> float:
        """Env steps per second, the median over iterations."""
        rates = _finite(self.columns, "time/steps_per_second")
        return float(np.median(rates)) if len(rates) else float("nan")

    @property
    def wall_seconds(self) -> float:
        """Seconds of all iterations together, without those whose rows were dropped on resume."""
        seconds = iteration_seconds(self.columns)
        return float(np.nansum(seconds)) if np.isfinite(seconds).any() else float("nan")

    def recent_returns(self) -> tuple[np.ndarray, np.ndarray]:
        """Env steps, and the mean return of the last `EPISODES_IN_SCORE` episodes there, once there are as many."""
        steps, means, counts = (
            self.columns.get(name, np.empty(0)) for name in ("env_steps", "episode/return_mean", "episode/count")
        )
        ended = np.isfinite(means) & (counts > 0) if len(means) == len(steps) == len(counts) else np.zeros(0, bool)
        steps, means, counts = (x[: len(ended)][ended] for x in (steps, means, counts))
        sums, ends = np.cumsum([0.0, *(means * counts)]), np.cumsum([0.0, *counts])
        firsts = np.searchsorted(ends, ends[1:] - EPISODES_IN_SCORE, side="right") - 1
        known = ends[1:] >= EPISODES_IN_SCORE
        places = np.flatnonzero(known)
        returns = (sums[places + 1] - sums[firsts[places]]) / (ends[places + 1] - ends[firsts[places]])
        return steps[places], returns

    def curve(self, metric: str, x: str = "env_steps") -> tuple[np.ndarray, np.ndarray]:
        """The values of `x` (env_steps or iteration) and of the metric, at the iterations that have both."""
        return pairs(self.columns, metric, x)


def kept(final: float, best: float) -> float:
    """`final / best` if the best return is positive, else `best / final`; NaN if unknown.

    So 1 means "as good as ever or better", and less is worse: 200 after 400 and -400 after -200 are both 0.5. A
    negative final return after a positive best gives a negative number.
    """
    if final >= best:
        return 1.0
    return final / best if best > 0 else best / final + 0.0  # turns -0 into 0


def worst_stretch(columns: Columns, length: int = STRETCH) -> float:
    """The smallest share that a stretch of `length` env steps kept of the best stretch that ended before it began.

    The return of a stretch is the mean over the training episodes that ended in it. NaN if no stretch has another
    before it.
    """
    steps, means, counts = (columns.get(n, np.empty(0)) for n in ("env_steps", "episode/return_mean", "episode/count"))
    known = np.isfinite(means) & (counts > 0) if len(means) == len(steps) == len(counts) else np.zeros(0, dtype=bool)
    steps, means, counts = (x[: len(known)][known] for x in (steps, means, counts))
    firsts = np.searchsorted(steps, steps - length, side="right")  # first iteration of the stretch that ends with each
    sums, ends = np.cumsum([0.0, *(means * counts)]), np.cumsum([0.0, *counts])
    returns = np.array([(sums[i + 1] - sums[f]) / (ends[i + 1] - ends[f]) for i, f in enumerate(firsts)])
    whole = np.flatnonzero(steps >= length)
    ratios = [kept(returns[i], returns[whole[0] : firsts[i]].max()) for i in whole if firsts[i] > whole[0]]
    return min(ratios, default=float("nan"))


def iteration_seconds(columns: Columns) -> np.ndarray:
    """Wall-clock seconds of each iteration: its env steps over `time/steps_per_second`, which includes everything.

    Where that is unknown, the sum of the parts that do not overlap; NaN where those are missing too.
    """
    steps = columns.get("env_steps", np.empty(0))
    rates = columns.get("time/steps_per_second", np.full(len(steps), np.nan))
    parts = [columns[name] for name in disjoint_parts(columns) if name in METRICS]
    summed = np.nansum(parts, axis=0) if parts else np.full(len(steps), np.nan)
    if len(rates) != len(steps):
        return summed
    worked = np.diff(steps, prepend=0.0)
    known = np.isfinite(rates) & (rates > 0) & (worked > 0)
    return np.where(known, worked / np.where(known, rates, 1.0), summed)


def disjoint_parts(columns: Columns) -> list[str]:
    """The `time/` columns in seconds, without those that another of them includes."""
    times = [name for name in columns if name.startswith("time/") and not name.endswith("per_second")]
    return [name for name in times if name not in PARTS_OF_COLLECT]


def score_definition(score: str, metric: str) -> str:
    """A sentence that says what a score is."""
    return {
        "last_episodes": f"mean return of the last {EPISODES_IN_SCORE} training episodes (sampled actions, raw "
        "rewards; whole iterations from the end until they hold so many)",
        "last_iteration": f"{metric} of the last iteration that has it",
        "lifetime": f"mean of {metric} over the env steps of the whole run (trapezoidal rule), beginning included",
        "last_evaluation": "mean return of the last evaluation during training (deterministic policy)",
        "best_evaluation": "MAXIMUM over training of the evaluations' means (deterministic policy): biased upwards",
    }[score]


def score_of(columns: Columns, score: str, metric: str = "episode/return_mean") -> float:
    """A run's score, computed from its columns; NaN if they hold no data for it."""
    if score == "last_episodes":
        return _last_episodes(columns)
    if score == "last_iteration":
        return float(values[-1]) if len(values := _finite(columns, metric)) else float("nan")
    if score == "lifetime":
        steps, values = pairs(columns, metric)
        if len(steps) < 2 or steps[-1] == steps[0]:
            return float(values.mean()) if len(values) else float("nan")
        area = np.sum(np.diff(steps) * (values[1:] + values[:-1]) / 2)
        return float(area / (steps[-1] - steps[0]))
    evaluations = _finite(columns, "evaluation/return_mean")
    if len(evaluations) == 0:
        return float("nan")
    return float(evaluations[-1] if score == "last_evaluation" else evaluations.max())


def read_record(result: CellResult, experiment: Experiment) -> Record:
    """Read the record of a declared run. Raises `UserError` naming a file that cannot be read."""
    settings = result.cell.settings
    rows = read_rows(result.run_dir / "metrics.csv")
    columns = numeric_columns(rows, result.run_dir / "metrics.csv")
    state, notes = _judge(result, settings)
    return Record(
        env_id=settings.env.id,
        variant=settings.name,
        seed=settings.seed,
        state=state,
        run_dir=result.run_dir,
        levels=result.cell.levels,
        columns=columns,
        score=score_of(columns, experiment.score, experiment.metric),
        provenance=read_provenance(result.run_dir / "provenance.json"),
        reasons=dict(Counter(row["update/rejection_reason"] for row in rows if row.get("update/rejection_reason"))),
        notes=notes,
    )


def numeric_columns(rows: list[dict[str, str]], file: Path | str) -> Columns:
    """Convert rows of text to columns of numbers; columns of text are left out.

    Raises `UserError` for text that should be a number: in a metric of this package, or in a column with numbers.
    """
    names = [name for name in (rows[0] if rows else {}) if name not in TEXT_METRICS]
    columns = {}
    for name in names:
        try:
            columns[name] = np.array([float(row[name] or "nan") for row in rows])
        except ValueError as error:
            if name not in METRICS and not any(_is_number(row[name]) for row in rows):
                continue  # a text column that is not ours
            raise UserError(f"{file}: column {name}: {error}") from error
    return columns


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_provenance(file: Path) -> list[dict[str, Any]]:
    """Read `provenance.json`, an entry for each start of the run; empty if there is no file."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{file}: is not a list with an entry for each start of the run")
    return entries


def _judge(result: CellResult, settings: RunSettings) -> tuple[str, tuple[str, ...]]:
    """The state of a run, and notes on how it differs from its present declaration."""
    if not (result.run_dir / "config.yaml").is_file():
        return result.state, ()
    before = recorded_settings(result.run_dir)
    changed = changed_keys(before, settings)
    notes = (f"ran with other settings than declared now: {', '.join(changed)}",) if changed else ()
    if result.state != FINISHED or covers(before, settings):
        return result.state, notes
    if before.total_env_steps < settings.total_env_steps:
        done, declared, unit = before.total_env_steps, settings.total_env_steps, "env steps"
    else:
        done, declared, unit = before.total_iterations, settings.total_iterations, "iterations"
    wanted = "all" if declared is None else f"the {declared:,}"
    return UNFINISHED, (*notes, f"finished {done:,} of {wanted} {unit} declared now")


def _last_episodes(columns: Columns) -> float:
    """Mean return of the last episodes, each iteration weighted by its number of episodes."""
    means, counts = (columns.get(f"episode/{name}", np.empty(0)) for name in ("return_mean", "count"))
    ended = np.isfinite(means) & (counts > 0)
    means, counts = means[ended][::-1], counts[ended][::-1]
    if len(means) == 0:
        return float("nan")
    last = int(np.searchsorted(np.cumsum(counts), EPISODES_IN_SCORE)) + 1
    return float(np.average(means[:last], weights=counts[:last]))


def _finite(columns: Columns, name: str) -> np.ndarray:
    values = columns.get(name, np.empty(0))
    return values[np.isfinite(values)]


def pairs(columns: Columns, metric: str, x: str = "env_steps") -> tuple[np.ndarray, np.ndarray]:
    """`x` and the metric, where both are known."""
    places = columns.get(x, np.empty(0))
    values = columns.get(metric, np.full(len(places), np.nan))
    if len(places) != len(values):  # a curve from elsewhere without iteration numbers
        return np.empty(0), np.empty(0)
    known = np.isfinite(values) & np.isfinite(places)
    return places[known], values[known]
