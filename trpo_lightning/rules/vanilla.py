"""Vanilla policy gradient, which the surrogate generalises."""

import copy
import time
from typing import Any, ClassVar

import torch
from torch import nn

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import AnyBatch
from trpo_lightning.rules.rejections import Rejection
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.surrogate import ENTROPY_METRIC, mean_entropy, surrogate_and_gradient
from trpo_lightning.settings import VanillaPolicyGradientSettings


class VanillaPolicyGradient(UpdateRule):
    """One Adam step of ascent along the mean of A grad log pi (Williams 1992; Sutton et al. 2000).

    With `discounted_state_weights`, A carries the factor gamma^t from the policy gradient's definition.
    """

    Settings = VanillaPolicyGradientSettings
    settings: VanillaPolicyGradientSettings
    metrics: ClassVar[dict[str, str]] = {**ENTROPY_METRIC, "time/gradient": "seconds of the surrogate's gradient"}

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._theta: nn.Parameter | None = None
        self._pending: dict[str, Any] | None = None

    def update(self, policy: Policy, batch: AnyBatch, generator: torch.Generator) -> RuleResult:
        """Take the step. A gradient that is not finite, or whose square is not, is rejected; Adam's moments stay."""
        del generator
        began = time.perf_counter()
        old = parameter_vector(policy)
        surrogate, gradient = surrogate_and_gradient(policy, batch, self.settings.entropy_bonus)
        metrics = {"policy/entropy": mean_entropy(surrogate)}
        seconds = {"gradient": time.perf_counter() - began}
        if not torch.isfinite(gradient).all():
            return RuleResult(old, Rejection.GRADIENT_NOT_FINITE, metrics, seconds)
        if not torch.isfinite(gradient.square()).all():  # it would stay in the second moment forever
            return RuleResult(old, Rejection.SQUARE_NOT_FINITE, metrics, seconds)
        adam = self._adam(old)
        assert self._theta is not None
        self._theta.data.copy_(old)
        self._theta.grad = gradient
        adam.step()
        return RuleResult(self._theta.detach().clone(), None, metrics, seconds)

    def _adam(self, theta: torch.Tensor) -> torch.optim.Adam:
        if self._theta is None:
            self._theta = nn.Parameter(theta.clone())
            self._optimizer = torch.optim.Adam([self._theta], lr=self.settings.learning_rate, maximize=True)
            if self._pending is not None:
                groups = self._optimizer.state_dict()["param_groups"]  # the step size is the settings', not the state's
                self._optimizer.load_state_dict({"state": {0: self._pending}, "param_groups": groups})
        return self._optimizer

    def state_dict(self) -> dict[str, Any]:
        """Copies of Adam's moments and step count."""
        moments = self._pending if self._theta is None else self._optimizer.state.get(self._theta)
        return copy.deepcopy(moments or {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; it is loaded when the policy's parameters are first seen."""
        self._theta, self._pending = None, copy.deepcopy(state) or None
