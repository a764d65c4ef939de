"""Sections about growing work: the update's cost, larger batches, more environments, larger policies, a GPU."""

import statistics
from typing import Any

from trpo_lightning.benchmark.bench import RATE, Bench, threads_text
from trpo_lightning.benchmark.processes import MeasurementError, measure, own
from trpo_lightning.benchmark.results import Result, Target, linear_deviation, ratio
from trpo_lightning.benchmark.training_runs import train

CHEAP_ENVIRONMENT = "Pendulum-v1"
"""The environment for growing batches: its simulation costs almost nothing, so the other costs show."""
SMALLEST_BATCH = 2**11
ENVIRONMENT_COUNTS = (10, 32, 100, 316, 1000)
HIDDEN_SIZES = (90, 310, 995, 3155)
"""Layer widths: two layers have about 10k, 100k, 1M and 10M parameters on Hopper-v5."""
REUSED_BATCHES = (1, 2, 4, 8)
ITERATIONS = 3
"""Iterations measured for each size, after one that does not count."""
CALLS = 20


def update(bench: Bench) -> list[Result]:
    """Costs of the update's parts in multiples of one surrogate gradient, and the framework's own overhead."""
    environment, threads = bench.environments[0], max(bench.threads)
    rows = bench.settings(environment)["rollout.steps_per_iteration"]
    arguments = ("--task", "parts", "--env", environment, "--rows", rows, "--threads", threads, "--calls", CALLS)
    cells: dict[str, Any] = {
        "update": lambda: measure(own("update_costs", *arguments), threads, bench.folder),
        "overhead": lambda: train(bench.settings(environment), threads, bench.folder),
    }
    found = bench.interleaved(cells, lambda value: "done")
    subject = f"{environment}, {rows:,} steps, {threads_text(threads)}"
    names = ("gradient", "fisher_vector_product", "update")
    medians = {name: tuple(statistics.median(costs[name]) for costs in found["update"]) for name in names}
    overheads = tuple(1e3 * float(statistics.median(run.part("overhead")[1:])) for run in found["overhead"])
    texts = ("surrogate gradient", "Fisher-vector product", "whole policy update (CG 10, Fisher on 10 %)")
    results = [
        Result(subject, text, "ms", tuple(1e3 * value for value in medians[name]))
        for name, text in zip(names, texts, strict=True)
    ]
    for name, text, limit in (("fisher_vector_product", texts[1], 2.5), ("update", texts[2], 6.0)):
        target = Target(limit, at_least=False)
        results.append(ratio(subject, f"{text} / gradient", medians[name], medians["gradient"], target))
    overhead = Result(
        subject, "framework overhead of an iteration (median)", "ms", overheads, Target(5.0, at_least=False)
    )
    return [*results, overhead]


def growth(bench: Bench) -> list[Result]:
    """Batches from 2k steps up, 10 to 1000 environments, policies of 10k to 10M parameters, peak memory."""
    return [*_batches(bench), *_memory(bench), *_environments(bench), *_policies(bench)]


