"""The update of Trust Region Policy Optimization (Schulman et al. 2015, arXiv 1502.05477, appendix C).

    maximise L(theta)  subject to  KL(theta_old, theta) <= delta, its mean over states or its maximum

by one natural-gradient direction, a step to the boundary of the quadratic model, and a backtracking line search. With
a fixed step size and no acceptance test, this is the natural gradient (Kakade 2002).
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
    """All that the solver needs: a start and callables of theta. No policy, no batch, no rollout.

    Args:
        theta: Where the surrogate was built, `[P]`.
        evaluate: `evaluate(theta)` returns (surrogate, constraint) as floats; the constraint is 0 at `theta`.
        gradient: The surrogate's gradient at `theta`, `[P]`; its dtype is the one in which the system is solved.
        curvature_product: `curvature_product(v)` is A v, A the Hessian of the mean constraint at `theta` (positive
            semi-definite), undamped.
        largest_curvature: `largest_curvature(s)` is max_n s'A_n s over states, for a constraint that is a maximum;
            without it the constraint is the mean, and its curvature s'As.
        resolution: The smallest change of the surrogate that `evaluate` can tell from rounding.
    """

    theta: Tensor
    evaluate: Callable[[Tensor], tuple[float, float]]
    gradient: Callable[[], Tensor]
    curvature_product: Callable[[Tensor], Tensor]
    largest_curvature: Callable[[Tensor], float] | None = None
    resolution: float = 0.0


class StepRejection(Enum):
    """The stage at which a step was rejected; for a failed search, the `failure` of its result says why."""

    GRADIENT_NOT_FINITE = auto()
    SOLUTION_NOT_FINITE = auto()
    NO_ASCENT_DIRECTION = auto()
    SEARCH_FAILED = auto()


@dataclass(frozen=True)
class Direction:
    """Products of s ~ (A + damping I)^-1 g: s'g, s'As, damping s's, s'Cs, C the constraint's own curvature; and |s|."""

    ascent: float
    curvature: float
    damped: float
    constraint_curvature: float
    norm: float


@dataclass(frozen=True)
class TrustRegionStep:
    """The outcome, with the parts that were computed. After a rejection `theta` is bit-identical to the start.

    `nothing_to_gain` tells a rejection for lack of a signal from a failure: all numbers were finite, and the rise of
    the surrogate that the gradient promises is not above the problem's `resolution`, either for the full step or for
    a step of length 1, whose rise is at most the gradient's norm.
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
        """Multiplier of s in the step taken: step = scale s, (A + damping I) s = gradient."""
        return self.beta * self.search.fraction if self.search else 0.0

    @property
    def quadratic(self) -> float:
        """The matrix's prediction of the mean constraint: step'A step / 2."""
        return self._half_square(self.direction.curvature if self.direction else 0.0)

    @property
    def quadratic_damped(self) -> float:
        """The same prediction with damping: step'(A + damping I) step / 2."""
        return self._half_square(self.direction.curvature + self.direction.damped if self.direction else 0.0)

    @property
    def expected_improvement(self) -> float:
        """The surrogate's rise to first order: gradient'step."""
        return self.scale * self.direction.ascent if self.direction else 0.0

    @property
    def norm(self) -> float:
        """2-norm of the step in parameters."""
        return self.scale * self.direction.norm if self.direction else 0.0

    def _half_square(self, curvature: float) -> float:
        return self.scale * self.scale * curvature / 2.0  # not **: that raises when it overflows


STEP_LENGTHS: dict[str, Callable[[Direction, float, float], float]] = {
    "damped": lambda d, delta, _: math.sqrt(2.0 * delta / (d.constraint_curvature + d.damped)),
    "undamped": lambda d, delta, _: math.sqrt(2.0 * delta / d.constraint_curvature),
    "fixed": lambda d, delta, step_size: step_size,
}
"""beta from (direction, delta, step_size): to the boundary, damped or undamped; or step_size."""


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

    Bad numbers never raise: a non-finite gradient, curvature or candidate, or a direction that does not ascend, is a
    rejection.

    Args:
        problem: The surrogate, its constraint and their derivatives.
        delta: Bound on the KL divergence.
        cg_iterations: The maximum number of conjugate-gradient iterations.
        cg_tolerance: Relative residual at which conjugate gradients stop.
        damping: Multiple of the identity added to A.
        step_length: How beta is found; C = A for the mean KL. `"damped"`, what implementations do:
            sqrt(2 delta / s'(C + damping I)s). `"undamped"`, as in the paper: sqrt(2 delta / s'Cs). `"fixed"`:
            `step_size`, the natural gradient's 1 / lambda (section 8.1).
        step_size: beta for `"fixed"`.
        max_step_size: Upper limit c on beta; c s maximises g'd - d'(A + damping I)d / 2c, the
            penalized problem of theorem 1, so a gradient of pure noise does not fill the trust region.
        backtrack_ratio: Factor by which each backtrack shrinks the step.
        max_backtracks: Backtracks before the step is rejected.
        kl_slack: The search accepts KL <= kl_slack * delta; None accepts any.
        improvement_ratio: The search accepts a rise of L above this times its first-order prediction; None accepts any
            finite L.
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
