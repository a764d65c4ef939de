"""Single-path sampling (TRPO 2015, section 5.1): follow the current policy in N environments."""

import time
from itertools import groupby

import numpy as np
import torch

from trpo_lightning.environments.backends import make_environments
from trpo_lightning.environments.vector_environment import EnvironmentFailure, VectorEnvironment
from trpo_lightning.errors import UserError
from trpo_lightning.policies.images import inference_threads
from trpo_lightning.policies.inference import remembering_forward
from trpo_lightning.policies.observations import Layout
from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, environment_seed, numpy_generator
from trpo_lightning.ranks import Share
from trpo_lightning.rollouts.episode_log import EndedEpisode, EpisodeLog, EpisodeSums
from trpo_lightning.rollouts.frames import FrameStore, observation_store
from trpo_lightning.rollouts.normalizers import Normalizer, signed
from trpo_lightning.rollouts.rollout import SinglePathRollout
from trpo_lightning.rollouts.scheme import SamplingScheme
from trpo_lightning.settings import SinglePathSettings
from trpo_lightning.threads import torch_threads


class SinglePathScheme(SamplingScheme):
    """Takes T steps in each environment; episodes continue from one iteration to the next until `restart`.

    With `rollout.whole_episodes` (the 2015 paper's batches), each iteration begins new episodes, and each environment
    finishes its share with the first episode that brings it to T steps or more; it then idles until all have finished.
    Idle steps are neither data nor counted. Where episodes end with a life, it finishes with the game.
    """

    Settings = SinglePathSettings

    _envs: VectorEnvironment | None = None

    @property
    def whole_episodes(self) -> bool:
        """Whether an iteration holds whole episodes; vine's trunks never do."""
        return isinstance(self.rollout_settings, SinglePathSettings) and self.rollout_settings.whole_episodes

    def restart(self, iteration: int, attempt: int = 0) -> None:
        """Cut all episodes and start fresh environments, seeded from (seed, iteration, attempt, index)."""
        self.close()
        indices = [attempt * self.settings.env.num_envs + i for i in self.environments]
        seeds = [environment_seed(self.settings.seed, Stream.ENVIRONMENT, iteration, i) for i in indices]
        self._envs = make_environments(
            self.settings.env, self.spec.backend, seeds, self.threads, self.spec.spaces, self._first_limits()
        )
        self._begin(self._envs)

    def _first_limits(self) -> list[int] | None:
        """Steps at which first episodes are cut for `rollout.spread_episodes`: evenly spaced up to the time limit."""
        if not (isinstance(self.rollout_settings, SinglePathSettings) and self.rollout_settings.spread_episodes):
            return None
        limit = self.spec.max_episode_steps
        if limit is None:
            raise UserError(
                f"rollout.spread_episodes: env.id={self.settings.env.id} has no time limit to spread episodes "
                "over: set env.max_episode_steps"
            )
        return [max(1, round(limit * (i + 1) / self.settings.env.num_envs)) for i in self.environments]

    def _begin(self, envs: VectorEnvironment) -> None:
        self._observations = envs.reset()
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._idle = np.zeros(self.num_envs, dtype=bool)
        self._done_steps = np.zeros(self.num_envs, dtype=np.int64)
        self._running_return = np.zeros(self.num_envs)
        self._states: np.ndarray | None = None
        # whole episodes have no first ones that end early: all that begin also end
        hold = self.spec.max_episode_steps is not None and not self.whole_episodes
        skip_first = self._first_limits() is not None
        self._sums, self._log = EpisodeSums(self.environments), EpisodeLog(self.settings.env.num_envs, hold, skip_first)
        self._ended: list[EndedEpisode] = []

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    @torch.inference_mode()
    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> SinglePathRollout:
        """Collect T slots in each environment, or more for whole episodes, with the current `policy`.

        Only after all ranks have stepped their environments do they tell each other anything.
        """
        began = time.perf_counter()
        threads = inference_threads(policy.network, self.num_envs)
        with self.ranks.together(EnvironmentFailure), torch_threads(threads):
            rollout = self._stepped(policy, normalizer, iteration)
        rollout.share = Share.of_slots(rollout.valid, self.ranks)
        rollout.env_steps = rollout.share.count
        for episode in self._to_report():
            rollout.episode_returns.append(episode.total)
            rollout.episode_lengths.append(episode.length)
        normalizer.first_scale(rollout.running_returns[rollout.valid])
        rollout.rewards = normalizer.scale_rewards(rollout.rewards)
        rollout.seconds["collect"] = time.perf_counter() - began
        return rollout

    def _to_report(self) -> list[EndedEpisode]:
        """The episodes of all ranks that this rollout reports, in the order in which one rank would."""
        ended = sorted(episode for part in self.ranks.objects(self._ended) for episode in part)
        steps = groupby(ended, lambda episode: episode.t)
        return [episode for _, step in steps for episode in self._log.report(list(step))]

    def _stepped(self, policy: Policy, normalizer: Normalizer, iteration: int) -> SinglePathRollout:
        """The rollout of this rank's environments, with raw rewards."""
        if self._envs is None:
            self.restart(iteration)
        elif self.whole_episodes and self._idle.all():
            self._begin(self._envs)
        assert self._envs is not None
        simulator = inference = 0.0
        states = self._remembered(policy)
        forward = remembering_forward(policy.network)
        first = forward(normalizer.normalize(self._observations), states.copy())
        example = policy.distribution(torch.from_numpy(first))
        rollout = self._buffers(example.mode())
        rollout.states = states.copy() if policy.state_size else None
        act = _Actions(self, policy, iteration, example.noise, rollout.actions.shape[2])
        self._ended = []
        t = recorded = 0
        at_once = self._records_at_once or policy.state_size > 0
        while t < len(rollout.valid) and not (at_once and self._idle.all()):
            self.ranks.check()
            self._visit(t)
            start = time.perf_counter()
            rollout.raw_observations[t] = normalizer.layout.vectors(self._observations)
            rollout.actions[t] = act(t, forward(self._see(rollout, t, normalizer), states))
            acted = time.perf_counter()
            step = self._envs.step(rollout.actions[t])
            simulator += time.perf_counter() - acted
            inference += acted - start
            self._observations, rollout.rewards[t], rollout.terminated[t], rollout.truncated[t] = step
            if rollout.life_lost is not None:
                rollout.life_lost[t] = self._envs.life_lost
            t += 1
            if at_once:
                states[self._resetting | self._idle] = 0.0  # what was seen now is of an episode that is over
                self._record(rollout, range(recorded, t))
                recorded = t
        self._record(rollout, range(recorded, t))
        last = self._see(rollout, t, normalizer)
        rollout = _first_rows(rollout, t)
        if isinstance(rollout.observations, np.ndarray):  # infinite numbers were clipped
            last[~np.isfinite(self._observations)] = np.nan
            finite = np.isfinite(rollout.raw_observations)
            if not finite.all():
                rollout.observations[:t][~finite] = np.nan
        rollout.raw_rewards, rollout.last_observations = rollout.rewards, self._observations.copy()
        rollout.seconds = {"collect": 0.0, "simulator": simulator, "inference": inference}
        return rollout

    def _see(self, rollout: SinglePathRollout, t: int, normalizer: Normalizer) -> np.ndarray:
        """The observations before step t as the policy sees them, which the rollout keeps."""
        if isinstance(rollout.observations, np.ndarray):
            return normalizer.normalize(self._observations, out=rollout.observations[t])
        seen = normalizer.normalize(self._observations)
        rollout.observations.put(t, seen)
        return seen

    def _remembered(self, policy: Policy) -> np.ndarray:
        """The policy's memory `[N, M]` of the episodes that go on, to be moved in place; zero when they begin."""
        if self._states is None:
            self._states = np.zeros((self.num_envs, policy.state_size), dtype=np.float32)
        return self._states

    @property
    def _records_at_once(self) -> bool:
        """Whether the loop must know which environments reset or idle, and so must wait for the bookkeeping."""
        return self.whole_episodes

    def _visit(self, t: int) -> None:
        """Called before step t, for schemes that take more from these states."""

    def _rows(self) -> int:
        """The most slots per environment: with whole episodes T, the rest of one, and a reset after each step."""
        if not self.whole_episodes:
            return self.steps
        if self.spec.max_episode_steps is None:
            raise UserError(
                f"rollout.whole_episodes: env.id={self.settings.env.id} has no time limit, so an iteration might never "
                "end: set env.max_episode_steps"
            )
        lost = self.spec.max_episode_steps if self.settings.env.episodic_life else 0  # a reset after each lost life
        return 2 * self.steps + self.spec.max_episode_steps + lost

    def _buffers(self, actions: torch.Tensor) -> SinglePathRollout:
        """An empty rollout for actions like these, `[N, A]`; untouched pages take no memory."""
        slots = (self._rows(), self.num_envs)
        layout = Layout.of(self.spec.observation_shape)
        return SinglePathRollout(
            observations=observation_store(slots[0] + 1, self.num_envs, layout),
            actions=np.empty((*slots, actions.shape[1]), dtype=actions.numpy().dtype),
            rewards=np.zeros(slots),
            terminated=np.zeros(slots, dtype=bool),
            truncated=np.zeros(slots, dtype=bool),
            valid=np.zeros(slots, dtype=bool),
            episode_steps=np.zeros(slots, dtype=np.int64),
            raw_observations=np.empty((*slots, layout.vector), dtype=layout.vectors(self._observations[:0]).dtype),
            running_returns=np.zeros(slots),
            life_lost=np.zeros(slots, dtype=bool) if self.settings.env.episodic_life else None,
        )

    def _record(self, rollout: SinglePathRollout, steps: range) -> None:
        """Derive validity, rewards and returns of steps from what the environments returned, in order.

        An environment that only resets leaves an invalid slot with reward 0 and no end.
        """
        for t in steps:
            valid = rollout.valid[t] = ~(self._resetting | self._idle)
            rewards = rollout.rewards[t] = np.where(valid, rollout.rewards[t], 0.0)
            terminated = rollout.terminated[t] = rollout.terminated[t] & valid
            truncated = rollout.truncated[t] = rollout.truncated[t] & valid & ~terminated
            rollout.episode_steps[t] = self._sums.lengths
            counted = signed(rewards, self.settings.normalize)
            self._running_return = self.settings.gamma * self._running_return + counted
            rollout.running_returns[t] = self._running_return
            self._resetting = terminated | truncated
            self._running_return[self._resetting] = 0.0
            over = self._resetting
            if rollout.life_lost is not None:
                rollout.life_lost[t] &= valid
                over = over & ~rollout.life_lost[t]
            self._ended += self._sums.add(t, rewards, valid, over)
            if self.whole_episodes:
                self._done_steps += valid
                self._idle |= over & (self._done_steps >= self.steps)


