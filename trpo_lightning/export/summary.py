"""What a run directory says about its policy: score, curve, origin."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.report.records import Columns, numeric_columns, pairs, read_provenance
from trpo_lightning.runs.files import EVALUATIONS
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.training.evaluation import episodes_now
from trpo_lightning.training.trained_policy import TrainedPolicy


@dataclass(frozen=True)
class Score:
    """Returns of a policy.

    Args:
        mean: Their mean.
        std: Their standard deviation; None if only the mean is known.
        episodes: How many; None if unknown.
        source: Where they come from, as the end of a sentence.
    """

    mean: float
    std: float | None
    episodes: int | None
    source: str

    @property
    def text(self) -> str:
        """The mean, with the standard deviation where it is known, as hubs for models write it."""
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} +/- {self.std:.2f}"


@dataclass(frozen=True)
class RunSummary:
    """Scores by kind of policy (`deterministic`, `stochastic`), metrics, and the entry of the run's last start."""

    scores: Mapping[str, Score]
    columns: Columns
    provenance: Mapping[str, Any]


def run_summary(run_dir: Path, trained: TrainedPolicy) -> RunSummary:
    """Read them; each may be missing. Raises `UserError` for a file that is there and cannot be read."""
    rows = read_rows(run_dir / "metrics.csv") if run_dir.is_dir() else []
    columns = numeric_columns(rows, run_dir / "metrics.csv")
    entries = read_provenance(run_dir / "provenance.json") if run_dir.is_dir() else []
    scores = _evaluated(run_dir, trained) or _during_training(columns, trained)
    return RunSummary(scores, columns, entries[-1] if entries else {})


def _evaluated(run_dir: Path, trained: TrainedPolicy) -> dict[str, Score]:
    """What `evaluate` found of this policy, if it did; where it is the last and the best one, the newer file counts."""
    found: dict[str, Score] = {}
    files = [file for name in EVALUATIONS.values() if (file := run_dir / name).is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns):
        with suppress(OSError, ValueError, LookupError, TypeError):
            summary = json.loads(file.read_text(encoding="utf-8"))
            if summary["env_steps"] == trained.env_steps:
                for kind in ("deterministic", "stochastic"):
                    returns = np.array(summary[kind]["returns"], dtype=np.float64)
                    source = f"`evaluate`, {len(returns)} episodes, seed {summary['seed']}"
                    found[kind] = Score(float(returns.mean()), float(returns.std()), len(returns), source)
    return found


def _during_training(columns: Columns, trained: TrainedPolicy) -> dict[str, Score]:
    """The evaluation that training made of this policy, or the last one before it."""
    found = {}
    names = {"deterministic": "evaluation/return_mean", "stochastic": "evaluation/return_mean_stochastic"}
    for kind, name in names.items():
        steps, values = pairs(columns, name)
        until = np.flatnonzero(steps <= trained.env_steps)
        if len(until):
            at = int(steps[until[-1]])
            iteration = int(columns["iteration"][np.searchsorted(columns["env_steps"], at)])
            episodes = episodes_now(trained.settings, iteration, at)
            when = "" if at == trained.env_steps else f", at {at:,} env steps"
            source = f"evaluation during training{when}, {episodes} episodes"
            found[kind] = Score(float(values[until[-1]]), None, episodes, source)
    return found
