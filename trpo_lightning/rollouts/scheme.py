"""Sampling schemes: how an iteration's data comes from the environments."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.settings import PathSettings, RolloutSettings, RunSettings

Propose = Callable[[Policy, torch.Generator], Tensor]
"""From a policy and noise to candidate parameter vectors `[K, P]`: a rule's, for the scheme `population`."""


class SamplingScheme:
    """A scheme owns the training environments. Between two `restart`s it may carry episodes on.

    `Settings` is the dataclass of the scheme's keys; its `kind` says which built-in scheme the data is like.
    """

    Settings: ClassVar[type[RolloutSettings]] = RolloutSettings

    def __init__(self, settings: RunSettings, spec: EnvironmentSpec, threads: int, propose: Propose) -> None:
        self.settings, self.spec, self.threads, self.propose = settings, spec, threads, propose
        self.rollout_settings = settings.rollout
        self.num_envs = settings.env.num_envs
        self.steps = 1
        """Steps of each environment in an iteration, at least: what barriers are spaced by."""
        if isinstance(settings.rollout, PathSettings):
            self.steps = settings.rollout.steps_per_iteration // self.num_envs

    def restart(self, iteration: int, attempt: int = 0) -> None:
        """Cut all episodes; what follows depends on (seed, iteration) and no longer on what was before.

        Later attempts at an iteration, after environments have failed, have other seeds of environments.
        """
        raise NotImplementedError(f"{type(self).__name__} has no restart")

    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> Rollout:
        """The iteration's data with `policy` (on the CPU), as its parameters are now."""
        raise NotImplementedError(f"{type(self).__name__} has no collect")

    def close(self) -> None:
        """Close the environments."""
