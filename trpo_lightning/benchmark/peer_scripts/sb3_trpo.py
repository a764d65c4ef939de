"""TRPO of sb3-contrib, run by the interpreter of the benchmark's own environment; a line of JSON on stdout."""

# pyright: reportMissingImports=false
import argparse
import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import TRPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


class Clock(BaseCallback):
    """The time at the start of each rollout and at the end of training; each episode, if a file is given for them."""

    def __init__(self, episodes: Path | None) -> None:
        super().__init__()
        self.times: list[float] = []
        self.file = None if episodes is None else open(episodes, "w", buffering=1, encoding="utf-8")

    def _on_rollout_start(self) -> None:
        self.times.append(time.perf_counter())

    def _on_training_end(self) -> None:
        self.times.append(time.perf_counter())

    def _on_step(self) -> bool:
        for info in self.locals["infos"] if self.file else ():
            if "episode" in info:
                seconds = time.perf_counter() - self.times[0]
                print(seconds, self.num_timesteps, info["episode"]["r"], sep=",", file=self.file)
        return True


class RecordedBuffer(RolloutBuffer):
    """Remembers what its advantages end with."""

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """As its base class."""
        self.last_values, self.last_dones = last_values.cpu().numpy().flatten(), dones
        super().compute_returns_and_advantage(last_values, dones)


class RecordedTRPO(TRPO):
    """Writes each iteration's batch, and the policy's parameters before and after its update, to a folder."""

    folder = Path()

    def train(self) -> None:
        """As its base class."""
        buffer = self.rollout_buffer
        assert isinstance(buffer, RecordedBuffer)
        names = (
            "observations",
            "actions",
            "rewards",
            "values",
            "advantages",
            "episode_starts",
            "last_values",
            "last_dones",
        )
        batch: dict[str, Any] = {name: np.array(getattr(buffer, name)) for name in names}
        before = self._theta()
        super().train()
        np.savez(self.folder / f"{self._n_updates}.npz", before=before, after=self._theta(), **batch)

    def _theta(self) -> np.ndarray:
        """The policy's parameters: log std, hidden layers, output layer."""
        named = self.policy.named_parameters()
        return np.concatenate([p.detach().numpy().flatten() for name, p in named if "value" not in name])


def main() -> None:
    """Train, and print steps/s after the warm-up and the mean raw return of the last 100 training episodes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    for name in ("num-envs", "steps-per-iteration", "minibatch", "iterations", "warmup", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name, default in (("cg-iterations", 10), ("critic-updates", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--delta", type=float, default=0.01)
    parser.add_argument("--episodes", type=Path, help="a file for each episode's seconds, env steps and return")
    parser.add_argument("--batches", type=Path, help="a folder for each iteration's batch and update")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    envs = make_vec_env(options.env, n_envs=options.num_envs, seed=options.seed, vec_env_cls=DummyVecEnv)
    RecordedTRPO.folder = options.batches
    model = (TRPO if options.batches is None else RecordedTRPO)(
        "MlpPolicy",
        VecNormalize(envs, gamma=0.99),
        learning_rate=1e-3,
        n_steps=options.steps_per_iteration // options.num_envs,
        batch_size=options.minibatch,
        gamma=0.99,
        gae_lambda=0.95,
        cg_max_steps=options.cg_iterations,
        cg_damping=0.1,
        target_kl=options.delta,
        n_critic_updates=options.critic_updates,
        sub_sampling_factor=1,
        rollout_buffer_class=RolloutBuffer if options.batches is None else RecordedBuffer,
        seed=options.seed,
        device="cpu",
    )
    clock = Clock(options.episodes)
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
