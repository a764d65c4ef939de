"""Declared experiments and run directories with made-up curves."""

import base64
import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.experiment.declaration import Cell, Experiment
from trpo_lightning.experiment.runner import CellResult
from trpo_lightning.runs.config import write_config
from trpo_lightning.training.metrics import METRICS

ORIGIN = {
    "started": "2026-01-02T03:04:05+0000",
    "command": ["python", "-m", "trpo_lightning", "train"],
    "git": {"commit": "0123456789abcdef", "describe": "v1-2-g0123456", "diff_sha256": None},
    "trpo_lightning": "0.1.0",
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
    "machine": {"cpu": "A CPU", "platform": "Linux", "cores": 2, "host": "h"},
    "backend": "envpool",
    "threads": 1,
}


def experiment(folder: Path, **facts: Any) -> Experiment:
    values: dict[str, Any] = {
        "name": "made_up",
        "scale": "full",
        "file": folder / "experiments" / "made_up.yaml",
        "title": "A title",
        "hypothesis": "It learns.",
        "minutes": 1,
        "environments": ["Hopper-v5"],
        "seeds": [0, 1, 2],
        "overrides": {"total_env_steps": 1000},
    }
    return Experiment(**{**values, **facts})


def row(iteration: int, mean: float | str = "", count: float = 0, **more: Any) -> dict[str, Any]:
    values = {"iteration": iteration, "env_steps": iteration * 100, "time/steps_per_second": 1000.0 * iteration}
    return {**values, "episode/return_mean": mean, "episode/count": count, **more}


def learning(seed: int = 0, level: float = 100.0, iterations: int = 10) -> list[dict[str, Any]]:
    noise = np.random.default_rng(seed).normal(size=iterations)
    means = level * (1 - np.exp(-np.arange(1, iterations + 1) / 4)) + noise
    return [
        row(i + 1, float(mean), 30, **{"time/collect": 2.0, "time/steps_per_second": 50.0})
        for i, mean in enumerate(means)
    ]


def write_run(run_dir: Path, rows: list[dict[str, Any]] | None) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    if rows is not None:
        with open(run_dir / "metrics.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(METRICS), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def result(
    root: Path, cell: Cell, rows: list[dict[str, Any]] | None, state: str = "finished", origin: Any = ORIGIN
) -> CellResult:
    """A run as the runner leaves it; `rows` None is a run without a metrics file."""
    run_dir = root / cell.directory
    if state != "missing":
        write_run(run_dir, rows)
        write_config(cell.settings, run_dir / "config.yaml")
        (run_dir / "status.json").write_text(json.dumps({"state": state}))
        (run_dir / "provenance.json").write_text(json.dumps([origin]))
    return CellResult(cell, run_dir, state)


def finished(root: Path, declared: Experiment, levels: dict[str, float] | None = None) -> list[CellResult]:
    """All runs of an experiment, finished; `levels` are what a variant's curve rises to."""
    return [
        result(root, cell, learning(i, (levels or {}).get(cell.settings.name, 100.0)))
        for i, cell in enumerate(declared.cells())
    ]


def read_data(page: Path) -> dict[str, Any]:
    """What the figures of a page are drawn from."""
    found = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found.group(1))))
