"""Runs of `train` in separate processes, and the timings in their metrics."""

import itertools
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.benchmark.configurations import WARMUP, overrides
from trpo_lightning.benchmark.processes import MeasurementError, finish, start
from trpo_lightning.report.records import PARTS_OF_COLLECT, Columns, numeric_columns, score_of
from trpo_lightning.runs.metrics_file import read_rows

POLL = 0.02
"""Seconds between two looks at `metrics.csv`."""
_numbers = itertools.count()


@dataclass(frozen=True)
class TrainingRun:
    """A finished run: its metrics, and when its first row and its last but one appeared, by the reader's clock.

    The last row is unusable: rows that wait for a fit appear an iteration late, but the last one does not.
    """

    columns: Columns
    first_row: float
    last_but_one: float

    @property
    def steps(self) -> np.ndarray:
        """Env steps in each iteration."""
        return np.diff(self.columns["env_steps"], prepend=0.0)

    @property
    def seconds(self) -> np.ndarray:
        """Wall-clock seconds of each iteration."""
        return self.steps / self.columns["time/steps_per_second"]

    def steps_per_second(self, warmup: int = WARMUP) -> float:
        """Env steps per second after the first `warmup` iterations, including everything between iterations."""
        return float(self.steps[warmup:].sum() / self.seconds[warmup:].sum())

    def part(self, name: str) -> np.ndarray:
        """A `time/` metric of each iteration; 0 where it is missing."""
        return np.nan_to_num(self.columns.get(f"time/{name}", np.zeros(len(self.steps))))

    def parts(self) -> list[str]:
        """The `time/` metrics that should add up to the wall clock."""
        names = [name for name in self.columns if name.startswith("time/") and name != "time/steps_per_second"]
        return [name.removeprefix("time/") for name in names if name not in PARTS_OF_COLLECT]

    def final_return(self) -> float:
        """Mean raw return of the last 100 training episodes."""
        return score_of(self.columns, "last_episodes")


def run_command(settings: dict[str, Any], run_dir: Path) -> list[str]:
    """The command line of one run."""
    program = [sys.executable, "-m", "trpo_lightning", "train", "--quiet", "--run-dir", str(run_dir)]
    return [*program, *overrides(settings)]


def train(settings: dict[str, Any], threads: int, folder: Path, shortest: int = WARMUP + 1) -> TrainingRun:
    """Do one run of `train` with `threads` threads and remove its directory.

    Raises `MeasurementError` if the run fails or has fewer than `shortest` iterations.
    """
    return train_together([settings], threads, folder, shortest)[0]


def train_together(
    all_settings: list[dict[str, Any]], threads: int, folder: Path, shortest: int = WARMUP + 1
) -> list[TrainingRun]:
    """Do several runs at once, each with `threads` threads of its own, started at the same time."""
    folders = [folder / f"run_{next(_numbers)}" for _ in all_settings]
    processes = [
        start(run_command({**settings, "threads": threads}, run_dir), threads, folder)
        for settings, run_dir in zip(all_settings, folders, strict=True)
    ]
    try:
        seen = _watch(processes, [run_dir / "metrics.csv" for run_dir in folders])
        for process in processes:
            finish(process)
        return [_read(run_dir, shortest, *times) for run_dir, times in zip(folders, seen, strict=True)]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for run_dir in folders:
            shutil.rmtree(run_dir, ignore_errors=True)


def _watch(processes: list["subprocess.Popen[str]"], files: list[Path]) -> list[tuple[float, float]]:
    """Wait for all processes to end; returns when the first row of each file and the last but one appeared."""
    headers: dict[Path, int] = {}
    sizes: dict[Path, int] = {}
    times: dict[Path, list[float]] = {file: [] for file in files}
    running = True
    while running:
        running = any(process.poll() is None for process in processes)
        for file in files:
            size = file.stat().st_size if file.exists() else 0
            if size and file not in headers:
                headers[file] = sizes[file] = len(file.read_bytes().partition(b"\n")[0]) + 1
            if size > sizes.get(file, size):
                sizes[file] = size
                times[file].append(time.perf_counter())
        if running:
            time.sleep(POLL)
    return [(seen[0], seen[max(0, len(seen) - 2)]) if seen else (float("nan"), float("nan")) for seen in times.values()]


def _read(run_dir: Path, shortest: int, first_row: float, last_but_one: float) -> TrainingRun:
    file = run_dir / "metrics.csv"
    rows = read_rows(file)
    if len(rows) < shortest:
        raise MeasurementError(f"a run of {len(rows)} iterations is too short: take more steps")
    return TrainingRun(numeric_columns(rows, file), first_row, last_but_one)
