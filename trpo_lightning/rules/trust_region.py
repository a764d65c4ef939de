"""The trust-region family: builds the problem of `numerics/trust_region.py` from a policy and a batch."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch

from trpo_lightning.numerics.trust_region import TrustRegionProblem, TrustRegionStep, trust_region_step
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import AnyBatch, Batch
from trpo_lightning.rules.constraint import Candidates, Curvature
from trpo_lightning.rules.mixture import shortening
from trpo_lightning.rules.rejections import of_step
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.surrogate import ENTROPY_METRIC, Surrogate, mean_entropy, surrogate_and_gradient
from trpo_lightning.settings import TrustRegionSettings

ROUNDINGS = 8.0
"""Relative roundings of a surrogate's terms that its rise must exceed to count as a signal."""


class TrustRegionRule(UpdateRule):
    """TRPO: maximise the surrogate of the whole batch subject to mean KL <= delta on the whole batch.

    Only the Fisher-vector products use a random `fisher_fraction` of the batch (TRPO 2015, appendix C.1). Natural
    gradient, empirical Fisher matrix and max KL are this rule with other settings for the step length, the curvature
    (`CURVATURES`) and the bounded KL (`OVER_STATES`, `OVER_DIMENSIONS`). From the batches of several policies
    (`rule.reuse`) it takes shorter steps, all of their lengths divided by `shortening` (GeTRPO, Queeney et al. 2022).
    """

    Settings = TrustRegionSettings
    settings: TrustRegionSettings
    metrics: ClassVar[dict[str, str]] = {
        "trust_region/delta": "the radius in this iteration (with `rule.reuse`: over the square of the mean age)",
        "trust_region/kl": (
            "mean KL of old and new policy over the batch after the search (per `rule.kl_over_dimensions`)"
        ),
        "trust_region/kl_max": "the largest KL among those states",
        "trust_region/kl_quadratic": "the mean KL that the Fisher matrix predicts: step' A step / 2",
        "trust_region/kl_quadratic_damped": "the same with damping: step' (A + damping I) step / 2",
        "trust_region/surrogate_improvement": "rise of the surrogate, entropy bonus included, over the whole batch",
        "trust_region/expected_improvement": "its first-order prediction: gradient' step",
        "trust_region/step_norm": "2-norm of the step in parameters",
        "trust_region/step_size": ("multiplier beta of the step: step = beta s, with (A + damping I) s = gradient"),
        "cg/iterations": "conjugate-gradient iterations",
        "cg/residual": "true relative residual: the norm of g - (A + damping I) s over that of g",
        "line_search/backtracks": "times the full step was shrunk",
        "line_search/accepted": "1 if the line search found a step",
        **ENTROPY_METRIC,
        "time/gradient": "seconds of the surrogate's gradient",
        "time/cg": "seconds of conjugate gradients with their Fisher-vector products",
        "time/line_search": "seconds of the line search",
    }

    def update(self, policy: Policy, batch: AnyBatch, generator: torch.Generator) -> RuleResult:
        """One `trust_region_step`."""
        timer, began = _Timer(), time.perf_counter()
        differentiated = timer.timed("gradient", surrogate_and_gradient)
        surrogate, gradient = differentiated(policy, batch, self.settings.entropy_bonus)
        candidates = Candidates(policy, surrogate, self.settings)
        problem = self.problem(policy, batch, surrogate, gradient, candidates, generator)
        step = self.solve(timer.timed_problem(problem), batch)
        seconds = {"line_search": 0.0, **timer.seconds}
        seconds["cg"] = time.perf_counter() - began - sum(seconds.values())  # whatever prepares and solves the system
        metrics = {"policy/entropy": mean_entropy(surrogate), "trust_region/delta": self.delta(), **step_metrics(step)}
        if step.rejection is None:
            metrics |= {"trust_region/kl": candidates.kl["mean"], "trust_region/kl_max": candidates.kl["max"]}
        return RuleResult(step.theta, of_step(step), metrics, seconds, step.nothing_to_gain)

    def problem(
        self,
        policy: Policy,
        batch: AnyBatch,
        surrogate: Surrogate,
        gradient: torch.Tensor,
        candidates: Candidates,
        generator: torch.Generator,
    ) -> TrustRegionProblem:
        """The problem for a batch, whose gradient is known; nothing else is computed until the solver asks for it."""
        curvature = Curvature(policy, batch, surrogate, self.settings, generator)
        return TrustRegionProblem(
            theta=parameter_vector(policy),
            evaluate=candidates.evaluate,
            gradient=lambda: gradient.to(curvature.theta.dtype),
            curvature_product=curvature.product,
            largest_curvature=curvature.largest if self.settings.kl_over_states == "max" else None,
            resolution=ROUNDINGS * torch.finfo(parameter_vector(policy).dtype).eps * surrogate.magnitude(),
        )

    def solve(self, problem: TrustRegionProblem, batch: AnyBatch) -> TrustRegionStep:
        """The step that the settings describe, for the problem of a batch.

        `rule.max_step_size` is in units of the scaled rewards, so advantages that were standardized raise the limit by
        what they were divided by.
        """
        s = self.settings
        limit = math.inf
        if isinstance(batch, Batch) and s.step_length != "fixed" and s.max_step_size is not None:
            limit = s.max_step_size * batch.advantage_std / shortening(s)
        return trust_region_step(
            problem,
            delta=self.delta(),
            cg_iterations=s.cg_iterations,
            cg_tolerance=s.cg_tolerance,
            damping=s.damping,
            step_length=s.step_length,
            step_size=s.step_size / shortening(s),
            max_step_size=limit,
            backtrack_ratio=s.backtrack_ratio,
            max_backtracks=s.max_backtracks,
            kl_slack=s.kl_slack,
            improvement_ratio=s.improvement_ratio,
        )

    def delta(self) -> float:
        """The radius now: constant, or on the line from `delta` to `final_delta` (Engstrom et al. 2020, TRPO+).

        With batches of several policies it is smaller, so that the change over all of them is that of one.
        """
        s = self.settings
        done = self.progress if s.annealing_steps is None else min(1.0, self.env_steps / s.annealing_steps)
        radius = s.delta if s.final_delta is None else s.delta + (s.final_delta - s.delta) * done
        return radius / shortening(s) ** 2


def step_metrics(step: TrustRegionStep) -> dict[str, float]:
    """A step's numbers by metric name, as far as it got."""
    metrics: dict[str, float] = {}
    if step.solution is not None:
        metrics |= {"cg/iterations": float(step.solution.iterations), "cg/residual": step.solution.residual}
    if step.search is not None:
        metrics["line_search/backtracks"] = float(step.search.backtracks)
        metrics["line_search/accepted"] = float(step.search.accepted)
    if step.search is not None and step.search.accepted:
        metrics |= {
            "trust_region/kl_quadratic": step.quadratic,
            "trust_region/kl_quadratic_damped": step.quadratic_damped,
            "trust_region/surrogate_improvement": step.search.improvement,
            "trust_region/expected_improvement": step.expected_improvement,
            "trust_region/step_norm": step.norm,
            "trust_region/step_size": step.scale,
        }
    return metrics


class _Timer:
    """Seconds spent in a problem's callables, except those that conjugate gradients call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed_problem(self, problem: TrustRegionProblem) -> TrustRegionProblem:
        """The same problem, timed."""
        return replace(problem, evaluate=self.timed("line_search", problem.evaluate))

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return wrapper
