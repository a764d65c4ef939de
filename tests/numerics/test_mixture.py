"""Weights of batches against the authors' example, random feasible weights, and the conditions of an optimum."""

import pytest
import torch

from trpo_lightning.numerics.mixture import concentration, mean_age, optimal_weights, ramp, uniform_weights

CASES = [
    (batches, size, tradeoff)
    for batches, size in [(2, 1.5), (4, 2.0), (6, 3.0), (20, 2.0), (9, 2.5), (5, 5.0), (7, 1.0)]
    for tradeoff in (0.0, 0.3, 0.7, 1.0)
]


def padded(weights: list[float], batches: int) -> torch.Tensor:
    return torch.tensor([*weights, *[0.0] * (batches - len(weights))], dtype=torch.float64)


def objective(weights: torch.Tensor, ages: torch.Tensor, ranges: tuple[float, float], tradeoff: float) -> torch.Tensor:
    """As in the authors' program; weights `[..., M]`."""
    of_samples, of_steps = ranges
    return tradeoff * weights.square().sum(-1) / of_samples + (1.0 - tradeoff) * (weights @ ages) / of_steps


def test_the_weights_that_the_paper_prints():
    assert optimal_weights(20, size=2.0) == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=1e-9)
    assert optimal_weights(4, size=2.0) == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=1e-9)


@pytest.mark.parametrize(("batches", "size", "tradeoff"), CASES)
def test_optimal_weights_lose_neither_samples_nor_distance(batches, size, tradeoff):
    weights = optimal_weights(batches, size=size, tradeoff=tradeoff)
    assert sum(weights) == pytest.approx(1.0, abs=1e-12) and min(weights) > 0.0
    assert concentration(weights) <= 1.0 / size + 1e-9
    assert mean_age(weights) <= size + 1e-9


@pytest.mark.parametrize(("batches", "size", "tradeoff"), [case for case in CASES if 1.0 < case[1] < case[0]])
def test_no_feasible_weights_are_better(batches, size, tradeoff):
    """The problem is convex: weights that no small feasible change improves are optimal."""
    ages = torch.arange(1.0, batches + 1, dtype=torch.float64)
    most, longest = (padded(optimal_weights(batches, size=size, tradeoff=k), batches) for k in (1.0, 0.0))
    ranges = float(1.0 / size - most.square().sum()), float(size - longest @ ages)
    found = padded(optimal_weights(batches, size=size, tradeoff=tradeoff), batches)
    best = float(objective(found, ages, ranges, tradeoff))
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 0.1, 1e-3):
        others = found + scale * torch.randn(20_000, batches, dtype=torch.float64, generator=generator)
        others = (others - (others.sum(-1, keepdim=True) - 1.0) / batches).clamp(min=0.0)
        others = others / others.sum(-1, keepdim=True)
        for share in (0.0, 0.5, 0.99):  # convex combinations with a feasible point stay near the boundary
            mixed = share * found + (1.0 - share) * others
            feasible = (mixed.square().sum(-1) <= 1.0 / size + 1e-12) & (mixed @ ages <= size + 1e-12)
            if feasible.any():
                assert float(objective(mixed[feasible], ages, ranges, tradeoff).min()) >= best - 1e-9


def test_the_tradeoff_goes_from_the_longest_updates_to_the_most_samples():
    ages, sizes = [], []
    for tradeoff in (0.0, 0.2, 0.5, 0.8, 1.0):
        weights = optimal_weights(12, size=3.0, tradeoff=tradeoff)
        ages.append(mean_age(weights))
        sizes.append(1.0 / concentration(weights))
    assert ages == sorted(ages) and sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(3.0, abs=1e-6) and ages[-1] == pytest.approx(3.0, abs=1e-9)


def test_uniform_weights_of_2_b_minus_1_batches_move_as_far_as_batches_of_size_b():
    assert mean_age(uniform_weights(5)) == pytest.approx(3.0)
    assert concentration(uniform_weights(5)) == pytest.approx(0.2)


def test_one_batch_has_weight_1_exactly():
    assert uniform_weights(1) == optimal_weights(1, size=1.0) == optimal_weights(9, size=1.0) == [1.0]
    assert mean_age([1.0]) == 1.0


@pytest.mark.parametrize("size", [0.5, 4.5])
def test_a_batch_of_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match="number of batches, 4"):
        optimal_weights(4, size=size)


def test_a_ramp_is_the_projection_of_its_slope_onto_the_simplex():
    for slope in (0.0, 0.05, 0.1, 0.3, 0.9, 5.0):
        weights = torch.tensor(ramp(6, slope), dtype=torch.float64)
        target = -slope * torch.arange(1.0, 7.0, dtype=torch.float64)
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
        multiplier = (target - weights)[weights > 0]  # equal where positive, smaller where 0
        assert float(multiplier.max() - multiplier.min()) < 1e-12
        assert bool((target[weights == 0] <= float(multiplier.min()) + 1e-12).all())
