import itertools

import numpy as np
import pytest

from trpo_lightning.report.statistics import (
    bootstrap,
    curve_interval,
    interquartile_mean,
    interquartile_mean_interval,
    probability_of_improvement,
)


def trimmed(values):
    """scipy.stats.trim_mean(values, 0.25), written out."""
    values = sorted(values)
    cut = int(0.25 * len(values))
    kept = values[cut : len(values) - cut]
    return sum(kept) / len(kept)


@pytest.mark.parametrize("count", range(1, 14))
def test_interquartile_mean_is_the_trimmed_mean(count):
    values = np.random.default_rng(count).normal(size=(3, count))
    assert np.allclose(interquartile_mean(values), [trimmed(line) for line in values])
    assert np.allclose(interquartile_mean(values.T, axis=0), interquartile_mean(values))


def test_interquartile_mean_of_known_values():
    assert interquartile_mean(np.array([1000.0, 1, 2, 3, 4, -1000, 5, 0])) == 2.5
    assert interquartile_mean(np.array([3.0])) == 3 and interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3


def test_the_interval_is_that_of_all_resamples():
    strata = [np.array([1.0, 4.0, 9.0]), np.array([2.0, 30.0])]
    resamples = itertools.product(itertools.product(strata[0], repeat=3), itertools.product(strata[1], repeat=2))
    values = [trimmed([*a, *b]) for a, b in resamples]  # 27 * 4, equally likely
    found = interquartile_mean_interval(strata, resamples=40_000)
    assert found.value == trimmed([1, 4, 9, 2, 30])
    assert np.allclose([found.low, found.high], np.percentile(values, [2.5, 97.5]), atol=0.35)


def test_strata_are_resampled_within():
    strata = [np.zeros(4), np.full(4, 100.0)]
    found = bootstrap(strata, lambda samples: np.concatenate(samples, axis=-1).mean(axis=-1))
    assert (found.value, found.low, found.high) == (50, 50, 50)  # half of every resample is of each


def test_intervals_are_the_same_at_each_call():
    scores = [np.random.default_rng(0).normal(size=25)]
    assert interquartile_mean_interval(scores) == interquartile_mean_interval(scores)
    assert interquartile_mean_interval(scores, seed=1) != interquartile_mean_interval(scores)


def test_one_run_has_no_interval():
    found = interquartile_mean_interval([np.array([7.0])])
    assert found.value == 7 and np.isnan(found.low) and np.isnan(found.high) and not found.has_interval
    assert not interquartile_mean_interval([np.arange(5.0), np.array([7.0])]).has_interval
    assert interquartile_mean_interval([np.arange(2.0)]).has_interval
    middle, low, high = curve_interval(np.arange(4.0)[None])
    assert middle.tolist() == [0, 1, 2, 3] and np.isnan(low).all() and np.isnan(high).all()


@pytest.mark.parametrize("strata", [[], [np.empty(0)], [np.ones(3), np.empty(0)]])
def test_no_scores_are_refused(strata):
    with pytest.raises(ValueError, match="needs a score"):
        interquartile_mean_interval(strata)


def test_intervals_cover_the_truth():
    generator = np.random.default_rng(0)
    for count, least in ((10, 0.88), (30, 0.91)):
        hits = 0
        for seed in range(500):
            found = interquartile_mean_interval([generator.normal(size=count)], resamples=400, seed=seed)
            hits += found.low <= 0 <= found.high
        assert least < hits / 500 < 0.98


def by_counting(x, y):
    return sum((a > b) + (a == b) / 2 for a in x for b in y) / (len(x) * len(y))


def test_probability_of_improvement_by_counting():
    generator = np.random.default_rng(3)
    x = [generator.integers(4, size=n).astype(float) for n in (3, 5)]
    y = [generator.integers(4, size=n).astype(float) for n in (4, 2)]
    expected = np.mean([by_counting(a, b) for a, b in zip(x, y, strict=True)])
    found = probability_of_improvement(x, y)
    assert found.value == pytest.approx(expected) and found.low <= expected <= found.high
    assert probability_of_improvement(y, x).value == pytest.approx(1 - expected)


def test_the_interval_of_improvement_is_that_of_all_resamples():
    x, y = np.array([1.0, 3.0, 5.0]), np.array([2.0, 3.0])
    pairs = itertools.product(itertools.product(x, repeat=3), itertools.product(y, repeat=2))
    values = [by_counting(a, b) for a, b in pairs]
    found = probability_of_improvement([x], [y], resamples=40_000)
    assert np.allclose([found.low, found.high], np.percentile(values, [2.5, 97.5]), atol=0.05)


def test_identical_and_separate_samples():
    same = [np.arange(5.0)]
    assert probability_of_improvement(same, same).value == 0.5
    assert probability_of_improvement([np.ones(4)], [np.ones(4)]).value == 0.5
    better = probability_of_improvement([np.arange(5.0) + 10], same)
    assert (better.value, better.low, better.high) == (1, 1, 1)
    assert not probability_of_improvement([np.array([1.0])], same).has_interval
    with pytest.raises(ValueError, match="same strata"):
        probability_of_improvement(same, [])


def test_a_curve_is_resampled_by_runs_at_each_point():
    curves = np.random.default_rng(0).normal(size=(5, 300)) + np.arange(300)
    middle, low, high = curve_interval(curves, resamples=1500)
    for point in (0, 150, 299):
        alone = interquartile_mean_interval([curves[:, point]], resamples=1500)
        assert np.allclose([middle[point], low[point], high[point]], [alone.value, alone.low, alone.high])
    assert np.all(low <= middle) and np.all(middle <= high)
