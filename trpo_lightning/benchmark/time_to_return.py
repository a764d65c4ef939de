"""How long it takes to reach a return: each library with the settings it recommends, until it gets there."""

import csv
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.benchmark import peer_environment
from trpo_lightning.benchmark.bench import Bench
from trpo_lightning.benchmark.comparisons import is_there
from trpo_lightning.benchmark.configurations import QUIET, ZOO, ZOO_BY_TASK
from trpo_lightning.benchmark.peer_environment import SB3, TIANSHOU
from trpo_lightning.benchmark.processes import MeasurementError, finish, start
from trpo_lightning.benchmark.results import Result
from trpo_lightning.benchmark.training_runs import run_command
from trpo_lightning.report.records import iteration_seconds, numeric_columns
from trpo_lightning.runs.metrics_file import read_rows

LEVELS = {"Hopper-v5": 2000.0, "HalfCheetah-v5": 2000.0, "Walker2d-v5": 2000.0, "InvertedDoublePendulum-v5": 9000.0}
"""The return to reach in each task."""
EPISODES = 20
"""A level is reached when the mean of so many training episodes in a row, sampled actions, is at least as high."""
POLL = 0.5
"""Seconds between two looks at a run."""
OURS = "ours, defaults"


@dataclass(frozen=True)
class Progress:
    """Training episodes that ended together: seconds and env steps since the start, their number, their mean return."""

    seconds: float
    steps: float
    episodes: float
    mean: float


@dataclass(frozen=True)
class Arrival:
    """When a run reached its level; if it never did, how long it went on."""

    seconds: float
    steps: float
    reached: bool


def time_to_return(bench: Bench) -> list[Result]:
    """Seconds and env steps to a return, each library with its own settings, one thread per run."""
    levels = {env_id: level for env_id, level in LEVELS.items() if env_id in bench.peer_environments} or LEVELS
    programs: dict[str, Callable[[str, int], Arrival]] = {OURS: lambda env_id, seed: _ours(bench, env_id, seed)}
    programs |= {p.name: _peer(bench, p) for p in (SB3, TIANSHOU) if is_there(bench, p)}
    results = []
    for env_id, level in levels.items():
        found: dict[str, list[Arrival]] = {name: [] for name in programs}
        for seed in range(bench.return_seeds):
            for name, program in programs.items():
                try:
                    found[name].append(program(env_id, seed))
                except MeasurementError as error:
                    bench.note(f"{name} on {env_id}, seed {seed}, was not measured: {error}")
                    continue
                bench.say(f"  {env_id}, seed {seed}, {name}: {_told(found[name][-1])}")
        results += _results(bench, f"{env_id} to {level:,.0f}", found)
    return results


def _told(arrival: Arrival) -> str:
    return f"{arrival.seconds:,.0f} s, {arrival.steps:,.0f} steps" + ("" if arrival.reached else ", not reached")


def _results(bench: Bench, subject: str, found: dict[str, list[Arrival]]) -> list[Result]:
    """Seconds and steps of each library; a run that never arrives counts with all that it did, and a note says so."""
    for name, arrivals in found.items():
        never = sum(not arrival.reached for arrival in arrivals)
        if never:
            bench.note(
                f"{subject}: {never} of {len(arrivals)} runs of {name} did not get there within "
                f"{bench.return_steps:,} steps; their numbers are lower bounds"
            )
    return [
        Result(subject, f"{quantity}, {name}", unit, tuple(getattr(arrival, attribute) for arrival in arrivals))
        for quantity, unit, attribute in (("time", "s", "seconds"), ("env steps", "steps", "steps"))
        for name, arrivals in found.items()
    ]


def arrival(progress: list[Progress], level: float) -> Arrival:
    """The first point at which the last `EPISODES` episodes, or the points that hold so many, reach the level."""
    for end in range(1, len(progress) + 1):
        count = total = 0.0
        for point in reversed(progress[:end]):
            count, total = count + point.episodes, total + point.episodes * point.mean
            if count >= EPISODES:
                break
        if count >= EPISODES and total / count >= level:
            return Arrival(progress[end - 1].seconds, progress[end - 1].steps, True)
    last = progress[-1] if progress else Progress(0.0, 0.0, 0.0, 0.0)
    return Arrival(last.seconds, last.steps, False)


def _run_until(bench: Bench, command: list[str], read: Callable[[], list[Progress]], level: float) -> Arrival:
    """Run a program until its progress reaches the level, then stop it."""
    process = start(command, 1, bench.folder)
    try:
        while process.poll() is None:
            reached = arrival(read(), level)
            if reached.reached:
                return reached
            time.sleep(POLL)
        finish(process)
    finally:
        _stop(process)
    return arrival(read(), level)


def _stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


def _ours(bench: Bench, env_id: str, seed: int) -> Arrival:
    run_dir = bench.folder / f"ours_{env_id}_{seed}"
    settings = {**QUIET, "env.id": env_id, "seed": seed, "threads": 1, "total_env_steps": bench.return_steps}

    command = run_command(settings, run_dir)
    try:
        return _run_until(bench, command, lambda: _iterations(run_dir / "metrics.csv"), LEVELS[env_id])
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def _iterations(file: Path) -> list[Progress]:
    """The iterations of ours, so far, in which episodes ended."""
    columns = numeric_columns(read_rows(file), file)
    if not columns:
        return []
    seconds = np.cumsum(np.nan_to_num(iteration_seconds(columns)))
    points = zip(
        seconds, *(columns[name] for name in ("env_steps", "episode/count", "episode/return_mean")), strict=True
    )
    return [Progress(*map(float, point)) for point in points if point[2] > 0]


def _peer(bench: Bench, peer: peer_environment.Peer) -> Callable[[str, int], Arrival]:
    def program(env_id: str, seed: int) -> Arrival:
        file = bench.folder / f"{peer.script}_{env_id}_{seed}.csv"
        options: dict[str, Any] = {"num_envs": 16, "steps_per_iteration": 1024}  # Tianshou's example
        if peer is SB3:
            options = {**ZOO, **ZOO_BY_TASK.get(env_id, {})}
        iterations = -(-bench.return_steps // options["steps_per_iteration"])
        options |= {"env": env_id, "seed": seed, "threads": 1, "warmup": 0, "iterations": iterations, "episodes": file}
        command = peer_environment.command(peer, bench.peers, **options)
        return _run_until(bench, command, lambda: _episodes(file), LEVELS[env_id])

    return program


def _episodes(file: Path) -> list[Progress]:
    """The episodes that a peer's script has written so far, without a torn last line."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    return [Progress(float(seconds), float(steps), 1.0, float(value)) for seconds, steps, value in lines]
