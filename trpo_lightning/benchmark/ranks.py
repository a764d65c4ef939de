"""The section about one run in several processes: two ranks measured, and more of them calculated."""

import itertools
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from trpo_lightning.benchmark.bench import RATE, Bench
from trpo_lightning.benchmark.configurations import WARMUP
from trpo_lightning.benchmark.processes import MeasurementError, measure, own
from trpo_lightning.benchmark.results import Result, ratio
from trpo_lightning.benchmark.scaling_model import NUMBER, Network, Work, least_steps
from trpo_lightning.benchmark.training_runs import TrainingRun, train

UPDATE = ("advantages", "gradient", "cg", "line_search", "value_fit")
SIZES = (1, 2**12, 2**16, 2**20)
"""Numbers in the all-reduces that are measured."""
RANKS = (8, 32, 128, 512)
CLUSTER = Network(latency=30e-6, bandwidth=1.25e9)
"""An assumption, not a measurement: 10 Gbit/s Ethernet with 30 microseconds a message."""
STEPS = 2048
"""Steps on each rank, of which the efficiency is calculated."""
MINIBATCH = 256
ENOUGH = 0.8


def ranks(bench: Bench) -> list[Result]:
    """One run in one and in two processes, one thread each; from their costs, what 8 to 512 ranks would do."""
    environment = bench.environments[0]
    settings = bench.settings(environment)
    cells: dict[str, Callable[[], TrainingRun]] = {
        f"{name}, 1 thread each": lambda n=n: train({**settings, "devices": n}, n, bench.folder)
        for n, name in ((1, "1 rank"), (2, "2 ranks"))
    }
    runs = bench.interleaved(cells, lambda run: f"{run.steps_per_second():,.0f} {RATE}")
    subject = f"{environment}, {settings['rollout.steps_per_iteration']:,} steps"
    rates = {name: tuple(run.steps_per_second() for run in found) for name, found in runs.items()}
    results = [Result(subject, name, RATE, values) for name, values in rates.items()]
    one, two = rates.values()
    results.append(ratio(subject, "2 ranks / 1 rank", two, one, None))
    for name, found in runs.items():
        results.append(Result(subject, f"update, {name}", "ms", tuple(1e3 * _update(run) for run in found)))
    told = tuple(1e3 * _median(run, "ranks/seconds") for run in list(runs.values())[1])
    results.append(Result(subject, "of it exchanges and waits of 2 ranks, a whole iteration", "ms", told))
    measured, found = _all_reduces(bench)
    results += measured
    if found is not None and one:
        alone, steps = next(iter(runs.values())), settings["rollout.steps_per_iteration"]
        fit = statistics.median(_fit(run) for run in alone) / steps
        results += _calculated(found, statistics.median(one), fit, environment)
    return results


def _median(run: TrainingRun, column: str) -> float:
    return statistics.median(run.columns[column][WARMUP:].tolist())


def _update(run: TrainingRun) -> float:
    """Seconds of an iteration's phases after the rollout, their median."""
    return statistics.median(np.sum([run.part(name) for name in UPDATE], axis=0)[WARMUP:].tolist())


def _fit(run: TrainingRun) -> float:
    """Seconds of an iteration's fit of the value function, their median."""
    return statistics.median(run.part("value_fit")[WARMUP:].tolist())


def _all_reduces(bench: Bench) -> tuple[list[Result], Network | None]:
    """All-reduces between two processes, and the network that they are: its latency and bandwidth."""
    arguments = ("--sizes", ",".join(map(str, SIZES)), "--calls", 50)
    try:
        found = [measure(own("rank_costs", *arguments), 1, bench.folder) for _ in range(bench.repeats)]
    except MeasurementError as error:
        bench.note(f"all-reduces were not measured: {error}")
        return [], None
    seconds: dict[int, Any] = {size: tuple(repeat[str(size)] for repeat in found) for size in SIZES}
    results = [
        Result("2 processes, Gloo", f"all-reduce of {size:,} numbers", "ms", tuple(1e3 * s for s in values))
        for size, values in seconds.items()
    ]
    latency, largest = (statistics.median(seconds[size]) for size in (SIZES[0], SIZES[-1]))
    return results, Network(latency, NUMBER * SIZES[-1] / max(largest - latency, 1e-9))


def _calculated(measured: Network, rate: float, fit: float, environment: str) -> list[Result]:
    """Efficiencies of more ranks, and the least batch with which they keep 80 %."""
    module = _module(environment)
    policy, value = (sum(x.numel() for x in part.parameters()) for part in (module.policy, module.value_function))
    row = math.prod(module.spec.observation_shape) + 1
    work = Work(1.0 / rate, policy=policy, value=value, fit_per_step=fit, row=row)
    networks = (("as between processes here", measured), ("10 Gbit/s, 30 us (assumed)", CLUSTER))
    shares: tuple[tuple[str, Callable[[int], float]], ...] = (
        ("256 on each rank", lambda ranks: float(MINIBATCH)),
        ("256 in all", lambda ranks: MINIBATCH / ranks),
    )
    results = []
    for (name, network), (text, minibatch), number in itertools.product(networks, shares, RANKS):
        efficiency = partial(work.efficiency, network, number, minibatch=minibatch(number))
        subject, percent = f"calculated: {name}, minibatch {text}", 100.0 * efficiency(STEPS)
        results.append(Result(subject, f"efficiency of {number} ranks, {STEPS:,} steps each", "%", (percent,)))
        least = least_steps(efficiency, ENOUGH)
        enough = f"steps on each rank for 80 % with {number} ranks"
        results.append(Result(subject, enough, "steps", () if least is None else (float(least),)))
    return results


def _module(environment: str) -> Any:
    from trpo_lightning.benchmark.configurations import NETWORKS
    from trpo_lightning.settings import RunSettings, updated
    from trpo_lightning.training.module import TRPO

    return TRPO(settings=updated(RunSettings(), {**NETWORKS, "env.id": environment}))
