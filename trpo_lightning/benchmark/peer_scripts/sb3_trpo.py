"""TRPO of sb3-contrib, run by the interpreter of the benchmark's own environment; a line of JSON on stdout."""

# pyright: reportMissingImports=false
import argparse
import importlib.metadata
import json
import time

import numpy as np
import torch
from sb3_contrib import TRPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


class Clock(BaseCallback):
    """The time at the start of each rollout and at the end of training."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def _on_rollout_start(self) -> None:
        self.times.append(time.perf_counter())

    def _on_training_end(self) -> None:
        self.times.append(time.perf_counter())

    def _on_step(self) -> bool:
        return True


def main() -> None:
    """Train, and print steps/s after the warm-up and the mean raw return of the last 100 training episodes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    for name in ("num-envs", "steps-per-iteration", "minibatch", "iterations", "warmup", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    envs = make_vec_env(options.env, n_envs=options.num_envs, seed=options.seed, vec_env_cls=DummyVecEnv)
    model = TRPO(
        "MlpPolicy",
        VecNormalize(envs, gamma=0.99),
        learning_rate=1e-3,
        n_steps=options.steps_per_iteration // options.num_envs,
        batch_size=options.minibatch,
        gamma=0.99,
        gae_lambda=0.95,
        cg_max_steps=10,
        cg_damping=0.1,
        target_kl=0.01,
        n_critic_updates=10,
        sub_sampling_factor=1,
        seed=options.seed,
        device="cpu",
    )
    clock = Clock()
    model.learn(options.iterations * options.steps_per_iteration, callback=clock)
    seconds = clock.times[-1] - clock.times[options.warmup]
    steps = (options.iterations - options.warmup) * options.steps_per_iteration
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    packages = ("sb3-contrib", "stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
    result = {
        "steps_per_second": steps / seconds,
        "return_mean": float(np.mean(returns)) if returns else None,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
