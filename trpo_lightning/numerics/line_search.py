"""Backtracking line search under a constraint (Schulman et al. 2015, appendix C)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from torch import Tensor


class SearchFailure(Enum):
    """Why a search failed: what was wrong with its last candidate, or with its start."""

    START_NOT_FINITE = auto()
    CANDIDATE_NOT_FINITE = auto()
    CONSTRAINT_EXCEEDED = auto()
    NO_IMPROVEMENT = auto()
    TOO_LITTLE_IMPROVEMENT = auto()


@dataclass(frozen=True)
class LineSearchResult:
    """The outcome of a search.

    `theta` is the accepted candidate, or the very tensor the search started from if it accepted none; the candidate is
    start + `fraction` * full step, `improvement` its rise of the objective, `constraint` its constraint.
    """

    theta: Tensor
    fraction: float
    backtracks: int
    improvement: float
    constraint: float
    failure: SearchFailure | None = None

    @property
    def accepted(self) -> bool:
        """Whether the search accepted a candidate."""
        return self.failure is None


def backtracking_line_search(
    evaluate: Callable[[Tensor], tuple[float, float]],
    theta: Tensor,
    full_step: Tensor,
    *,
    bound: float,
    ratio: float,
    max_backtracks: int,
    least_improvement: float = 0.0,
) -> LineSearchResult:
    """Try theta + ratio^k full_step for k = 0 ... max_backtracks; take the first that improves within the bound.

    A candidate is accepted if objective > objective(theta) and constraint <= bound. One with non-finite values is
    refused like any other.

    Args:
        evaluate: `evaluate(theta)` returns (objective, constraint).
        theta: Where the search starts, `[P]`.
        full_step: The first step to try, `[P]`.
        bound: The largest constraint accepted.
        ratio: Factor by which each backtrack shrinks the step.
        max_backtracks: Backtracks before the search fails.
        least_improvement: The rise that the full step must exceed; a shrunken step must exceed its share of it
            (Armijo's rule). -inf also accepts a fall.
    """
    start, _ = evaluate(theta)
    failure = SearchFailure.START_NOT_FINITE
    for k in range(max_backtracks + 1 if math.isfinite(start) else 0):
        fraction = ratio**k
        candidate = theta + fraction * full_step
        objective, constraint = evaluate(candidate)
        if not (math.isfinite(objective) and math.isfinite(constraint)):
            failure = SearchFailure.CANDIDATE_NOT_FINITE
        elif constraint > bound:
            failure = SearchFailure.CONSTRAINT_EXCEEDED
        elif objective - start <= fraction * least_improvement:
            failure = SearchFailure.TOO_LITTLE_IMPROVEMENT if least_improvement else SearchFailure.NO_IMPROVEMENT
        else:
            return LineSearchResult(candidate, fraction, k, objective - start, constraint)
    return LineSearchResult(theta, 0.0, max_backtracks, 0.0, 0.0, failure)
