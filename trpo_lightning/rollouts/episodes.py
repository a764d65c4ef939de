"""Whole episodes of a policy in environments of their own: what evaluation is made of."""

from dataclasses import dataclass

import numpy as np
import torch

from trpo_lightning.environments.backends import make_environments
from trpo_lightning.policies.inference import fast_forward
from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, environment_seed, global_generators, numpy_generator
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.settings import EnvSettings
from trpo_lightning.threads import torch_threads

MAX_STEPS_WITHOUT_LIMIT = 10_000
"""Where an environment has no time limit, an episode of an evaluation is cut here."""


@dataclass(frozen=True)
class Episodes:
    """Undiscounted returns and lengths of episodes, in the order of their seeds."""

    returns: np.ndarray
    lengths: np.ndarray


@torch.inference_mode()
@torch_threads(1)
def run_episodes(
    policy: Policy,
    normalizer: Normalizer,
    settings: EnvSettings,
    *,
    backend: str,
    episodes: int,
    deterministic: bool,
    seed: int,
    iteration: int = 0,
    max_steps: int | None = None,
    threads: int = 1,
) -> Episodes:
    """The first episode of each of `episodes` environments, seeded from (seed, iteration, index).

    One episode each and not the first so many to end, which would favour short ones. `deterministic` takes the
    distribution's mode. Statistics of `normalizer` are used and not changed, nor are global generators.
    """
    with global_generators(seed, Stream.EVALUATION_GLOBAL, iteration):
        return _run(policy, normalizer, settings, backend, episodes, deterministic, seed, iteration, max_steps, threads)


def _run(
    policy: Policy,
    normalizer: Normalizer,
    settings: EnvSettings,
    backend: str,
    episodes: int,
    deterministic: bool,
    seed: int,
    iteration: int,
    max_steps: int | None,
    threads: int,
) -> Episodes:
    seeds = [environment_seed(seed, Stream.EVALUATION_ENVIRONMENT, iteration, i) for i in range(episodes)]
    generators = [numpy_generator(seed, Stream.EVALUATION_NOISE, iteration, i) for i in range(episodes)]
    envs = make_environments(settings, backend, seeds, threads)
    try:
        returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=np.int64)
        running = np.ones(episodes, dtype=bool)
        observations, forward = envs.reset(), fast_forward(policy.network)
        for _ in range(max_steps or MAX_STEPS_WITHOUT_LIMIT):
            distribution = policy.distribution(torch.from_numpy(forward(normalizer.normalize(observations))))
            action = distribution.mode()
            if not deterministic:
                shape, normal = action.shape[1:], distribution.noise == "normal"
                draws = [(g.standard_normal if normal else g.random)(shape, dtype=np.float32) for g in generators]
                action = distribution.sample(torch.from_numpy(np.stack(draws)))
            observations, rewards, terminated, truncated = envs.step(action.numpy())
            returns += np.where(running, rewards, 0.0)
            lengths += running
            running &= ~(terminated | truncated)
            if not running.any():
                break
        return Episodes(returns, lengths)
    finally:
        envs.close()
