"""The update of Trust Region Policy Optimization (Schulman et al. 2015, arXiv 1502.05477, appendix C).

    maximise L(theta)  subject to  mean KL(theta_old, theta) <= delta

by one natural-gradient direction, a step to the boundary of the quadratic model, and a backtracking line search.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trpo_lightning.numerics.conjugate_gradient import conjugate_gradient, dot
from trpo_lightning.numerics.line_search import backtracking_line_search


@dataclass(frozen=True)
class TrustRegionProblem:
    """What the solver knows: four callables and a start. No policy, no batch, no rollout.

    `theta` `[P]` is where the surrogate was built; `evaluate(theta)` returns (surrogate, constraint) as floats, with
    constraint 0 at `theta`; `gradient()` `[P]` is the surrogate's gradient at `theta`; `curvature_product(v)` is A v,
    A the Hessian of the constraint at `theta` (positive semi-definite), undamped.
    """

    theta: Tensor
    evaluate: Callable[[Tensor], tuple[float, float]]
    gradient: Callable[[], Tensor]
    curvature_product: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TrustRegionStep:
    """The outcome. A rejected step has `rejection_reason` set and `theta` bit-identical to where it started."""

    theta: Tensor
    rejection_reason: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def trust_region_step(
    problem: TrustRegionProblem,
    *,
    delta: float,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-10,
    damping: float = 0.1,
    step_length: str = "damped",
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    kl_slack: float | None = 1.0,
    improvement_ratio: float = 0.0,
) -> TrustRegionStep:
    r"""Solve the problem once: s ~ (A + damping I)^-1 g, step beta s, backtrack until L rises and KL <= delta.

    beta = sqrt(2 delta / s'(A + damping I)s) for `step_length="damped"` (what implementations do), and
    sqrt(2 delta / s'As), the paper's, for `"undamped"`. The search accepts KL <= kl_slack * delta (None: any) and a
    rise of L above improvement_ratio times its first-order prediction. Metrics: the KL found, the two quadratic
    predictions step'A step / 2 and step'(A + damping I) step / 2, the surrogate's rise, its prediction g'step, the
    step's 2-norm, CG iterations and true relative residual, and backtracks. Nothing raises on bad numbers: a
    non-finite gradient, curvature or candidate, or a direction that is not one of ascent, is a rejection with a reason.
    """
    gradient = problem.gradient()
    if not torch.isfinite(gradient).all():
        return TrustRegionStep(problem.theta, "the gradient is not finite")

    solution = conjugate_gradient(
        problem.curvature_product, gradient, iterations=cg_iterations, tolerance=cg_tolerance, damping=damping
    )
    s = solution.x
    curvature = dot(s, solution.product)  # s'As
    damped_curvature = curvature + damping * dot(s, s)  # s'(A + damping I)s
    ascent = dot(s, gradient)
    metrics = {"cg/iterations": float(solution.iterations), "cg/residual": solution.residual}
    if not (torch.isfinite(s).all() and damped_curvature < float("inf")):
        return TrustRegionStep(problem.theta, "the conjugate-gradient solution is not finite", metrics)
    if not (curvature > 0.0 and ascent > 0.0):
        return TrustRegionStep(problem.theta, "there is no ascent direction with positive curvature", metrics)

    beta = (2.0 * delta / (damped_curvature if step_length == "damped" else curvature)) ** 0.5
    search = backtracking_line_search(
        problem.evaluate,
        problem.theta,
        beta * s,
        bound=math.inf if kl_slack is None else kl_slack * delta,
        ratio=backtrack_ratio,
        max_backtracks=max_backtracks,
        least_improvement=improvement_ratio * beta * ascent,
    )
    metrics |= {"line_search/backtracks": float(search.backtracks), "line_search/accepted": float(search.accepted)}
    if not search.accepted:
        return TrustRegionStep(problem.theta, f"the line search found no step: {search.failure}", metrics)

    scale = beta * search.fraction
    metrics |= {
        "trust_region/kl": search.constraint,
        "trust_region/kl_quadratic": scale**2 * curvature / 2.0,
        "trust_region/kl_quadratic_damped": scale**2 * damped_curvature / 2.0,
        "trust_region/surrogate_improvement": search.improvement,
        "trust_region/expected_improvement": scale * ascent,
        "trust_region/step_norm": scale * dot(s, s) ** 0.5,
    }
    return TrustRegionStep(search.theta, None, metrics)
