"""The trust-region family: builds the problem of `numerics/trust_region.py` from a policy and a batch."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trpo_lightning.numerics.curvature import fisher_vector_product
from trpo_lightning.numerics.objectives import importance_sampled_surrogate, kl_divergence
from trpo_lightning.numerics.trust_region import TrustRegionProblem, trust_region_step
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.rule import RuleResult, UpdateRule

CHUNK = 65536
"""Rows evaluated at once: bounds the memory of a large batch."""


class TrustRegionRule(UpdateRule):
    """TRPO: maximise the surrogate of the whole batch subject to mean KL <= delta on the whole batch.

    Only the Fisher-vector products use a random `fisher_fraction` of the batch (TRPO 2015, appendix C.1).
    """

    def update(self, policy: Policy, batch: Batch, generator: torch.Generator) -> RuleResult:
        """One `trust_region_step`."""
        s = self.settings
        timer = _Timer()
        began = time.perf_counter()
        step = trust_region_step(
            self._problem(policy, batch, generator, timer),
            delta=s.delta,
            cg_iterations=s.cg_iterations,
            cg_tolerance=s.cg_tolerance,
            damping=s.damping,
            step_length=s.step_length,
            backtrack_ratio=s.backtrack_ratio,
            max_backtracks=s.max_backtracks,
            kl_slack=s.kl_slack,
            improvement_ratio=s.improvement_ratio,
        )
        seconds = {"cg": 0.0, **timer.seconds}
        seconds["overhead"] = time.perf_counter() - began - sum(seconds.values())
        return RuleResult(step.theta, step.rejection_reason, step.metrics, seconds)

    def _problem(self, policy: Policy, batch: Batch, generator: torch.Generator, timer: "_Timer") -> TrustRegionProblem:
        theta = parameter_vector(policy)
        old = _OldPolicy(policy, batch, self.settings.kl_direction)
        rows = fisher_rows(len(batch), self.settings.fisher_fraction, generator).to(theta.device)
        observations = batch.observations[rows]
        operator: list[Callable[[Tensor], Tensor]] = []

        def product(v: Tensor) -> Tensor:
            if not operator:  # its graph is built when the first product is asked for
                operator.append(
                    fisher_vector_product(
                        lambda th, part: policy.at(th, observations[part]), theta, len(rows), chunk=CHUNK
                    )
                )
            return operator[0](v)

        return TrustRegionProblem(
            theta=theta,
            evaluate=timer.timed("line_search", old.evaluate),
            gradient=timer.timed("gradient", lambda: surrogate_gradient(policy, batch)),
            curvature_product=timer.timed("cg", product),
        )


def fisher_rows(rows: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Indices of a random subset of `fraction` of the rows, at least one; all rows in order for 1."""
    if fraction >= 1.0:
        return torch.arange(rows)
    return torch.randperm(rows, generator=generator)[: max(1, round(rows * fraction))]


def surrogate_gradient(policy: Policy, batch: Batch, chunk: int = CHUNK) -> Tensor:
    """The surrogate's gradient `[P]` at the policy's own parameters: the mean of A grad log pi."""
    parameters = list(policy.parameters())
    total = torch.zeros_like(parameter_vector(policy))
    for part in _slices(len(batch), chunk):
        log_prob = policy(batch.observations[part]).log_prob(batch.actions[part])
        surrogate = importance_sampled_surrogate(log_prob, log_prob.detach(), batch.advantages[part])
        total += torch.cat([g.reshape(-1) for g in torch.autograd.grad(surrogate, parameters)])
    return total / len(batch)


class _OldPolicy:
    """What the line search compares candidates with: distributions and log-probabilities at theta_old, recomputed."""

    def __init__(self, policy: Policy, batch: Batch, kl_direction: str) -> None:
        self.policy, self.batch, self.kl_direction = policy, batch, kl_direction
        with torch.no_grad():
            self.parts = [(part, policy(batch.observations[part])) for part in _slices(len(batch), CHUNK)]
            self.log_probs = [old.log_prob(batch.actions[part]) for part, old in self.parts]

    @torch.no_grad()
    def evaluate(self, theta: Tensor) -> tuple[float, float]:
        """Mean surrogate and mean KL of the whole batch at `theta` `[P]`."""
        surrogate = kl = 0.0
        for (part, old), old_log_prob in zip(self.parts, self.log_probs, strict=True):
            new: Any = self.policy.at(theta, self.batch.observations[part])
            log_prob = new.log_prob(self.batch.actions[part])
            surrogate += float(importance_sampled_surrogate(log_prob, old_log_prob, self.batch.advantages[part]))
            kl += float(kl_divergence(old, new, self.kl_direction).sum(dtype=torch.float64))
        return surrogate / len(self.batch), kl / len(self.batch)


def _slices(rows: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]


class _Timer:
    """Seconds spent in each of a problem's callables."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return wrapper
