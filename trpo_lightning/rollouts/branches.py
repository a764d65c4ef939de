"""Branch rollouts of the vine scheme: many continuations from snapshots, in worker environments stepped together."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.environments.snapshots import Restorable, Snapshot
from trpo_lightning.environments.supervised.workers import make_worker, step_workers
from trpo_lightning.policies.inference import remembering_forward
from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, numpy_generator
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.settings import RunSettings, VineSettings

WORKERS = 256
"""Branches that run at the same time, each in its own environment; the limit bounds memory."""


@dataclass
class BranchRecord:
    """What the branches cost: environment steps, and seconds in the environments and with the policy."""

    env_steps: int = 0
    simulator: float = 0.0
    inference: float = 0.0


class Branches:
    """K rollouts of fixed length from each of S snapshots; the K from one snapshot share their random numbers.

    The policy's noise is indexed by state and step; the environment's generator is seeded by the state. A branch that
    terminates or reaches a time limit ends early; one that has to act on a non-finite observation returns NaN.
    """

    def __init__(self, settings: RunSettings) -> None:
        assert isinstance(settings.rollout, VineSettings)
        self.settings, self.length = settings, settings.rollout.branch_length
        self._workers: list[Restorable] = []

    def close(self) -> None:
        """Close the worker environments."""
        for worker in self._workers:
            worker.env.close()
        self._workers = []

    def run(
        self,
        policy: Policy,
        normalizer: Normalizer,
        iteration: int,
        snapshots: list[Snapshot],
        actions: np.ndarray,
        noise: Tensor,
        memory: np.ndarray,
    ) -> tuple[np.ndarray, BranchRecord]:
        """Run all branches.

        Args:
            policy: The policy that acts after the first step, on the CPU.
            normalizer: What the policy sees of observations, and the scale of rewards.
            iteration: Seeds the environments' generators, with the state's index.
            snapshots: The S states to start from.
            actions: First actions `[S, K, A]`.
            noise: The policy's noise `[S, branch_length - 1, A]` for later actions.
            memory: What the policy remembers `[S, M]` after it saw the states; M is 0 without a memory.

        Returns:
            Discounted sums `[S, K]` of rewards as the update sees them, without a bootstrap at a branch's end, and what
            the branches cost.
        """
        states, branches = actions.shape[:2]
        first = actions.reshape(states * branches, actions.shape[2])
        origin = np.repeat(np.arange(states), branches)
        returns, record = np.zeros(states * branches), BranchRecord()
        while len(self._workers) < min(WORKERS, len(first)):
            self._workers.append(make_worker(self.settings.env))
        for start in range(0, len(first), WORKERS):
            wave = slice(start, start + WORKERS)
            for worker, state in zip(self._workers, origin[wave], strict=False):
                worker.restore(snapshots[state])
                generator = numpy_generator(self.settings.seed, Stream.BRANCH_ENVIRONMENT, iteration, int(state))
                worker.env.unwrapped.np_random = generator
            returns[wave] = self._wave(
                policy, normalizer, first[wave], noise[origin[wave]], memory[origin[wave]], record
            )
        return returns.reshape(states, branches), record

    def _wave(
        self,
        policy: Policy,
        normalizer: Normalizer,
        actions: np.ndarray,
        noise: Tensor,
        memory: np.ndarray,
        record: BranchRecord,
    ) -> np.ndarray:
        """Returns `[W]` of the first W workers, each from its current state."""
        forward = remembering_forward(policy.network)
        returns, discount, alive = np.zeros(len(actions)), 1.0, np.arange(len(actions))
        for step in range(self.length):
            began = time.perf_counter()
            workers = [self._workers[i] for i in alive]
            observations, rewards, ended = step_workers(workers, actions, self.settings.env)
            record.simulator += time.perf_counter() - began
            record.env_steps += len(alive)
            returns[alive] += discount * normalizer.scale_rewards(rewards)
            discount *= self.settings.gamma
            alive, observations, memory = alive[~ended], observations[~ended], memory[~ended]
            if not len(alive) or step == self.length - 1:
                break
            returns[alive[~np.isfinite(observations).reshape(len(alive), -1).all(1)]] = np.nan  # it acts on these
            began = time.perf_counter()
            outputs = forward(normalizer.normalize(observations), memory)
            actions = policy.distribution(torch.from_numpy(outputs)).sample(noise[alive, step]).numpy()
            record.inference += time.perf_counter() - began
        return returns
