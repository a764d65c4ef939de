"""The update of Trust Region Policy Optimization (Schulman et al. 2015, arXiv 1502.05477, appendix C).

    maximise L(theta)  subject to  KL(theta_old, theta) <= delta, its mean over states or its maximum

by one natural-gradient direction, a step to the boundary of the quadratic model, and a backtracking line search. With
a multiplier of one's own for the step and a search that takes anything it is the natural gradient (Kakade 2002).
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
    """What the solver knows: callables of theta and a start. No policy, no batch, no rollout.

    `theta` `[P]` is where the surrogate was built; `evaluate(theta)` returns (surrogate, constraint) as floats, with
    constraint 0 at `theta`; `gradient()` `[P]` is the surrogate's gradient at `theta`; `curvature_product(v)` is A v,
    A the Hessian of the mean constraint at `theta` (positive semi-definite), undamped. The dtype of the gradient is the
    one that the system is solved in. `largest_curvature(s)` is max_n s'A_n s over states, for a constraint that is a
    maximum; without it the constraint is the mean, and its curvature s'As.
    """

    theta: Tensor
    evaluate: Callable[[Tensor], tuple[float, float]]
    gradient: Callable[[], Tensor]
    curvature_product: Callable[[Tensor], Tensor]
    largest_curvature: Callable[[Tensor], float] | None = None


@dataclass(frozen=True)
class TrustRegionStep:
    """The outcome. A rejected step has `rejection_reason` set and `theta` bit-identical to where it started."""

    theta: Tensor
    rejection_reason: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Direction:
    """Of s ~ (A + damping I)^-1 g: s'g, s'As, damping s's, and s'Cs, C the constraint's own curvature."""

    ascent: float
    curvature: float
    damped: float
    constraint_curvature: float


STEP_LENGTHS: dict[str, Callable[[Direction, float, float], float]] = {
    "damped": lambda d, delta, _: math.sqrt(2.0 * delta / (d.constraint_curvature + d.damped)),
    "undamped": lambda d, delta, _: math.sqrt(2.0 * delta / d.constraint_curvature),
    "fixed": lambda d, delta, step_size: step_size,
    "capped": lambda d, delta, step_size: min(step_size, STEP_LENGTHS["undamped"](d, delta, step_size)),
}
"""beta from (direction, delta, step_size): to the boundary, damped or undamped; step_size; the lesser of these two."""


def trust_region_step(
    problem: TrustRegionProblem,
    *,
    delta: float,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-10,
    damping: float = 0.1,
    step_length: str = "damped",
    step_size: float = 1.0,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    kl_slack: float | None = 1.0,
    improvement_ratio: float | None = 0.0,
) -> TrustRegionStep:
    r"""Solve the problem once: s ~ (A + damping I)^-1 g, step beta s, backtrack until L rises and KL <= delta.

    beta = sqrt(2 delta / s'(C + damping I)s) for `step_length="damped"` (what implementations do), sqrt(2 delta /
    s'Cs), the paper's, for `"undamped"`, `step_size` for `"fixed"`, the natural gradient's 1 / lambda (section 8.1),
    and the lesser of the last two for `"capped"`; C = A for the mean KL. The search accepts KL <= kl_slack * delta
    (None: any) and a rise of L above improvement_ratio times its first-order prediction (None: any finite L). Metrics:
    the constraint found, the two quadratic predictions step'A step / 2 and step'(A + damping I) step / 2, the
    surrogate's rise, its prediction g'step, the step's 2-norm and beta, CG iterations and true relative residual, and
    backtracks. Nothing raises on bad numbers: a non-finite gradient, curvature or candidate, or a direction that is not
    one of ascent, is a rejection with a reason.
    """
    gradient = problem.gradient()
    if not torch.isfinite(gradient).all():
        return TrustRegionStep(problem.theta, "the gradient is not finite")

    solution = conjugate_gradient(
        problem.curvature_product, gradient, iterations=cg_iterations, tolerance=cg_tolerance, damping=damping
    )
    s, metrics = solution.x, {"cg/iterations": float(solution.iterations), "cg/residual": solution.residual}
    curvature, damped = dot(s, solution.product), damping * dot(s, s)
    if not (torch.isfinite(s).all() and curvature + damped < math.inf):
        return TrustRegionStep(problem.theta, "the conjugate-gradient solution is not finite", metrics)
    largest = problem.largest_curvature(s) if problem.largest_curvature else curvature
    direction = Direction(dot(s, gradient), curvature, damped, largest)
    if not (curvature > 0.0 and 0.0 < largest < math.inf and direction.ascent > 0.0):
        return TrustRegionStep(problem.theta, "there is no ascent direction with positive curvature", metrics)

    beta = STEP_LENGTHS[step_length](direction, delta, step_size)
    search = backtracking_line_search(
        problem.evaluate,
        problem.theta,
        (beta * s).to(problem.theta.dtype),
        bound=math.inf if kl_slack is None else kl_slack * delta,
        ratio=backtrack_ratio,
        max_backtracks=max_backtracks,
        least_improvement=-math.inf if improvement_ratio is None else improvement_ratio * beta * direction.ascent,
    )
    metrics |= {"line_search/backtracks": float(search.backtracks), "line_search/accepted": float(search.accepted)}
    if not search.accepted:
        return TrustRegionStep(problem.theta, f"the line search found no step: {search.failure}", metrics)

    scale = beta * search.fraction
    metrics |= {
        "trust_region/kl": search.constraint,
        "trust_region/kl_quadratic": scale * scale * curvature / 2.0,  # not **: that raises when it overflows
        "trust_region/kl_quadratic_damped": scale * scale * (curvature + damped) / 2.0,
        "trust_region/surrogate_improvement": search.improvement,
        "trust_region/expected_improvement": scale * direction.ascent,
        "trust_region/step_norm": scale * dot(s, s) ** 0.5,
        "trust_region/step_size": scale,
    }
    return TrustRegionStep(search.theta, None, metrics)
