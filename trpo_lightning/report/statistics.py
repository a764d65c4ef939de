"""Interquartile mean, stratified bootstrap and probability of improvement (Agarwal et al. 2021, arXiv 2108.13264).

Implemented in NumPy because the authors' package `rliable` (1.2) fails to import with pandas 3; same definitions.
A stratum is an environment: runs are resampled within it, never across. Percentile intervals of few runs are too
narrow: with normal scores, a nominal 95 % interval of the interquartile mean covers the truth in 74 % of cases for 3
runs, 91 % for 5 and 93 % for 10 (2000 simulations each).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
BLOCK = 4_000_000
"""Most numbers held in memory at a time when curves are resampled."""

Strata = Sequence[np.ndarray]
"""The scores of the runs of each environment, `[n_k]`."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap interval; `low` and `high` are NaN where there is no interval (a single run)."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def has_interval(self) -> bool:
        """Whether there were enough runs to resample."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


NOTHING = Estimate(float("nan"))


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the values that remain after dropping the `floor(n / 4)` lowest and highest.

    Same as `scipy.stats.trim_mean(values, 0.25)`; for 1 to 3 values it is the plain mean.
    """
    count = values.shape[axis]
    cut = count // 4
    kept = np.sort(values, axis=axis).take(range(cut, count - cut), axis=axis)
    return kept.mean(axis=axis)


def interquartile_mean_interval(strata: Strata, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Interquartile mean of the pooled scores of all strata, with its stratified bootstrap interval."""
    return bootstrap(strata, lambda samples: interquartile_mean(np.concatenate(samples, axis=-1)), resamples, seed)


def bootstrap(
    strata: Strata,
    statistic: Callable[[list[np.ndarray]], np.ndarray],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """A statistic and its percentile interval of `level`; `statistic` maps arrays `[R, n_k]` to `[R]`.

    There is no interval if a stratum has only one score and thus no spread. Empty strata raise `ValueError`.
    """
    strata = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not strata or any(len(stratum) == 0 for stratum in strata):
        raise ValueError("every stratum needs a score")
    value = float(statistic([stratum[None] for stratum in strata])[0])
    if min(map(len, strata)) < 2:
        return Estimate(value)
    generator = np.random.default_rng(seed)
    samples = [stratum[_indices(generator, len(stratum), resamples)] for stratum in strata]
    low, high = _percentiles(statistic(samples), level)
    return Estimate(value, float(low), float(high))


def probability_of_improvement(
    x: Strata, y: Strata, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Estimate:
    """P(X > Y) + P(X = Y) / 2 for a run of X and one of Y in the same environment, averaged over environments.

    The Mann-Whitney statistic of each stratum, `sum_ij [x_i > y_j] + [x_i = y_j] / 2` over `n m`; X and Y are resampled
    independently (equation 2 and appendix A.1 of the paper). 1/2 means that neither is better.
    """
    if len(x) != len(y):
        raise ValueError("X and Y need the same strata")

    def statistic(samples: list[np.ndarray]) -> np.ndarray:
        pairs = zip(samples[: len(x)], samples[len(x) :], strict=True)
        return np.mean([_wins(a, b) for a, b in pairs], axis=0)

    return bootstrap([*x, *y], statistic, resamples, seed, level)


def curve_interval(
    curves: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interquartile mean over runs at each point, and the ends of its pointwise bootstrap interval.

    `curves` is `[n, G]`, the results `[G]`. Whole runs are resampled, the same at all points. For one run, the ends
    are NaN.
    """
    count, points = curves.shape
    middle = interquartile_mean(curves, axis=0)
    if count < 2:
        nothing = np.full(points, np.nan)
        return middle, nothing, nothing
    indices = _indices(np.random.default_rng(seed), count, resamples)
    width = max(1, BLOCK // indices.size)
    blocks = [curves[:, start : start + width] for start in range(0, points, width)]
    ends = [_percentiles(interquartile_mean(block[indices], axis=1)) for block in blocks]
    low, high = np.concatenate(ends, axis=1)
    return middle, low, high


def _indices(generator: np.random.Generator, count: int, resamples: int) -> np.ndarray:
    return generator.integers(count, size=(resamples, count))


def _percentiles(values: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Both ends `[2, ...]` of the central interval of `values` `[R, ...]`."""
    tail = 100 * (1 - level) / 2
    return np.percentile(values, [tail, 100 - tail], axis=0)


def _wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of pairs that X wins, with ties counting half: `[R, n]`, `[R, m]` to `[R]`."""
    difference = np.sign(x[:, :, None] - y[:, None, :])  # [R, n, m]
    return (1 + difference.mean(axis=(1, 2))) / 2
