"""The update of Trust Region Policy Optimization (Schulman et al. 2015, arXiv 1502.05477, appendix C).

    maximise L(theta)  subject to  KL(theta_old, theta) <= delta, its mean over states or its maximum

by one natural-gradient direction, a step to the boundary of the quadratic model, and a backtracking line search. With
a multiplier of one's own for the step and a search that takes anything it is the natural gradient (Kakade 2002).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

from trpo_lightning.numerics.conjugate_gradient import ConjugateGradientSolution, conjugate_gradient, dot
from trpo_lightning.numerics.line_search import LineSearchResult, SearchFailure, backtracking_line_search


@dataclass(frozen=True)
class TrustRegionProblem:
    """What the solver knows: callables of theta and a start. No policy, no batch, no rollout.

    `theta` `[P]` is where the surrogate was built; `evaluate(theta)` returns (surrogate, constraint) as floats, with
    constraint 0 at `theta`; `gradient()` `[P]` is the surrogate's gradient at `theta`; `curvature_product(v)` is A v,
    A the Hessian of the mean constraint at `theta` (positive semi-definite), undamped. The dtype of the gradient is the
    one that the system is solved in. `largest_curvature(s)` is max_n s'A_n s over states, for a constraint that is a
    maximum; without it the constraint is the mean, and its curvature s'As. `resolution` is the smallest change of the
    surrogate that `evaluate` can tell from rounding.
    """

    theta: Tensor
    evaluate: Callable[[Tensor], tuple[float, float]]
    gradient: Callable[[], Tensor]
    curvature_product: Callable[[Tensor], Tensor]
    largest_curvature: Callable[[Tensor], float] | None = None
    resolution: float = 0.0


class StepRejection(Enum):
    """Where a step ended without new parameters; for a search the result's `failure` says why."""

    GRADIENT_NOT_FINITE = auto()
    SOLUTION_NOT_FINITE = auto()
    NO_ASCENT_DIRECTION = auto()
    SEARCH_FAILED = auto()


@dataclass(frozen=True)
class Direction:
    """Of s ~ (A + damping I)^-1 g: s'g, s'As, damping s's, s'Cs, C the constraint's own curvature, and |s|."""

    ascent: float
    curvature: float
    damped: float
    constraint_curvature: float
    norm: float


@dataclass(frozen=True)
class TrustRegionStep:
    """The outcome, with the parts that it came to. A rejected one has `theta` bit-identical to where it started.

    `nothing_to_gain` tells a rejection for want of a signal from a failure: all numbers were finite, and the rise of
    the surrogate that the gradient promises is not above the problem's `resolution`, be it for the full step or for
    one of length 1, whose rise is at most the gradient's norm.
    """

    theta: Tensor
    rejection: StepRejection | None = None
    nothing_to_gain: bool = False
    solution: ConjugateGradientSolution | None = None
    direction: Direction | None = None
    beta: float = 0.0
    """Multiplier of s in the full step."""
    search: LineSearchResult | None = None

    @property
    def scale(self) -> float:
        """Multiplier of s in the step that was taken: step = scale s, (A + damping I) s = gradient."""
        return self.beta * self.search.fraction if self.search else 0.0

    @property
    def quadratic(self) -> float:
        """What the matrix predicts for the constraint's mean: step'A step / 2."""
        return self._half_square(self.direction.curvature if self.direction else 0.0)

    @property
    def quadratic_damped(self) -> float:
        """The same with damping: step'(A + damping I) step / 2."""
        return self._half_square(self.direction.curvature + self.direction.damped if self.direction else 0.0)

    @property
    def expected_improvement(self) -> float:
        """The surrogate's rise to first order: gradient'step."""
        return self.scale * self.direction.ascent if self.direction else 0.0

    @property
    def norm(self) -> float:
        """2-norm of the step."""
        return self.scale * self.direction.norm if self.direction else 0.0

    def _half_square(self, curvature: float) -> float:
        return self.scale * self.scale * curvature / 2.0  # not **: that raises when it overflows