class _Actions:
    """Actions `[N, A]` of each step, from noise that is drawn T steps at a time, a stream for each environment."""

    def __init__(self, scheme: SinglePathScheme, policy: Policy, iteration: int, kind: str, size: int) -> None:
        seed, indices = scheme.settings.seed, scheme.environments
        self._generators = [numpy_generator(seed, Stream.ACTION_NOISE, iteration, i) for i in indices]
        self._policy, self._normal, self._rows, self._size = policy, kind == "normal", scheme.steps, size

    def __call__(self, t: int, outputs: np.ndarray) -> np.ndarray:
        if t % self._rows == 0:
            block = np.empty((self._rows, len(self._generators), self._size), dtype=np.float32)
            for i, generator in enumerate(self._generators):
                draw = generator.standard_normal if self._normal else generator.random
                block[:, i] = draw((self._rows, self._size), dtype=np.float32)
            self._sample = self._policy.sampler(torch.from_numpy(block))
        return self._sample(t % self._rows, outputs)


def _first_rows(rollout: SinglePathRollout, rows: int) -> SinglePathRollout:
    """The rollout cut to its first `rows` steps, as views."""
    for name, array in vars(rollout).items():
        if isinstance(array, FrameStore):
            setattr(rollout, name, array.first(rows + 1))
        elif isinstance(array, np.ndarray) and name != "states":
            setattr(rollout, name, array[: rows + 1] if name == "observations" else array[:rows])
    return rollout
