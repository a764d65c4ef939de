"""Steps per second of the environments alone: the same vector environment as in training, random actions.

Run as a program, this prints one line of JSON.
"""

import argparse
import json
import time

import numpy as np

from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.environments.vector_environment import VectorEnvironment
from trpo_lightning.policies.spaces import ActionSpec, ContinuousActions, DiscreteActions
from trpo_lightning.settings import RunSettings, updated

BATCHES = 64
"""Number of distinct batches of random actions, drawn before the clock starts and then repeated."""
WARMUP = 50
"""Warm-up steps of all environments before the clock starts."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    for name in ("num-envs", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--keys", type=json.loads, default={}, help="other settings, as JSON")
    options = parser.parse_args()
    sizes = {"env.num_envs": options.num_envs, "rollout.steps_per_iteration": options.num_envs}
    settings = updated(RunSettings(), {"env.id": options.env, **sizes, **options.keys})
    spec = describe_environment(settings.env)
    envs = make_environments(settings.env, spec.backend, list(range(options.num_envs)), options.threads)
    actions = random_actions(spec.actions, options.num_envs, np.random.default_rng(0))
    print(json.dumps({"steps_per_second": rate(envs, actions, options.steps), "backend": spec.backend}))
    envs.close()


def random_actions(spec: ActionSpec, num_envs: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Batches `[N, A]` like those of an untrained policy: standard normal, uniform over choices, or fair bits."""
    if isinstance(spec, ContinuousActions):
        draw = generator.standard_normal((BATCHES, num_envs, spec.size), dtype=np.float32)
    elif isinstance(spec, DiscreteActions):
        draw = np.stack([generator.integers(n, size=(BATCHES, num_envs)) for n in spec.choices], axis=-1)
    else:
        draw = generator.integers(2, size=(BATCHES, num_envs, spec.size))
    return list(draw)


def rate(envs: VectorEnvironment, actions: list[np.ndarray], steps: int) -> float:
    """Real transitions per second over at least `steps` of them: steps that only reset take time and do not count."""
    envs.reset()
    resetting = np.zeros(envs.num_envs, dtype=bool)
    real, began = 0, 0.0
    turn = 0
    while real < steps or turn <= WARMUP:
        if turn == WARMUP:
            real, began = 0, time.perf_counter()
        _, _, terminated, truncated = envs.step(actions[turn % len(actions)])
        real += envs.num_envs - int(resetting.sum())
        resetting = (terminated | truncated) & ~resetting
        turn += 1
    return real / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
