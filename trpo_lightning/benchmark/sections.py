"""Sections about our own speed: the ceiling, parallel runs, startup, and where the seconds go."""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from trpo_lightning.benchmark.bench import RATE, Bench, threads_text
from trpo_lightning.benchmark.processes import finish, measure, own, start
from trpo_lightning.benchmark.results import Result, Target, ratio
from trpo_lightning.benchmark.training_runs import TrainingRun, train, train_together

INSIDE_COLLECT = ("simulator", "inference")


def ceiling(bench: Bench) -> list[Result]:
    """The whole training loop against the same environments with random actions."""
    cells: dict[tuple[str, int, str], Callable[[], float]] = {}
    for environment in bench.environments:
        for threads in bench.threads:
            cells[environment, threads, "environment alone"] = lambda e=environment, t=threads: _alone(bench, e, t)
            cells[environment, threads, "training"] = lambda e=environment, t=threads: train(
                bench.settings(e), t, bench.folder
            ).steps_per_second()
    rates = bench.rates(cells)
    results = []
    for environment in bench.environments:
        for threads in bench.threads:
            subject = f"{environment}, {threads_text(threads)}"
            alone, ours = (rates[environment, threads, name] for name in ("environment alone", "training"))
            target = Target(0.75 if threads == 1 else 0.65)
            results += [Result(subject, "environment alone", RATE, alone), Result(subject, "training", RATE, ours)]
            results.append(ratio(subject, "ceiling ratio", ours, alone, target))
    return results


def _alone(bench: Bench, environment: str, threads: int) -> float:
    arguments = {"env": environment, "num-envs": bench.num_envs, "steps": bench.steps, "threads": threads}
    return measure(own("environment_alone", *_options(arguments)), threads, bench.folder)["steps_per_second"]


def _options(values: dict[str, Any]) -> list[str]:
    return [item for key, value in values.items() for item in (f"--{key}", str(value))]


def experiments(bench: Bench) -> list[Result]:
    """Two runs side by side against one run alone, with one thread per run."""
    settings = bench.settings(bench.environments[0])
    cells: dict[str, Callable[[], float]] = {
        "one run alone": lambda: train(settings, 1, bench.folder).steps_per_second(),
        "two runs side by side": lambda: sum(
            run.steps_per_second() for run in train_together([settings, {**settings, "seed": 1}], 1, bench.folder)
        ),
    }
    rates = bench.rates(cells)
    subject = f"{bench.environments[0]}, 1 thread each"
    alone, both = rates["one run alone"], rates["two runs side by side"]
    return [
        *(Result(subject, name, RATE, values) for name, values in rates.items()),
        ratio(subject, "two runs / one run", both, alone, Target(1.8)),
    ]


MEMORIES = ("gru", "lstm")
UPDATE = ("gradient", "cg", "line_search")
"""The phases of a policy update."""


def memory(bench: Bench) -> list[Result]:
    """Policies and value functions with a memory against feed-forward ones, with the same sizes, on one thread."""
    environment = bench.environments[0]
    cells = {"feed-forward": lambda: train(bench.settings(environment), 1, bench.folder)}
    for name in MEMORIES:
        keys = {**bench.settings(environment), "policy.name": name, "value.name": name}
        del keys["value.minibatch_size"]  # there, minibatches are shares of the sequences
        cells[name] = lambda keys=keys: train(keys, 1, bench.folder)
    runs = bench.interleaved(cells, lambda run: f"{run.steps_per_second():,.0f} {RATE}")
    subject, results = f"{environment}, 1 thread", []
    for name, found in runs.items():
        update = tuple(sum(float(np.median(run.part(phase))) for phase in UPDATE) for run in found)
        fit = tuple(float(np.median(run.part("value_fit"))) for run in found)
        results.append(Result(subject, f"{name}, training", RATE, tuple(run.steps_per_second() for run in found)))
        results.append(Result(subject, f"{name}, policy update", "s", update))
        results.append(Result(subject, f"{name}, value fit", "s", fit))
    return results


def startup(bench: Bench) -> list[Result]:
    """Time of `--help`, and of a run until its first one-step iteration is in `metrics.csv`: after its first step."""
    environment, threads = bench.environments[0], max(bench.threads)
    one_step = bench.settings(environment, {"rollout.steps_per_iteration": bench.num_envs})

    def first_row() -> float:
        began = time.perf_counter()
        run = train({**one_step, "total_env_steps": 1}, threads, bench.folder, shortest=1)
        return run.first_row - began

    def show_help() -> float:
        began = time.perf_counter()
        finish(start([sys.executable, "-m", "trpo_lightning", "--help"], threads, bench.folder))
        return time.perf_counter() - began

    found = bench.interleaved({"--help": show_help, "train": first_row}, lambda v: f"{v:.2f} s")
    text = "train until its first step is recorded"
    return [
        Result("command line", "--help", "s", tuple(found["--help"]), Target(1.0, at_least=False)),
        Result(environment, text, "s", tuple(found["train"]), Target(6.0, at_least=False)),
    ]


def profile(bench: Bench) -> list[Result]:
    """Where the seconds of a run go, and whether its own timings add up to those of an outside clock."""
    environment, threads = bench.environments[0], max(bench.threads)
    subject = f"{environment}, {threads_text(threads)}"
    cells = {subject: lambda: train(bench.settings(environment), threads, bench.folder)}
    runs = bench.interleaved(cells, lambda run: f"{run.steps_per_second():,.0f} {RATE}")[subject]
    names = runs[0].parts() if runs else []
    results = [_share(subject, f"time/{name}", [run.part(name) for run in runs], runs) for name in INSIDE_COLLECT]
    inside = [run.part("collect") - sum(run.part(name) for name in INSIDE_COLLECT) for run in runs]
    results.append(_share(subject, "the rest of time/collect", inside, runs))
    others = [name for name in names if name != "collect"]
    results += [_share(subject, f"time/{name}", [run.part(name) for run in runs], runs) for name in others]
    deviations = []
    for run in runs:  # both from the appearance of the first row to that of the last but one
        recorded = sum(float(run.part(name)[1:-1].sum()) for name in names)
        deviations.append(100 * abs(recorded / (run.last_but_one - run.first_row) - 1))
    text = "sum of time/* against an outside clock, deviation"
    return [*results, Result(subject, text, "%", tuple(deviations), Target(3.0, at_least=False))]


def _share(subject: str, name: str, parts: list[np.ndarray], runs: list[TrainingRun]) -> Result:
    """The parts' share of each run's seconds, in percent."""
    shares = (100 * float(part.sum() / run.seconds.sum()) for part, run in zip(parts, runs, strict=True))
    return Result(subject, name, "%", tuple(shares))
