"""Episodes of a population of candidates, for CEM and CMA-ES."""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.environments.backends import make_environments
from trpo_lightning.environments.vector_environment import EnvironmentSpec, VectorEnvironment
from trpo_lightning.errors import UserError
from trpo_lightning.policies.inference import forward_each
from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, environment_seed, torch_generator
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.rollouts.scheme import Propose, SamplingScheme
from trpo_lightning.settings import PopulationRuleSettings, PopulationSettings, RunSettings
from trpo_lightning.threads import torch_threads

NONE = -1
"""Stands for an episode's number if the environment idles."""


@dataclass(kw_only=True)
class PopulationRollout(Rollout):
    """K `candidates` `[K, P]` with their `returns` `[K]`: undiscounted sums of raw rewards, averaged over episodes.

    The return is NaN if the candidate had to act on a non-finite observation. All K * m episodes are reported, those of
    each candidate together.
    """

    candidates: Tensor
    returns: Tensor
    raw_observations: np.ndarray
    """`[B, O]` from real steps, without images; empty unless observations are normalized."""

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Observations only, because returns are compared as they are."""
        return self.raw_observations, np.zeros(0)


class PopulationScheme(SamplingScheme):
    """m whole episodes of each of K candidates, in `env.num_envs` environments (fewer if there are fewer episodes).

    A candidate acts by its distribution's mode. An environment whose episode has ended takes the next one waiting, of
    any candidate; if none is waiting, it idles until the last episode has ended. Resets and idle steps are not counted.
    Every iteration starts new episodes everywhere.

    Raises:
        UserError: The environment has no time limit, so an episode might never end.
    """

    Settings = PopulationSettings

    _envs: VectorEnvironment | None = None
    _attempt = 0

    def __init__(self, settings: RunSettings, spec: EnvironmentSpec, threads: int, propose: Propose) -> None:
        super().__init__(settings, spec, threads, propose)
        if spec.max_episode_steps is None:
            raise UserError(
                f"rollout.scheme=population: env.id={settings.env.id} has no time limit, so an episode might never "
                "end: set env.max_episode_steps"
            )
        self.steps = spec.max_episode_steps

    def restart(self, iteration: int, attempt: int = 0) -> None:
        """Let the next `collect` make fresh environments, seeded from (seed, iteration, attempt, index)."""
        del iteration
        self.close()
        self._attempt = attempt

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    @torch.no_grad()
    @torch_threads(1)
    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> PopulationRollout:
        """Measure the returns of candidates around `policy` (on the CPU)."""
        began = time.perf_counter()
        candidates = self.propose(policy, torch_generator(self.settings.seed, Stream.POPULATION, iteration))
        rule = self.settings.rule
        each = rule.episodes_per_candidate if isinstance(rule, PopulationRuleSettings) else 1
        episodes = _Episodes(len(candidates) * each, self._environments(len(candidates) * each, iteration))
        actors = _Actors(policy, candidates)
        keep = self.settings.normalize.observations
        observations = episodes.envs.reset()
        vectors = normalizer.layout.vectors
        kept = [vectors(observations[:0])]
        simulator = inference = 0.0
        while episodes.remain():
            start = time.perf_counter()
            if keep:
                kept.append(vectors(observations[episodes.live()]))
            episodes.look(vectors(observations))
            seen = torch.from_numpy(normalizer.normalize(observations))
            actions = actors.act(np.maximum(episodes.current, 0) // each, seen)
            acted = time.perf_counter()
            observations, *outcome = episodes.envs.step(actions)
            simulator += time.perf_counter() - acted
            inference += acted - start
            episodes.record(*outcome)
        return PopulationRollout(
            env_steps=int(episodes.lengths.sum()),
            episode_returns=episodes.returns.tolist(),
            episode_lengths=episodes.lengths.tolist(),
            seconds={"collect": time.perf_counter() - began, "simulator": simulator, "inference": inference},
            candidates=candidates,
            returns=torch.from_numpy(np.where(episodes.spoilt, np.nan, episodes.returns).reshape(-1, each).mean(1)),
            raw_observations=np.concatenate(kept),
        )

    def _environments(self, episodes: int, iteration: int) -> VectorEnvironment:
        if self._envs is None:
            first = self._attempt * self.num_envs
            indices = range(first, first + min(self.num_envs, episodes))
            seeds = [environment_seed(self.settings.seed, Stream.ENVIRONMENT, iteration, i) for i in indices]
            self._envs = make_environments(self.settings.env, self.spec.backend, seeds, self.threads, self.spec.spaces)
        return self._envs


@dataclass
class _Episodes:
    """Assigns episodes to environments; `returns`, `lengths` and `spoilt` are `[episodes]`, `current` is `[N]`."""

    number: int
    envs: VectorEnvironment
    returns: np.ndarray = field(init=False)
    lengths: np.ndarray = field(init=False)
    spoilt: np.ndarray = field(init=False)
    current: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.returns, self.lengths = np.zeros(self.number), np.zeros(self.number, dtype=np.int64)
        self.spoilt = np.zeros(self.number, dtype=bool)
        self.current = np.arange(self.envs.num_envs)
        self._next = self.envs.num_envs
        self._resetting = np.zeros(self.envs.num_envs, dtype=bool)

    def remain(self) -> bool:
        """Whether any episode is running or waiting."""
        return bool((self.current != NONE).any())

    def live(self) -> np.ndarray:
        """The environments `[N]` whose next step is real, not a reset or idle."""
        return (self.current != NONE) & ~self._resetting

    def look(self, observations: np.ndarray) -> None:
        """Mark the episodes that act on non-finite observations, out of `[N, *O]`."""
        if not np.isfinite(observations).all():
            finite = np.isfinite(observations).reshape(len(observations), -1).all(1)
            self.spoilt[self.current[self.live() & ~finite]] = True

    def record(self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        """Record a step; an environment whose episode ends gets the next one, which begins after its reset."""
        live = self.live()
        self.returns[self.current[live]] += rewards[live]
        self.lengths[self.current[live]] += 1
        self._resetting = live & (terminated | truncated)
        for i in np.flatnonzero(self._resetting):
            self.current[i] = self._next if self._next < self.number else NONE
            self._next += 1


class _Actors:
    """Actions of candidates `[K, P]`, each the mode of its distribution, with one candidate per environment."""

    def __init__(self, policy: Policy, candidates: Tensor) -> None:
        named = dict(policy.named_parameters())
        parts = candidates.split([p.numel() for p in named.values()], dim=1)
        self._all = {
            name.removeprefix("network."): part.to(p.dtype).reshape(-1, *p.shape)
            for (name, p), part in zip(named.items(), parts, strict=True)
            if name.startswith("network.")  # the mode is a function of the network's outputs
        }
        self._policy, self._forward = policy, forward_each(policy.network)
        self._chosen: np.ndarray | None = None

    def act(self, candidates: np.ndarray, observations: Tensor) -> np.ndarray:
        """Actions `[N, A]` of candidates `[N]` for observations `[N, *O]`; keeps their parameters for the next call."""
        if self._chosen is None or (candidates != self._chosen).any():
            self._chosen = candidates
            rows = torch.from_numpy(candidates)
            self._parameters = {name: values[rows] for name, values in self._all.items()}
        return self._policy.distribution(self._forward(self._parameters, observations)).mode().numpy()
