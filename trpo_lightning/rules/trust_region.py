"""The trust-region family: builds the problem of `numerics/trust_region.py` from a policy and a batch."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from trpo_lightning.numerics.trust_region import TrustRegionProblem, TrustRegionStep, trust_region_step
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import AnyBatch
from trpo_lightning.rules.constraint import Candidates, Curvature
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.surrogate import Surrogate, build_surrogate, mean_entropy, surrogate_gradient
from trpo_lightning.settings import TrustRegionSettings


class TrustRegionRule(UpdateRule):
    """TRPO: maximise the surrogate of the whole batch subject to mean KL <= delta on the whole batch.

    Only the Fisher-vector products use a random `fisher_fraction` of the batch (TRPO 2015, appendix C.1). Natural
    gradient, empirical Fisher matrix and max KL are settings of it: other parts for the step's length, the curvature
    (`CURVATURES`) and the bounded KL (`OVER_STATES`, `OVER_DIMENSIONS`).
    """

    Settings = TrustRegionSettings
    settings: TrustRegionSettings

    def update(self, policy: Policy, batch: AnyBatch, generator: torch.Generator) -> RuleResult:
        """One `trust_region_step`."""
        timer, began = _Timer(), time.perf_counter()
        surrogate = timer.timed("gradient", build_surrogate)(policy, batch, self.settings.entropy_bonus)
        candidates = Candidates(policy, surrogate, self.settings)
        step = self.solve(timer.timed_problem(self.problem(policy, batch, surrogate, candidates, generator)))
        seconds = {"gradient": 0.0, "line_search": 0.0, **timer.seconds}
        seconds["cg"] = time.perf_counter() - began - sum(seconds.values())  # all that prepares and solves the system
        metrics = {"policy/entropy": mean_entropy(surrogate), "trust_region/delta": self.delta(), **step.metrics}
        if step.rejection_reason is None:
            metrics |= {"trust_region/kl": candidates.kl["mean"], "trust_region/kl_max": candidates.kl["max"]}
        return RuleResult(step.theta, step.rejection_reason, metrics, seconds)

    def problem(
        self,
        policy: Policy,
        batch: AnyBatch,
        surrogate: Surrogate,
        candidates: Candidates,
        generator: torch.Generator,
    ) -> TrustRegionProblem:
        """What is solved for a batch; nothing is computed before it is asked for."""
        curvature = Curvature(policy, batch, surrogate, self.settings, generator)
        return TrustRegionProblem(
            theta=parameter_vector(policy),
            evaluate=candidates.evaluate,
            gradient=lambda: surrogate_gradient(policy, surrogate).to(curvature.theta.dtype),
            curvature_product=curvature.product,
            largest_curvature=curvature.largest if self.settings.kl_over_states == "max" else None,
        )

    def solve(self, problem: TrustRegionProblem) -> TrustRegionStep:
        """The step, as the settings want it."""
        s = self.settings
        return trust_region_step(
            problem,
            delta=self.delta(),
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

    def delta(self) -> float:
        """The radius now: constant, or on the line from `delta` to `final_delta` (Engstrom et al. 2020, TRPO+)."""
        s = self.settings
        return s.delta if s.final_delta is None else s.delta + (s.final_delta - s.delta) * self.progress


class _Timer:
    """Seconds spent in the callables of a problem that are no part of conjugate gradients."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed_problem(self, problem: TrustRegionProblem) -> TrustRegionProblem:
        """The same problem, timed."""
        return replace(
            problem,
            evaluate=self.timed("line_search", problem.evaluate),
            gradient=self.timed("gradient", problem.gradient),
        )

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return wrapper
