"""The trust-region family: builds the problem of `numerics/trust_region.py` from a policy and a batch."""

import time
from collections.abc import Callable
from typing import Any

import torch

from trpo_lightning.numerics.trust_region import TrustRegionProblem, trust_region_step
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import AnyBatch
from trpo_lightning.rules.constraint import Candidates, Curvature
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.surrogate import build_surrogate, mean_entropy, surrogate_gradient


class TrustRegionRule(UpdateRule):
    """TRPO: maximise the surrogate of the whole batch subject to mean KL <= delta on the whole batch.

    Only the Fisher-vector products use a random `fisher_fraction` of the batch (TRPO 2015, appendix C.1). Natural
    gradient, empirical Fisher matrix and max KL are settings of it: other parts for the step's length, the curvature
    (`CURVATURES`) and the bounded KL (`OVER_STATES`, `OVER_DIMENSIONS`).
    """

    def update(self, policy: Policy, batch: AnyBatch, generator: torch.Generator) -> RuleResult:
        """One `trust_region_step`."""
        s = self.settings
        timer = _Timer()
        began = time.perf_counter()
        surrogate = build_surrogate(policy, batch, s.entropy_bonus)
        candidates = Candidates(policy, surrogate, s)
        curvature = Curvature(policy, batch, surrogate, s, generator)
        problem = TrustRegionProblem(
            theta=parameter_vector(policy),
            evaluate=timer.timed("line_search", candidates.evaluate),
            gradient=timer.timed("gradient", lambda: surrogate_gradient(policy, surrogate).to(curvature.theta.dtype)),
            curvature_product=timer.timed("cg", curvature.product),
            largest_curvature=timer.timed("cg", curvature.largest) if s.kl_over_states == "max" else None,
        )
        delta = self._delta()
        step = trust_region_step(
            problem,
            delta=delta,
            cg_iterations=s.cg_iterations,
            cg_tolerance=s.cg_tolerance,
            damping=s.damping,
            step_length=s.step_length,
            step_size=s.step_size,
            backtrack_ratio=s.backtrack_ratio,
            max_backtracks=s.max_backtracks,
            kl_slack=s.kl_slack,
            improvement_ratio=s.improvement_ratio,
        )
        seconds = {"cg": 0.0, **timer.seconds}
        seconds["overhead"] = time.perf_counter() - began - sum(seconds.values())
        metrics = {"policy/entropy": mean_entropy(surrogate), "trust_region/delta": delta, **step.metrics}
        if step.rejection_reason is None:
            metrics |= {"trust_region/kl": candidates.kl["mean"], "trust_region/kl_max": candidates.kl["max"]}
        return RuleResult(step.theta, step.rejection_reason, metrics, seconds)

    def _delta(self) -> float:
        """The radius now: constant, or on the line from `delta` to `final_delta` (Engstrom et al. 2020, TRPO+)."""
        s = self.settings
        return s.delta if s.final_delta is None else s.delta + (s.final_delta - s.delta) * self.progress


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
