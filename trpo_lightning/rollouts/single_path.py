"""Single-path sampling (TRPO 2015, section 5.1): follow the current policy in N environments for T steps each."""

import time

import numpy as np
import torch

from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, environment_seed, numpy_generator
from trpo_lightning.rollouts.environments import make_environments
from trpo_lightning.rollouts.episode_log import EpisodeLog
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.rollouts.vector_environment import EnvironmentSpec, VectorEnvironment
from trpo_lightning.settings import RunSettings
from trpo_lightning.threads import torch_threads


class SinglePathCollector:
    """Collects rollouts of `steps_per_iteration` slots; episodes go on from one to the next until `restart`."""

    def __init__(self, settings: RunSettings, spec: EnvironmentSpec, threads: int) -> None:
        self.settings, self.spec, self.threads = settings, spec, threads
        self.num_envs = settings.env.num_envs
        self.steps = settings.rollout.steps_per_iteration // self.num_envs
        self._envs: VectorEnvironment | None = None

    def restart(self, iteration: int) -> None:
        """Cut all episodes and start fresh environments, seeded from (seed, iteration, index)."""
        self.close()
        indices = range(self.num_envs)
        seeds = [environment_seed(self.settings.seed, Stream.ENVIRONMENT, iteration, i) for i in indices]
        self._envs = make_environments(self.settings.env, self.spec.backend, seeds, self.threads)
        self._observations = self._envs.reset()
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._running_return = np.zeros(self.num_envs)
        self._episodes = EpisodeLog(self.num_envs, hold=self.spec.max_episode_steps is not None)

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    @torch.inference_mode()
    @torch_threads(1)
    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> Rollout:
        """T steps in each environment with `policy` (on the CPU), as its parameters are now."""
        if self._envs is None:
            self.restart(iteration)
        assert self._envs is not None
        began = time.perf_counter()
        simulator = inference = 0.0
        rollout, noise = self._empty(policy, normalizer, iteration)
        for t in range(self.steps):
            start = time.perf_counter()
            rollout.raw_observations[t] = self._observations
            rollout.observations[t] = normalizer.normalize(self._observations)
            distribution = policy(torch.from_numpy(rollout.observations[t]))
            action = distribution.sample(noise[t])
            rollout.actions[t] = action.numpy()
            rollout.log_probs[t] = distribution.log_prob(action).numpy()
            acted = time.perf_counter()
            self._observations, rewards, terminated, truncated = self._envs.step(rollout.actions[t])
            simulator += time.perf_counter() - acted
            inference += acted - start
            self._record(rollout, t, rewards, terminated, truncated)
        rollout.observations[self.steps] = normalizer.normalize(self._observations)
        rollout.rewards = normalizer.scale_rewards(rollout.rewards)
        rollout.seconds = {"collect": time.perf_counter() - began, "simulator": simulator, "inference": inference}
        return rollout

    def _empty(self, policy: Policy, normalizer: Normalizer, iteration: int) -> tuple[Rollout, torch.Tensor]:
        """Buffers for a rollout, and the noise of its actions `[T, N, A]`: a stream for each environment."""
        slots = (self.steps, self.num_envs)
        seen = normalizer.normalize(self._observations)
        example = policy(torch.from_numpy(seen))
        size = example.mode().shape[1]
        noise = np.empty((*slots, size), dtype=np.float32)
        for i in range(self.num_envs):
            generator = numpy_generator(self.settings.seed, Stream.ACTION_NOISE, iteration, i)
            draw = generator.standard_normal if example.noise == "normal" else generator.random
            noise[:, i] = draw((self.steps, size), dtype=np.float32)
        observation_shape = self._observations.shape[1:]
        rollout = Rollout(
            observations=np.empty((self.steps + 1, self.num_envs, *observation_shape), dtype=np.float32),
            actions=np.empty((*slots, size), dtype=np.float32 if example.noise == "normal" else np.int64),
            log_probs=np.empty(slots, dtype=np.float32),
            rewards=np.zeros(slots),
            terminated=np.zeros(slots, dtype=bool),
            truncated=np.zeros(slots, dtype=bool),
            valid=np.zeros(slots, dtype=bool),
            raw_observations=np.empty((*slots, *observation_shape), dtype=self._observations.dtype),
            running_returns=np.zeros(slots),
        )
        return rollout, torch.from_numpy(noise)

    def _record(
        self, rollout: Rollout, t: int, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
    ) -> None:
        """Write step t; environments that only reset leave an invalid slot with reward 0 and no end."""
        valid = ~self._resetting
        rewards = np.where(valid, rewards, 0.0)
        rollout.valid[t] = valid
        rollout.rewards[t] = rewards
        rollout.terminated[t] = terminated & valid
        rollout.truncated[t] = truncated & valid & ~terminated
        self._running_return = self.settings.gamma * self._running_return + rewards
        rollout.running_returns[t] = self._running_return
        self._resetting = (terminated | truncated) & valid
        self._running_return[self._resetting] = 0.0
        for episode_return, length in self._episodes.record(rewards, valid, self._resetting):
            rollout.episode_returns.append(episode_return)
            rollout.episode_lengths.append(length)
