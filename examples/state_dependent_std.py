"""A custom policy: a Gaussian whose standard deviation depends on the state, so that it can explore where that pays.

In this folder:

$ python -m trpo_lightning train policy.name=state_dependent_std:StateDependentStd policy.log_std_range=1 \
    env.id=Pendulum-v1 rollout.steps_per_iteration=3200 total_env_steps=64_000 \
    name=own_policy

Every rule works with it: TRPO's Fisher products need only the distribution's parameters for each observation.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.policies.distributions import Gaussian
from trpo_lightning.policies.networks import build_network
from trpo_lightning.policies.policy import OUTPUT_GAIN, Policy
from trpo_lightning.policies.spaces import ActionSpec, ContinuousActions
from trpo_lightning.settings import MLPPolicySettings, option


@dataclass
class StateDependentStdSettings(MLPPolicySettings):
    """The keys of the built-in perceptron and one more."""

    log_std_range: float = option(2.0, "log std stays within this of policy.initial_log_std", above=0.0, maximum=5.0)


class StateDependentStd(Policy):
    """One network `[B, O] -> [B, 2 A]`: means, and numbers that a tanh turns into bounded log stds."""

    Settings = StateDependentStdSettings
    settings: StateDependentStdSettings
    metrics: ClassVar[dict[str, str]] = {"policy/bias_log_std": "mean log std where the last hidden layer is 0"}

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        actions: ActionSpec,
        settings: StateDependentStdSettings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not isinstance(actions, ContinuousActions):
            raise UserError(f"policy.name={settings.name}: needs continuous actions (a Box)")
        self.settings = settings
        self.network = build_network(
            observation_shape,
            2 * actions.size,
            hidden_sizes=settings.hidden_sizes,
            activation=settings.activation,
            output_gain=OUTPUT_GAIN,  # so small that every state begins with policy.initial_log_std
            generator=generator,
        )

    def distribution(self, outputs: Tensor) -> Gaussian:
        """Return the distributions for the network's outputs, which is all that rules, sampling and evaluation need."""
        mean, log_std = outputs.chunk(2, dim=-1)
        return Gaussian(mean, self._bounded(log_std))

    def measure(self) -> dict[str, float]:
        """Return this policy's own metric for the record of each iteration."""
        bias = self.network[-1].bias.detach()  # type: ignore[index]
        return {"policy/bias_log_std": float(self._bounded(bias.chunk(2)[1]).mean())}

    def _bounded(self, x: Tensor) -> Tensor:
        """Bound the log std smoothly; a clamp would have no gradient outside."""
        return self.settings.initial_log_std + self.settings.log_std_range * torch.tanh(x)
