"""The section about images: Atari from pixels against the emulator alone, and the memory of the paper's batches.

Run as a program, this prints the peak memory of one iteration as one line of JSON.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable
from typing import Any

import torch

from trpo_lightning.benchmark.bench import RATE, Bench, threads_text
from trpo_lightning.benchmark.configurations import QUIET, WARMUP
from trpo_lightning.benchmark.growth import peak_memory
from trpo_lightning.benchmark.processes import measure, own
from trpo_lightning.benchmark.results import Result, Target, ratio
from trpo_lightning.benchmark.training_runs import train
from trpo_lightning.extras import has_extra
from trpo_lightning.settings import RunSettings, updated
from trpo_lightning.training.batches import make_batch
from trpo_lightning.training.module import TRPO

GAME = "ALE/Pong-v5"
FRAME_SIZES = {"the paper's 33,458 parameters": [52, 40], "84 x 84 pixels": [84, 84]}
"""Of the first, the target is asked."""
ITERATION = 6400
ITERATIONS = 2
"""How many are measured, after the warm-up."""
PAPERS_BATCH = 100_000
TRPO_2015: dict[str, Any] = {
    "value.name": "none",
    "gae_lambda": 1.0,
    "normalize.rewards": False,
    "normalize.reward_signs": True,
    "policy.image_network": "trpo_2015",
    "policy.activation": "relu",
    "rule.cg_iterations": 10,
    "rule.fisher_fraction": 0.1,
}
"""The update of TRPO 2015; episodes go on from one iteration to the next, so that iterations are equally long."""


def pixels(bench: Bench) -> list[Result]:
    """Atari from pixels: the whole loop against the emulator alone, and the memory of 100,000 steps."""
    if not has_extra("atari"):
        bench.note("the extra atari is missing: its section is skipped")
        return []
    backends = [name for name in ("envpool", "gymnasium") if name == "gymnasium" or has_extra("envpool")]
    cells: dict[tuple[str, str, int, str], Callable[[], float]] = {}
    for name in FRAME_SIZES:
        for backend in backends:
            for threads in bench.threads if backend == "envpool" else bench.threads[:1]:
                key = (name, backend, threads)
                cells[*key, "emulator alone"] = lambda key=key: _alone(bench, *key)
                cells[*key, "training"] = lambda key=key: _training(bench, *key)
    rates = bench.rates(cells)
    results = []
    for name, backend, threads in dict.fromkeys(key[:3] for key in cells):
        subject = f"{GAME}, {name}, {backend}, {threads_text(threads)}"
        alone, ours = (rates[name, backend, threads, what] for what in ("emulator alone", "training"))
        results += [Result(subject, "emulator alone", RATE, alone), Result(subject, "training", RATE, ours)]
        target = Target(0.6) if name == next(iter(FRAME_SIZES)) else None
        results.append(ratio(subject, "ceiling ratio", ours, alone, target))
    return [*results, *_memory(bench, backends[0])]


def _keys(bench: Bench, name: str, backend: str) -> dict[str, Any]:
    return {"env.backend": backend, "env.frame_size": FRAME_SIZES[name], "env.num_envs": bench.num_envs}


def _alone(bench: Bench, name: str, backend: str, threads: int) -> float:
    keys = {key: value for key, value in _keys(bench, name, backend).items() if key != "env.num_envs"}
    sizes = ("--num-envs", bench.num_envs, "--steps", ITERATION * ITERATIONS, "--threads", threads)
    program = own("environment_alone", "--env", GAME, *sizes, "--keys", json.dumps(keys))
    return measure(program, threads, bench.folder)["steps_per_second"]


def _training(bench: Bench, name: str, backend: str, threads: int) -> float:
    slots = ITERATION // bench.num_envs * bench.num_envs
    budget = {"rollout.steps_per_iteration": slots, "total_env_steps": slots * (WARMUP + ITERATIONS)}
    settings = {**QUIET, **TRPO_2015, "env.id": GAME, **_keys(bench, name, backend), **budget}
    return train(settings, threads, bench.folder).steps_per_second()


def _memory(bench: Bench, backend: str) -> list[Result]:
    threads = max(bench.threads)
    text = f"peak memory of an iteration of {PAPERS_BATCH:,} steps"
    arguments = ("--backend", backend, "--num-envs", bench.num_envs, "--threads", threads, "--steps", PAPERS_BATCH)
    subject = f"{GAME}, 84 x 84 pixels, {backend}"
    return peak_memory(bench, own("pixels", *arguments), (subject, text), limit=3.5)


def main() -> None:
    """Collect and learn from one iteration of 84 x 84 pixels, with a value function; print the peak memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    for name in ("num-envs", "threads", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    values = {**TRPO_2015, "value.name": "adam", "value.epochs": 1, "value.image_network": "trpo_2015"}
    values |= {"env.id": GAME, "env.backend": options.backend, "env.num_envs": options.num_envs}
    module = TRPO(settings=updated(RunSettings(), {**values, "rollout.steps_per_iteration": options.steps}))
    learn(module)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_gib": peak * (1 if sys.platform == "darwin" else 1024) / 2**30}))


def learn(module: TRPO) -> None:
    """One iteration without Lightning's loop: collect, update, fit, merge."""
    rollout = module.collect()
    estimated = make_batch(rollout, module.value_function, module.settings, module.device)
    module.update(estimated.batch)
    assert estimated.value_data is not None
    module.fit_values(estimated.value_data).finish()
    module.normalizer.merge(*rollout.statistics())
    module.scheme.close()


if __name__ == "__main__":
    main()
