"""Runs of seconds, in this process or in ones of their own, and what they computed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import on_top_of

from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import RunOutcome, train_run

SMALL = """env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 env.max_episode_steps=20
    rollout.steps_per_iteration=32 policy.hidden_sizes=[4] value.hidden_sizes=[4] value.epochs=1 checkpoint.every=2
    evaluation.every=0 tracking.wandb=disabled threads=1 total_iterations=4""".split()
TESTS = Path(__file__).parents[1]
EXPERIMENT = """
title: A small experiment
hypothesis: It runs.
minutes: 0.5
seeds: [0, 1, 2]
overrides:
  env: {id: CartPole-v1, backend: gymnasium, num_envs: 2, max_episode_steps: 20}
  rollout.steps_per_iteration: 64
  policy.hidden_sizes: [8]
  value.epochs: 1
  total_iterations: 6
  checkpoint.every: 2
  evaluation: {every: 5, episodes: 2}
  tracking.wandb: disabled
"""


def selected(*cases: Any, rest: list[Any]) -> list[Any]:
    """Cases for every test run, and the rest for `make test-faults`."""
    marked = [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.faults) for case in rest]
    return [*cases, *marked]


def train(run_dir: Path, *overrides: str, resume: bool = False) -> RunOutcome:
    settings = on_top_of(SMALL, list(overrides))
    return train_run(settings, run_dir, resume=resume, quiet=True)


def command_line(*arguments: str, cwd: Path | None = None, **variables: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    paths = os.pathsep.join([str(TESTS), str(TESTS / "faults"), str(TESTS.parent)])
    return subprocess.run(
        [sys.executable, "-m", "trpo_lightning", *arguments],
        env={**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variables},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def one_line_of(stderr: str) -> str:
    (line,) = stderr.splitlines()
    assert line.startswith("error: "), stderr
    return line


def newest(run_dir: Path) -> dict[str, Any]:
    return checkpoint.read(checkpoint.checkpoint_files(run_dir / "checkpoints")[0])


def rows_without_times(run_dir: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(run_dir / "metrics.csv")]


LEARNED = ("policy", "value_function", "value_optimizer", "rule", "normalizer", "iteration", "env_steps", "rejected")


def learned_hash(state: dict[str, Any]) -> str:
    """SHA-256 of all that a barrier holds of what was learned."""
    digest = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                feed(value[key])
        elif isinstance(value, list):
            for item in value:
                feed(item)
        elif isinstance(value, torch.Tensor):
            digest.update(str((value.dtype, tuple(value.shape))).encode() + value.contiguous().numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    feed({name: state[name] for name in LEARNED})
    return digest.hexdigest()


def assert_same_run(first: Path, second: Path) -> None:
    """The same numbers learned, and the same rows, none missing and none twice."""
    assert rows_without_times(first) == rows_without_times(second)
    iterations = [int(row["iteration"]) for row in rows_without_times(second)]
    assert iterations == list(range(1, len(iterations) + 1))
    assert learned_hash(newest(first)) == learned_hash(newest(second))
