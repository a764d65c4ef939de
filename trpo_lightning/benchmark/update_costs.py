"""Costs of the update on synthetic data with an environment's shapes: no simulator, no Lightning loop.

Prints one line of JSON. `--task parts`: seconds of a surrogate gradient, a Fisher-vector product on the
same rows and a whole policy update, `calls` times each in turns. `--task memory`: peak memory of the process after
advantages, policy update, value fit and normalizers of one rollout of `--rows` steps. `--task devices`: seconds of
advantages, policy update and value fit together, on the CPU and, where there is one, on a GPU.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trpo_lightning.numerics.curvature import fisher_vector_product
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.spaces import BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.rollouts.rollout import Batch, SinglePathRollout
from trpo_lightning.rules.constraint import fisher
from trpo_lightning.rules.surrogate import CHUNK, surrogate_and_gradient
from trpo_lightning.settings import RunSettings, updated
from trpo_lightning.training.batches import make_batch
from trpo_lightning.training.module import TRPO

EPISODE = 200
"""Length of the synthetic episodes in steps."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=("parts", "memory", "devices"), required=True)
    parser.add_argument("--env", required=True)
    for name in ("rows", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--fisher-fraction", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = [options.hidden, options.hidden]
    keys = {"policy.hidden_sizes": sizes, "value.hidden_sizes": sizes, "rule.fisher_fraction": options.fisher_fraction}
    settings = updated(RunSettings(), {"env.id": options.env, "rule.cg_iterations": 10, **keys})
    task = {"parts": parts, "memory": memory, "devices": devices}[options.task]
    print(json.dumps(task(TRPO(settings=settings), options.rows, options.calls)))


def parts(module: TRPO, rows: int, calls: int) -> dict[str, Any]:
    """Seconds of each part, for `calls` calls after one that does not count."""
    batch = invented_batch(module, rows)
    policy = module.policy
    theta = parameter_vector(policy)
    product = fisher_vector_product(fisher(policy, batch.observations, None), theta, rows, chunk=CHUNK)
    _, direction = surrogate_and_gradient(policy, batch)
    tasks: dict[str, Callable[[], Any]] = {
        "gradient": lambda: surrogate_and_gradient(policy, batch),
        "fisher_vector_product": lambda: product(direction),
        "update": lambda: module.rule.update(policy, batch, torch.Generator().manual_seed(0)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for call in range(calls + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if call:
                seconds[name].append(time.perf_counter() - began)
    return {"parameters": theta.numel(), **seconds}


def memory(module: TRPO, rows: int, calls: int) -> dict[str, Any]:
    """Peak memory of this process in GiB."""
    learn(module, invented_rollout(module, rows), torch.device("cpu"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_gib": peak * (1 if sys.platform == "darwin" else 1024) / 2**30}


def devices(module: TRPO, rows: int, calls: int) -> dict[str, Any]:
    """Seconds of an iteration's learning on each device, the best of `calls` calls after one that does not count."""
    rollout = invented_rollout(module, rows)
    found: dict[str, Any] = {}
    for name in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
        device = torch.device(name)
        learner = TRPO(settings=module.settings).to(device)
        seconds = []
        for _ in range(calls + 1):
            began = time.perf_counter()
            learn(learner, rollout, device)
            if name == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        found[name] = min(seconds[1:])
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {**found, **gpu}


def learn(module: TRPO, rollout: SinglePathRollout, device: torch.device) -> None:
    """Learn from a rollout as an iteration does: advantages, policy update, value fit and normalizers."""
    estimated = make_batch(rollout, module.value_function, module.settings, device)
    module.rule.update(module.policy, estimated.batch, torch.Generator().manual_seed(0))
    data = estimated.value_data
    assert data is not None
    module.value_function.fit(data.observations, data.targets, torch.Generator().manual_seed(0))
    module.normalizer.merge(*rollout.statistics())


@torch.no_grad()
def invented_batch(module: TRPO, rows: int) -> Batch:
    """A batch of standard normal observations and advantages, with actions from the policy."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(rows, module.normalizer.layout.vector, generator=generator)
    return Batch(observations, torch.from_numpy(_actions(module, rows)), torch.randn(rows, generator=generator))


def invented_rollout(module: TRPO, rows: int) -> SinglePathRollout:
    """A rollout of `rows` steps in total from `env.num_envs` environments, in episodes that end at time limits."""
    num_envs = module.settings.env.num_envs
    slots = (max(1, rows // num_envs), num_envs)
    shape, generator = (module.normalizer.layout.vector,), np.random.default_rng(0)
    episode_steps = np.tile(np.arange(slots[0])[:, None] % EPISODE, (1, num_envs))
    return SinglePathRollout(
        env_steps=slots[0] * slots[1],
        observations=generator.standard_normal((slots[0] + 1, num_envs, *shape), dtype=np.float32),
        actions=_actions(module, slots[0] * slots[1]).reshape(*slots, -1),
        rewards=generator.standard_normal(slots),
        terminated=np.zeros(slots, dtype=bool),
        truncated=episode_steps == EPISODE - 1,
        valid=np.ones(slots, dtype=bool),
        episode_steps=episode_steps,
        raw_observations=generator.standard_normal((*slots, *shape)),
        running_returns=generator.standard_normal(slots),
    )


def _actions(module: TRPO, rows: int) -> np.ndarray:
    """Actions of an untrained policy, `[rows, A]`."""
    generator = np.random.default_rng(1)
    match module.spec.actions:
        case ContinuousActions(size):
            return generator.standard_normal((rows, size), dtype=np.float32)
        case DiscreteActions(choices):
            return np.stack([generator.integers(n, size=rows) for n in choices], axis=1)
        case BinaryActions(size):
            return generator.integers(2, size=(rows, size))


if __name__ == "__main__":
    main()
