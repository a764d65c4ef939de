"""The interface of update rules: from a batch to new parameters."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.rejections import Rejection
from trpo_lightning.settings import RuleSettings
from trpo_lightning.threads import threads_for, torch_threads


@dataclass(frozen=True)
class RuleResult:
    """New parameters `[P]`; after a rejection the old ones, bit for bit, and the reason.

    Args:
        theta: The parameters.
        rejection_reason: A `Rejection`, or a rule's own text; None if the parameters are new.
        metrics: Numbers by metric name.
        seconds: Seconds of each phase, logged as `time/<phase>`.
        nothing_to_gain: Whether the update was rejected for lack of a signal, with all numbers finite: such a run is
            done, or waits for a signal. Other rejections are failures and count towards `rule.max_rejections`.
    """

    theta: Tensor
    rejection_reason: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    nothing_to_gain: bool = False


def apply_rule(rule: "UpdateRule", policy: Policy, batch: Any, generator: torch.Generator) -> RuleResult:
    """Update by a rule, to parameters that the policy may have; an empty batch, or some not finite, are rejections.

    Raises:
        UserError: The rule wrote to the policy, or returned parameters of the wrong shape.
    """
    if not (batch.share.count if isinstance(batch, Batch) else len(batch)):
        return RuleResult(parameter_vector(policy), Rejection.NO_TRANSITION)
    theta = parameter_vector(policy)
    with torch_threads(threads_for(len(batch), len(theta))):
        result = rule.update(policy, batch, generator)
    _check_result(rule, result, policy, theta)
    if not torch.isfinite(result.theta).all():
        return RuleResult(theta, Rejection.PARAMETERS_NOT_FINITE, result.metrics, result.seconds)
    return result if result.rejection_reason else replace(result, theta=policy.projected(result.theta))


def _check_result(rule: "UpdateRule", result: RuleResult, policy: Policy, before: Tensor) -> None:
    """Check what a custom rule may get wrong."""
    name = f"rule.name={rule.settings.name}"
    if not isinstance(result, RuleResult):
        raise UserError(f"{name}: update returned a {type(result).__name__}, not a RuleResult")
    for field_name, value, kind in (("theta", result.theta, Tensor), ("metrics", result.metrics, dict)):
        if not isinstance(value, kind):
            raise UserError(f"{name}: update returned a {type(value).__name__} for {field_name}, not a {kind.__name__}")
    if result.theta.shape != before.shape:
        shape, size = list(result.theta.shape), len(before)
        raise UserError(f"{name}: update returned parameters of shape {shape}: the policy has [{size}]")
    if not torch.equal(parameter_vector(policy), before):
        raise UserError(f"{name}: update wrote to the policy: return the new parameters instead")


class UpdateRule:
    """Base of all rules: reads a policy and a batch and returns new parameters; it never writes to the policy.

    `Settings` is the dataclass of the rule's keys, and `self.settings` an instance of it. A custom rule derives its
    own from `RuleSettings`, or from `AdvantageRuleSettings` if it learns from the advantages of transitions.
    """

    Settings: ClassVar[type[RuleSettings]] = RuleSettings

    metrics: ClassVar[dict[str, str]] = {}
    """Names and meanings of the metrics in results, including `time/<phase>` for each phase in `seconds`."""
    progress: float = 0.0
    """Share of the run's budget used so far, in [0, 1], which schedules follow. Set before each update."""
    env_steps: int = 0
    """Env steps before this iteration, for schedules that do not depend on the budget. Set before each update."""

    def __init__(self, settings: RuleSettings) -> None:
        self.settings = settings

    def update(self, policy: Policy, batch: Any, generator: torch.Generator) -> RuleResult:
        """Compute new parameters.

        Args:
            policy: The policy that collected the batch, unchanged since.
            batch: The batch, of a kind that depends on the sampling scheme.
            generator: This iteration's source of random numbers.

        Returns:
            The new parameters, or the old ones with the reason for rejecting the update.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def propose(self, policy: Policy, generator: torch.Generator) -> Tensor:
        """Propose candidate parameter vectors `[K, P]` for the scheme `population`.

        Args:
            policy: The current policy.
            generator: This iteration's source of random numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} proposes no candidates")

    def state_dict(self) -> dict[str, Any]:
        """What the rule remembers between iterations, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""


class ParameterUpdate(torch.optim.Optimizer):
    """Writes a rule's parameters into the policy: the one optimizer step that Lightning counts in an iteration.

    Its learning rate is always 1, and is there only for callbacks that monitor learning rates.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.parameters(), {"lr": 1.0})
        self._policy = policy

    @torch.no_grad()
    def step(self, closure: Any = None, *, theta: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write `theta` `[P]`. Lightning passes `closure`, for callbacks that follow optimizer steps."""
        if closure is not None:
            closure()
        assign_parameter_vector(self._policy, theta)
