"""The seam between a batch and new parameters."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.settings import RuleSettings
from trpo_lightning.threads import threads_for, torch_threads


@dataclass(frozen=True)
class RuleResult:
    """New parameters `[P]`; on a rejection the old ones, bit for bit, and the reason."""

    theta: Tensor
    rejection_reason: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def apply_rule(rule: "UpdateRule", policy: Policy, batch: Any, generator: torch.Generator) -> RuleResult:
    """The rule's result; a rejection for an empty batch and for parameters that are not finite.

    Raises:
        UserError: the rule wrote to the policy, or its parameters have another shape.
    """
    if not len(batch):
        return RuleResult(parameter_vector(policy), "the rollout has no transition")
    theta = parameter_vector(policy)
    with torch_threads(threads_for(len(batch), len(theta))):
        result = rule.update(policy, batch, generator)
    _check_result(rule, result, policy, theta)
    if not torch.isfinite(result.theta).all():
        return RuleResult(theta, "the new parameters are not finite", result.metrics, result.seconds)
    return result


def _check_result(rule: "UpdateRule", result: RuleResult, policy: Policy, before: Tensor) -> None:
    """What a rule from outside may get wrong."""
    name = f"rule.name={rule.settings.name}"
    if result.theta.shape != before.shape:
        shape, size = list(result.theta.shape), len(before)
        raise UserError(f"{name}: update returned parameters of shape {shape}: the policy has [{size}]")
    if not torch.equal(parameter_vector(policy), before):
        raise UserError(f"{name}: update wrote to the policy: return the new parameters instead")


class UpdateRule:
    """A rule reads a policy and a batch and returns new parameters; it never writes to the policy.

    `Settings` is the dataclass of the rule's keys, of which `self.settings` is one; a rule of one's own derives it from
    `RuleSettings`, or from `AdvantageRuleSettings` if it learns from the advantages of transitions.
    """

    Settings: ClassVar[type[RuleSettings]] = RuleSettings

    progress: float = 0.0
    """Share of the run's budget that is done, in [0, 1]: what schedules follow. Set before each update."""

    def __init__(self, settings: RuleSettings) -> None:
        self.settings = settings

    def update(self, policy: Policy, batch: Any, generator: torch.Generator) -> RuleResult:
        """New parameters from a batch collected with `policy` as it is; `generator` is this iteration's own."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def propose(self, policy: Policy, generator: torch.Generator) -> Tensor:
        """Candidate parameter vectors `[K, P]` for the scheme `population`; `generator` is this iteration's own."""
        raise NotImplementedError(f"{type(self).__name__} proposes no candidates")

    def state_dict(self) -> dict[str, Any]:
        """What the rule remembers between iterations, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""


class ParameterUpdate(torch.optim.Optimizer):
    """Writes a rule's parameters into the policy: the one optimizer step that Lightning counts in an iteration."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.parameters(), {})
        self._policy = policy

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`closure()` returns theta `[P]`."""
        assign_parameter_vector(self._policy, closure())