def _batches(bench: Bench) -> list[Result]:
    results, sizes = [], []
    size = SMALLEST_BATCH
    while size <= bench.max_batch:
        sizes.append(size)
        size *= 4 if 4 * size <= bench.max_batch or size == bench.max_batch else max(2, bench.max_batch // size)
    subject = f"{CHEAP_ENVIRONMENT}, {threads_text(max(bench.threads))}"
    for size in sizes:
        seconds = _iterations(bench, f"batch of {size:,}", CHEAP_ENVIRONMENT, {"rollout.steps_per_iteration": size})
        results.append(Result(subject, f"iteration of {size:,} steps", "s", seconds))
    measured = [(size, result.median) for size, result in zip(sizes, results, strict=True) if result.values]
    if len(measured) > 2:
        deviation = 100 * linear_deviation(*zip(*measured, strict=True))
        text = "time of an iteration against a + b steps, largest deviation"
        results.append(Result(subject, text, "%", (deviation,), Target(20.0, at_least=False)))
    return results


def _memory(bench: Bench) -> list[Result]:
    environment, threads = bench.environments[0], max(bench.threads)
    arguments = ("--task", "memory", "--env", environment, "--rows", bench.max_batch, "--threads", threads)
    text = f"peak memory of learning from {bench.max_batch:,} steps"
    return peak_memory(bench, own("update_costs", *arguments), (environment, text), limit=3.0)


def peak_memory(bench: Bench, program: list[str], where: tuple[str, str], limit: float) -> list[Result]:
    """The peak memory that a program prints, in GiB, as a result for `where`, its subject and quantity."""
    try:
        peak = measure(program, max(bench.threads), bench.folder)["peak_gib"]
    except MeasurementError as error:
        bench.note(f"{where[1]} was not measured: {error}")
        return []
    bench.say(f"  {where[1]}: {peak:.2f} GiB")
    return [Result(*where, "GiB", (peak,), Target(limit, at_least=False))]


def _environments(bench: Bench) -> list[Result]:
    environment, results = bench.environments[0], []
    subject = f"{environment}, {threads_text(max(bench.threads))}"
    for count in ENVIRONMENT_COUNTS:
        per_iteration = -(-max(4096, 4 * count) // count) * count
        keys = {"env.num_envs": count, "rollout.steps_per_iteration": per_iteration}
        seconds = _iterations(bench, f"{count} environments", environment, keys)
        rates = tuple(per_iteration / value for value in seconds)
        results.append(Result(subject, f"{count} environments", "slots/s", rates))
    medians = [result.median for result in results if result.values]
    if medians:
        text = "fewest slots/s of these environment counts / most"
        results.append(Result(subject, text, "x", (min(medians) / max(medians),), Target(0.5)))
    return results


def _policies(bench: Bench) -> list[Result]:
    environment, results = bench.environments[0], []
    subject = f"{environment}, {threads_text(max(bench.threads))}"
    for width in HIDDEN_SIZES:
        keys = {"policy.hidden_sizes": [width, width]}
        seconds = _iterations(bench, f"policy of {width}-{width}", environment, keys)
        results.append(Result(subject, f"iteration with a policy of {width}-{width}", "s", seconds))
    return results


def _iterations(bench: Bench, name: str, environment: str, keys: dict[str, Any], warmup: int = 1) -> tuple[float, ...]:
    """Seconds of each of `ITERATIONS` iterations after the first ones of a run; empty, with a note, if it failed."""
    settings = bench.settings(environment, keys)
    # real steps are fewer than slots, because some steps only reset
    settings["total_env_steps"] = int((warmup + ITERATIONS - 0.5) * settings["rollout.steps_per_iteration"])
    try:
        run = train(settings, max(bench.threads), bench.folder)
    except MeasurementError as error:
        bench.note(f"{name} on {environment} was not measured: {error}")
        return ()
    seconds = tuple(float(value) for value in run.seconds[warmup : warmup + ITERATIONS])
    bench.say(f"  {name} on {environment}: {statistics.median(seconds):.3f} s an iteration")
    return seconds


def reuse(bench: Bench) -> list[Result]:
    """Seconds of an iteration that learns from 1 to 8 batches of the same size, and in multiples of one batch."""
    environment = bench.environments[0]
    rows = bench.settings(environment)["rollout.steps_per_iteration"]
    subject = f"{environment}, {rows:,} steps, {threads_text(max(bench.threads))}"
    found: list[tuple[float, ...]] = []
    for batches in REUSED_BATCHES:
        keys = {"rule.reuse": "uniform", "rule.reuse_batches": batches} if batches > 1 else {}
        found.append(_iterations(bench, f"{batches} batches", environment, keys, warmup=batches))
    results = [
        Result(subject, f"iteration that learns from {batches} batch{'es' if batches > 1 else ''}", "s", seconds)
        for batches, seconds in zip(REUSED_BATCHES, found, strict=True)
    ]
    pairs = list(zip(REUSED_BATCHES, found, strict=True))[1:]
    return [*results, *(ratio(subject, f"{batches} batches / 1 batch", s, found[0], None) for batches, s in pairs if s)]


def gpu(bench: Bench) -> list[Result]:
    """Learning from a large batch with 256-256 networks on a GPU and on the CPU, and training on each."""
    environment, threads = bench.environments[0], max(bench.threads)
    rows = bench.max_batch
    arguments = ("--task", "devices", "--env", environment, "--rows", rows, "--threads", threads, "--hidden", 256)
    probe = own("update_costs", *arguments[:5], 64, *arguments[6:])
    try:
        if "cuda" not in measure(probe, threads, bench.folder):
            bench.note("no GPU here: its section is skipped")
            return []
        seconds = measure(own("update_costs", *arguments), threads, bench.folder)
    except MeasurementError as error:
        bench.note(f"the GPU was not measured: {error}")
        return []
    subject = f"{seconds['gpu']}, {rows:,} steps, 256-256 networks"
    results = [
        Result(subject, "update and value fit, GPU", "s", (seconds["cuda"],)),
        Result(subject, "update and value fit, CPU", "s", (seconds["cpu"],)),
        Result(subject, "CPU / GPU", "x", (seconds["cpu"] / seconds["cuda"],)),
    ]
    keys = {"policy.hidden_sizes": [256, 256], "value.hidden_sizes": [256, 256]}
    cells: dict[str, Any] = {
        device: lambda d=device: train(
            bench.settings(environment, {**keys, "device": d}), threads, bench.folder
        ).steps_per_second()
        for device in ("gpu", "cpu")
    }
    trained = f"{environment}, {threads_text(threads)}, 256-256 networks"
    return [*results, *(Result(trained, f"training, {d}", RATE, v) for d, v in bench.rates(cells).items())]
