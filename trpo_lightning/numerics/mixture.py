"""Weights of the batches of the last M policies in one surrogate (Queeney et al. 2022, arXiv 2206.13714, section V).

Batch i = 1, ..., M was collected i - 1 updates ago and has weight w_i; the weights sum to 1. Two numbers matter:

    mean age         m = sum_i i w_i       the next policy is m times one update away from those that collected
    concentration    q = sum_i w_i^2       n samples per batch have the effective sample size n / q

Without reuse, a batch of B n samples is learned from once in B n steps. With it, an update is made every n steps and is
m times shorter, so that both change the policy as much in total, in each update: B n steps then move it B / m times as
far. Weights that lose neither samples nor distance have q <= 1 / B and m <= B.
"""

from collections.abc import Callable, Sequence

PRECISION = 1e-13


def uniform_weights(batches: int) -> list[float]:
    """w_i = 1 / M, whose mean age is (M + 1) / 2 and whose concentration is 1 / M."""
    return [1.0 / batches] * batches


def optimal_weights(batches: int, *, size: float, tradeoff: float = 1.0) -> list[float]:
    """The weights with m <= B and q <= 1 / B that minimise kappa q / (range of q) + (1 - kappa) m / (range of m).

    The ranges are those between the weights of kappa = 1 (largest effective sample size) and of kappa = 0 (longest
    updates). By the conditions of Karush, Kuhn and Tucker, optimal weights fall linearly with age until they are 0,
    w_i = max(0, c - d i), for every kappa: what remains is to find the one number d. The authors' code asks a
    commercial solver, and drops weights below 0.01.

    Args:
        batches: The most batches, M.
        size: B, the batch without reuse in multiples of one batch; at most M.
        tradeoff: kappa in [0, 1].

    Returns:
        The positive weights, newest batch first; at most M.

    Raises:
        ValueError: There are fewer than B batches: no weights keep the effective sample size.
    """
    if not 1.0 <= size <= batches:
        raise ValueError(f"the size B={size:g} must be between 1 and the number of batches, {batches}")
    flattest = _slope(lambda d: mean_age(ramp(batches, d)) <= size)
    steepest = max(flattest, _slope(lambda d: concentration(ramp(batches, d)) >= 1.0 / size))
    most_samples, longest_steps = ramp(batches, flattest), ramp(batches, steepest)
    range_of_q = 1.0 / size - concentration(most_samples)
    range_of_m = size - mean_age(longest_steps)
    if tradeoff == 1.0 or steepest - flattest < PRECISION or range_of_m < PRECISION:
        slope = flattest
    else:  # where the derivatives along the ramp cancel: 2 kappa d / range_of_q = (1 - kappa) / range_of_m
        slope = (1.0 - tradeoff) / range_of_m * range_of_q / (2.0 * tradeoff) if tradeoff else steepest
        slope = min(max(slope, flattest), steepest)
    return [weight for weight in ramp(batches, slope) if weight > PRECISION]


def ramp(batches: int, slope: float) -> list[float]:
    """w_i = max(0, c - slope i), i = 1, ..., M, with the c for which they sum to 1."""
    positive = batches
    while positive > 1 and 1.0 / positive - slope * (positive - 1) / 2.0 <= 0.0:  # w of the last one that is positive
        positive -= 1
    c = (1.0 + slope * positive * (positive + 1) / 2.0) / positive
    return [max(0.0, c - slope * i) if i <= positive else 0.0 for i in range(1, batches + 1)]


def _slope(reached: Callable[[float], bool]) -> float:
    """The smallest slope in [0, 1] from which on `reached` holds: 0 is uniform, 1 the newest batch alone."""
    if reached(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        middle = (low + high) / 2.0
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def mean_age(weights: Sequence[float]) -> float:
    """The number m = sum_i i w_i, at least 1: steps are divided by it, a radius by its square."""
    return sum(i * weight for i, weight in enumerate(weights, start=1))


def concentration(weights: Sequence[float]) -> float:
    """The number q = sum_i w_i^2: n samples per batch have the effective sample size n / q."""
    return sum(weight * weight for weight in weights)
