"""Backtracking line search under a constraint (Schulman et al. 2015, appendix C)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LineSearchResult:
    """`theta` is the accepted candidate, or the very tensor the search started from if there is none."""

    theta: Tensor
    accepted: bool
    fraction: float
    backtracks: int
    improvement: float
    constraint: float
    failure: str = ""


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
    A candidate with non-finite values is refused like any other. `failure` says what was wrong with the last candidate.
    """
    start, _ = evaluate(theta)
    failure = "the surrogate is not finite at the old policy"
    for k in range(max_backtracks + 1 if math.isfinite(start) else 0):
        fraction = ratio**k
        candidate = theta + fraction * full_step
        objective, constraint = evaluate(candidate)
        if not (math.isfinite(objective) and math.isfinite(constraint)):
            failure = "surrogate or KL is not finite"
        elif constraint > bound:
            failure = "the KL is beyond delta"
        elif objective - start <= fraction * least_improvement:
            failure = "the surrogate does not improve enough" if least_improvement else "the surrogate does not improve"
        else:
            return LineSearchResult(candidate, True, fraction, k, objective - start, constraint)
    return LineSearchResult(theta, False, 0.0, max_backtracks, 0.0, 0.0, failure)
