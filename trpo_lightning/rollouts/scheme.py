"""The interface of sampling schemes: how an iteration's data comes from the environments."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.policies.policy import Policy
from trpo_lightning.ranks import ONE, Ranks
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.settings import PathSettings, RolloutSettings, RunSettings

Propose = Callable[[Policy, torch.Generator], Tensor]
"""A rule's `propose`, for the scheme `population`: from a policy and a generator to candidate parameters `[K, P]`."""


class SamplingScheme:
    """Base of all schemes: owns the training environments, and may continue episodes between two calls of `restart`.

    `Settings` is the dataclass of the scheme's keys; its `kind` names the built-in scheme whose data it resembles.
    """

    Settings: ClassVar[type[RolloutSettings]] = RolloutSettings

    metrics: ClassVar[dict[str, str]] = {
        "episode/return_mean": (
            "mean undiscounted return of the episodes that ended in this iteration (empty if none did)"
        ),
        "episode/length_mean": "mean length of these episodes, in steps",
        "episode/count": "how many episodes ended",
        "time/collect": "seconds of the rollout, of which:",
        "time/simulator": "seconds inside the environments' step",
        "time/inference": "seconds of normalization and the policy's forward pass and sampling",
    }
    """Names and meanings of a rollout's metrics: those that `measure` returns, and `time/<phase>` for its `seconds`."""

    def __init__(self, settings: RunSettings, spec: EnvironmentSpec, threads: int, propose: Propose) -> None:
        self.settings, self.spec, self.threads, self.propose = settings, spec, threads, propose
        self.rollout_settings = settings.rollout
        self.num_envs = settings.env.num_envs
        self.ranks, self.environments = ONE, range(self.num_envs)
        self.steps = 1
        """The least number of steps in each environment per iteration, by which barriers are spaced."""
        if isinstance(settings.rollout, PathSettings):
            self.steps = settings.rollout.steps_per_iteration // self.num_envs

    def join(self, ranks: Ranks) -> None:
        """Step this rank's share of the environments, `environments` by their global indices, `num_envs` of them."""
        self.ranks, self.environments = ranks, ranks.environments(self.settings.env.num_envs)
        self.num_envs = len(self.environments)

    def restart(self, iteration: int, attempt: int = 0) -> None:
        """Cut all episodes: what follows depends only on the arguments and the seed, not on what was before.

        Args:
            iteration: The iteration that is collected next.
            attempt: How often environments have failed in this iteration; each attempt gives them other seeds.
        """
        raise NotImplementedError(f"{type(self).__name__} has no restart")

    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> Rollout:
        """Collect one iteration's data.

        Args:
            policy: The policy with its current parameters, on the CPU.
            normalizer: What the policy sees of observations, and the scale of rewards; frozen here.
            iteration: The iteration, from which random numbers derive.

        Raises:
            EnvironmentFailure: An environment failed; after `restart`, the iteration can be collected again.
        """
        raise NotImplementedError(f"{type(self).__name__} has no collect")

    def close(self) -> None:
        """Close the environments."""
