"""Whole episodes of a policy in separate environments, for evaluation."""

from dataclasses import dataclass

import numpy as np
import torch

from trpo_lightning.environments.backends import make_environments, open_limit
from trpo_lightning.environments.vector_environment import EnvironmentFailure, EnvironmentSpec, VectorEnvironment
from trpo_lightning.errors import UserError
from trpo_lightning.policies.inference import remembering_forward
from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, environment_seed, global_generators, numpy_generator
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.settings import EnvSettings
from trpo_lightning.threads import torch_threads

MAX_STEPS_WITHOUT_LIMIT = 10_000
"""Steps after which an evaluation episode is cut if the environment has no time limit."""


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
    spec: EnvironmentSpec,
    *,
    episodes: int,
    deterministic: bool,
    seed: int,
    iteration: int = 0,
    threads: int = 1,
) -> Episodes:
    """Run the first episode of each of `episodes` environments, seeded from (seed, iteration, index).

    Taking one episode from each, rather than the first N to end, does not favour short ones. Neither the statistics of
    `normalizer` nor the global generators change. If fewer environments can be open at once, each runs several of the
    episodes, each with its own seed.

    Args:
        policy: The policy, on the CPU.
        normalizer: Normalizes what the policy sees.
        settings: The environment's settings.
        spec: The environment's backend, spaces and time limit.
        episodes: How many episodes to run.
        deterministic: Whether to take the distribution's mode instead of samples.
        seed: Determines environments and actions, together with `iteration`.
        iteration: The iteration of training that is evaluated.
        threads: Threads that may step the environments.
    """
    with global_generators(seed, Stream.EVALUATION_GLOBAL, iteration):
        seeds = [environment_seed(seed, Stream.EVALUATION_ENVIRONMENT, iteration, i) for i in range(episodes)]
        noise = [numpy_generator(seed, Stream.EVALUATION_NOISE, iteration, i) for i in range(episodes)]
        envs = _open(settings, spec, seeds, threads)
        try:
            done = []
            for first in range(0, episodes, envs.num_envs):
                rows = [(first + i) % episodes for i in range(envs.num_envs)]  # pads the last group
                act = _Actor(policy, normalizer, None if deterministic else [noise[i] for i in rows])
                observations = envs.reset([seeds[i] for i in rows] if first else None)
                limit = spec.max_episode_steps or MAX_STEPS_WITHOUT_LIMIT
                done.append(_first_episodes(envs, observations, act, limit))
            returns, lengths = (np.concatenate(parts)[:episodes] for parts in zip(*done, strict=True))
            return Episodes(returns, lengths)
        finally:
            envs.close()


def _open(settings: EnvSettings, spec: EnvironmentSpec, seeds: list[int], threads: int) -> VectorEnvironment:
    """Open an environment for each seed, or, if that many cannot be open at once, for the first `env.num_envs`."""
    number = min(len(seeds), open_limit(settings) or len(seeds))
    try:
        return make_environments(settings, spec.backend, seeds[:number], threads, spec.spaces)
    except EnvironmentFailure:
        raise
    except UserError:
        if number <= settings.num_envs:
            raise
    return make_environments(settings, spec.backend, seeds[: settings.num_envs], threads, spec.spaces)


def _first_episodes(
    envs: VectorEnvironment, observations: np.ndarray, act: "_Actor", max_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths `[N]` of the episodes that start from `observations` `[N, O]`."""
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, dtype=np.int64)
    running = np.ones(envs.num_envs, dtype=bool)
    for _ in range(max_steps):
        observations, rewards, terminated, truncated = envs.step(act(observations))
        returns += np.where(running, rewards, 0.0)
        lengths += running
        running &= ~(terminated | truncated)
        if not running.any():
            break
    return returns, lengths


class _Actor:
    """Maps observations `[N, O]` to actions `[N, A]`: the mode, or samples with one generator per environment."""

    def __init__(self, policy: Policy, normalizer: Normalizer, generators: list[np.random.Generator] | None) -> None:
        self._policy, self._normalizer, self._generators = policy, normalizer, generators
        self._forward = remembering_forward(policy.network)
        self._states: np.ndarray | None = None

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        if self._states is None:
            self._states = np.zeros((len(observations), self._policy.state_size), dtype=np.float32)
        outputs = torch.from_numpy(self._forward(self._normalizer.normalize(observations), self._states))
        distribution = self._policy.distribution(outputs)
        action = distribution.mode()
        if self._generators is None:
            return action.numpy()
        shape, normal = action.shape[1:], distribution.noise == "normal"
        draws = [(g.standard_normal if normal else g.random)(shape, dtype=np.float32) for g in self._generators]
        return distribution.sample(torch.from_numpy(np.stack(draws))).numpy()
