"""A small experiment for clusters, and what its runs must look like in the end."""

import json
import sys
import time
from pathlib import Path

from trpo_lightning.experiment.declaration import Cell, load_experiment
from trpo_lightning.experiment.progress import ProgressView
from trpo_lightning.experiment.runner import CellResult
from trpo_lightning.runs.run import train_run

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from small_runs import EXPERIMENT, assert_same_run

SLOW = ["env.id=slow_environments:SlowCartPole", "total_iterations=30"]
"""Runs that take a while if `SECONDS_PER_STEP` says so."""


def declare(folder: Path) -> None:
    (folder / "experiments").mkdir()
    (folder / "experiments" / "small.yaml").write_text(EXPERIMENT)


def cells(*arguments: str) -> list[Cell]:
    return load_experiment("small").cells([*arguments])


def states(results: list[CellResult]) -> list[str]:
    return [result.state for result in results]


def starts(run_dir: Path) -> list[int | None]:
    """From which iteration each of a run's processes went on."""
    return [part["resumed_from_iteration"] for part in json.loads((run_dir / "provenance.json").read_text())]


def assert_bits_of_a_local_run(result: CellResult, monkeypatch) -> None:
    monkeypatch.delenv("SECONDS_PER_STEP", raising=False)
    straight = result.run_dir.with_name(f"{result.run_dir.name}.straight")
    train_run(result.cell.settings, straight, quiet=True)
    assert_same_run(straight, result.run_dir)


def barriers(run_dir: Path) -> int:
    return len(list(run_dir.glob("checkpoints/barrier_*.ckpt")))


def do_when(monkeypatch, condition, deed) -> list:
    """Do a deed once in the runner's loop, as soon as the runs that it watches fulfil a condition."""
    update, done = ProgressView.update, []

    def watch(view, run_dirs):
        update(view, run_dirs)
        if not done and condition(run_dirs):
            done.append(deed())

    monkeypatch.setattr(ProgressView, "update", watch)
    return done


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