STEP_LENGTHS: dict[str, Callable[[Direction, float, float], float]] = {
    "damped": lambda d, delta, _: math.sqrt(2.0 * delta / (d.constraint_curvature + d.damped)),
    "undamped": lambda d, delta, _: math.sqrt(2.0 * delta / d.constraint_curvature),
    "fixed": lambda d, delta, step_size: step_size,
}
"""beta from (direction, delta, step_size): to the boundary, damped or undamped, or step_size."""


NOT_FINITE = (SearchFailure.START_NOT_FINITE, SearchFailure.CANDIDATE_NOT_FINITE)


def trust_region_step(
    problem: TrustRegionProblem,
    *,
    delta: float,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-10,
    damping: float = 0.1,
    step_length: str = "damped",
    step_size: float = 1.0,
    max_step_size: float = math.inf,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    kl_slack: float | None = 1.0,
    improvement_ratio: float | None = 0.0,
) -> TrustRegionStep:
    r"""Solve the problem once: s ~ (A + damping I)^-1 g, step beta s, backtrack until L rises and KL <= delta.

    beta = sqrt(2 delta / s'(C + damping I)s) for `step_length="damped"` (what implementations do), sqrt(2 delta /
    s'Cs), the paper's, for `"undamped"`, and `step_size` for `"fixed"`, the natural gradient's 1 / lambda (section
    8.1); C = A for the mean KL. beta is at most `max_step_size`: with c for it, c s maximises g'd - d'(A + damping I)d
    / 2c, the penalized problem of theorem 1, so that a gradient of noise alone does not fill the trust region. The
    search accepts KL <= kl_slack * delta (None: any) and a rise of L above improvement_ratio times its first-order
    prediction (None: any finite L). Nothing raises on bad numbers: a non-finite gradient, curvature or candidate, or a
    direction that is not one of ascent, is a rejection.
    """
    theta, gradient = problem.theta, problem.gradient()
    if not torch.isfinite(gradient).all():
        return TrustRegionStep(theta, StepRejection.GRADIENT_NOT_FINITE)

    solution = conjugate_gradient(
        problem.curvature_product, gradient, iterations=cg_iterations, tolerance=cg_tolerance, damping=damping
    )
    s, squared = solution.x, dot(solution.x, solution.x)
    curvature, damped = dot(s, solution.product), damping * squared
    if not (torch.isfinite(s).all() and curvature + damped < math.inf):
        return TrustRegionStep(theta, StepRejection.SOLUTION_NOT_FINITE, solution=solution)
    largest = problem.largest_curvature(s) if problem.largest_curvature else curvature
    slope = math.sqrt(dot(gradient, gradient))
    direction = Direction(dot(s, gradient), curvature, damped, largest, squared**0.5)
    if not (curvature > 0.0 and 0.0 < largest < math.inf and direction.ascent > 0.0):
        flat = slope <= problem.resolution
        return TrustRegionStep(theta, StepRejection.NO_ASCENT_DIRECTION, flat, solution, direction)

    beta = min(STEP_LENGTHS[step_length](direction, delta, step_size), max_step_size)
    search = backtracking_line_search(
        problem.evaluate,
        theta,
        (beta * s).to(theta.dtype),
        bound=math.inf if kl_slack is None else kl_slack * delta,
        ratio=backtrack_ratio,
        max_backtracks=max_backtracks,
        least_improvement=-math.inf if improvement_ratio is None else improvement_ratio * beta * direction.ascent,
    )
    parts = {"solution": solution, "direction": direction, "beta": beta, "search": search}
    if search.accepted:
        return TrustRegionStep(search.theta, **parts)
    flat = min(beta * direction.ascent, slope) <= problem.resolution and search.failure not in NOT_FINITE
    return TrustRegionStep(theta, StepRejection.SEARCH_FAILED, flat, **parts)
