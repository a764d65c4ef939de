"""Tianshou's TRPO at the settings of its MuJoCo example, on EnvPool; a line of JSON on stdout.

Run by the interpreter of the benchmark's own environment. Left out of the example, in its favour: test episodes,
TensorBoard, the progress bar and the decay of Adam's step size.
"""

# pyright: reportMissingImports=false
import argparse
import importlib.metadata
import json
import time
import warnings
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from tianshou.algorithm import TRPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import VectorEnvNormObs
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch.distributions import Distribution, Independent, Normal

HIDDEN_SIZES = (64, 64)


class EpisodeCollector(Collector):
    """Remembers the returns of all episodes, and writes them to a file, if there is one for them."""

    returns: tuple[float, ...] = ()
    file: TextIO | None = None
    began = 0.0
    steps = 0

    def collect(self, *args: Any, **kwargs: Any) -> CollectStats:
        """As its base class."""
        stats = super().collect(*args, **kwargs)
        self.returns += tuple(float(value) for value in stats.returns)
        self.steps += stats.n_collected_steps
        for value in stats.returns if self.file else ():
            print(time.perf_counter() - self.began, self.steps, float(value), sep=",", file=self.file)
        return stats


def build(env_id: str, num_envs: int, threads: int, seed: int) -> tuple[TRPO, Any]:
    """Algorithm and training environments."""
    import envpool

    envs = envpool.make_gymnasium(env_id, num_envs=num_envs, num_threads=threads, seed=seed)
    observations, actions = envs.observation_space, envs.action_space
    actor = ContinuousActorProbabilistic(
        preprocess_net=Net(state_shape=observations.shape, hidden_sizes=HIDDEN_SIZES, activation=torch.nn.Tanh),
        action_shape=actions.shape,
        unbounded=True,
    )
    critic = ContinuousCritic(
        preprocess_net=Net(state_shape=observations.shape, hidden_sizes=HIDDEN_SIZES, activation=torch.nn.Tanh)
    )
    torch.nn.init.constant_(actor.sigma_param, -0.5)
    for layer in [*actor.modules(), *critic.modules()]:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.orthogonal_(layer.weight, gain=np.sqrt(2))
            torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in actor.mu.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(0.01)

    def distribution(loc_scale: tuple[torch.Tensor, torch.Tensor]) -> Distribution:
        return Independent(Normal(*loc_scale), 1)

    algorithm = TRPO(
        policy=ProbabilisticActorPolicy(
            actor=actor,
            dist_fn=distribution,
            action_scaling=True,
            action_bound_method="clip",
            action_space=actions,
        ),
        critic=critic,
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=0.99,
        gae_lambda=0.95,
        return_scaling=True,
        advantage_normalization=True,
        optim_critic_iters=20,
        max_kl=0.01,
        backtrack_coeff=0.8,
        max_backtracks=10,
    )
    return algorithm, VectorEnvNormObs(envs)


def main() -> None:
    """Train, and print steps/s after the warm-up and the mean raw return of the last 100 training episodes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    for name in ("num-envs", "steps-per-iteration", "iterations", "warmup", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--episodes", type=Path, help="a file for each episode's seconds, env steps and return")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # a line for each backtracking step
    torch.set_num_threads(options.threads)
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    algorithm, envs = build(options.env, options.num_envs, options.threads, options.seed)
    collector = EpisodeCollector(
        algorithm,
        envs,
        VectorReplayBuffer(max(4096, options.steps_per_iteration), options.num_envs),
        exploration_noise=True,
    )
    if options.episodes is not None:
        collector.file = open(options.episodes, "w", buffering=1, encoding="utf-8")
    times: list[float] = []
    collector.began = time.perf_counter()
    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=options.iterations * options.steps_per_iteration,
            update_step_num_repetitions=1,
            batch_size=None,
            collection_step_num_env_steps=options.steps_per_iteration,
            training_fn=lambda epoch, step: times.append(time.perf_counter()),
            show_progress=False,
            verbose=False,
        )
    )
    times.append(time.perf_counter())
    steps = (options.iterations - options.warmup) * options.steps_per_iteration
    packages = ("tianshou", "envpool", "gymnasium", "torch", "numpy")
    result = {
        "steps_per_second": steps / (times[-1] - times[options.warmup]),
        "iterations": len(times) - 1,
        "return_mean": float(np.mean(collector.returns[-100:])) if collector.returns else None,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
