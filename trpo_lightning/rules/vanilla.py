"""Vanilla policy gradient: the starting point that the surrogate generalises."""

import time
from typing import Any

import torch
from torch import nn

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.trust_region import surrogate_gradient


class VanillaPolicyGradient(UpdateRule):
    """One Adam step of ascent along the mean of A grad log pi (Williams 1992; Sutton et al. 2000)."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._theta: nn.Parameter | None = None
        self._pending: dict[str, Any] | None = None

    def update(self, policy: Policy, batch: Batch, generator: torch.Generator) -> RuleResult:
        """Rejects a non-finite gradient; Adam's moments are then left as they were."""
        del generator
        began = time.perf_counter()
        old = parameter_vector(policy)
        gradient = surrogate_gradient(policy, batch)
        seconds = {"gradient": time.perf_counter() - began}
        if not torch.isfinite(gradient).all():
            return RuleResult(old, "the gradient is not finite", seconds=seconds)
        adam = self._adam(old)
        assert self._theta is not None
        self._theta.data.copy_(old)
        self._theta.grad = gradient
        adam.step()
        return RuleResult(self._theta.detach().clone(), seconds=seconds)

    def _adam(self, theta: torch.Tensor) -> torch.optim.Adam:
        if self._theta is None:
            self._theta = nn.Parameter(theta.clone())
            self._optimizer = torch.optim.Adam([self._theta], lr=self.settings.learning_rate, maximize=True)
            if self._pending is not None:
                self._optimizer.load_state_dict(self._pending)
        return self._optimizer

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments and step count."""
        return self._optimizer.state_dict() if self._theta is not None else (self._pending or {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; taken over when the policy's parameters are first seen."""
        self._theta, self._pending = None, state or None
