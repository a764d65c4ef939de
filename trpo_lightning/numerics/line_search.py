"""Backtracking line search under a constraint (Schulman et al. 2015, appendix C)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from torch import Tensor


class SearchFailure(Enum):
    """What was wrong with the last candidate of a search that took none, or with its start."""

    START_NOT_FINITE = auto()
    CANDIDATE_NOT_FINITE = auto()
    CONSTRAINT_EXCEEDED = auto()
    NO_IMPROVEMENT = auto()
    TOO_LITTLE_IMPROVEMENT = auto()


@dataclass(frozen=True)
class LineSearchResult:
    """`theta` is the accepted candidate, or the very tensor the search started from if there is none."""

    theta: Tensor
    fraction: float
    backtracks: int
    improvement: float
    constraint: float
    failure: SearchFailure | None = None

    @property
    def accepted(self) -> bool:
        """Whether a candidate was taken."""
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

    `evaluate(theta)` returns (objective, constraint); accepted is objective > objective(theta) and constraint <= bound.
    `least_improvement` asks the full step for more than that rise, a shrunken one for its share of it (Armijo's rule);
    -inf accepts a fall, too.
    A candidate with non-finite values is refused like any other.
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
