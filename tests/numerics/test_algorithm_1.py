"""The exact step against brute force and against what the theorem promises."""

import math

import numpy as np
import pytest
import torch

from trpo_lightning.numerics.algorithm_1 import algorithm_1_step, best_policies
from trpo_lightning.numerics.tabular import (
    TabularMDP,
    evaluate_policy,
    lower_bound,
    max_kl,
    penalty,
    random_mdp,
    state_kl,
    surrogate,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_case(seed, states=5, actions=3, gamma=0.9):
    mdp = random_mdp(states, actions, gamma=gamma, generator=generator(seed))
    theta = torch.randn(states, actions, dtype=torch.float64, generator=generator(seed + 100))
    return mdp, torch.softmax(theta, -1)


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("radius", [1e-12, 1e-8, 1e-4, 0.01, 0.3, 2.0, 30.0])
def test_the_best_policy_is_a_policy_at_the_radius(radius):
    _, old = random_case(0, states=8, actions=4)
    advantages = torch.randn(8, 4, dtype=torch.float64, generator=generator(5)) * 10.0 ** torch.arange(-4, 4)[:, None]
    best = best_policies(old, advantages, radius)
    new = old * best.log_ratio.exp()
    torch.testing.assert_close(new.sum(-1), torch.ones(8, dtype=torch.float64), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(best.kl, torch.full((8,), radius, dtype=torch.float64), rtol=1e-10, atol=0.0)
    independent = -(old * best.log_ratio).sum(-1) if radius > 1e-3 else state_kl(old, new)
    torch.testing.assert_close(independent, best.kl, rtol=1e-8, atol=1e-20)


@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.7])
def test_no_policy_within_the_radius_is_better_by_brute_force(radius):
    """Three actions: all policies on a grid, refined around the best one that the radius allows."""
    _, old = random_case(1, states=4)
    advantages = torch.randn(4, 3, dtype=torch.float64, generator=generator(6))
    new = old * best_policies(old, advantages, radius).log_ratio.exp()
    offsets = np.linspace(-1, 1, 81)
    for p, a, q in zip(old.numpy(), advantages.numpy(), new.numpy(), strict=True):
        centre, width, best = p, 1.0, p @ a
        for _ in range(45):
            x, y = np.meshgrid(centre[0] + width * offsets, centre[1] + width * offsets)
            grid = np.stack([x, y, 1 - x - y], -1).reshape(-1, 3)
            grid = grid[(grid > 1e-12).all(-1)]
            grid = grid[(p * np.log(p / grid)).sum(-1) <= radius]
            if len(grid) and (grid @ a).max() > best:
                centre = grid[(grid @ a).argmax()]
                best = centre @ a
            width *= 0.7
        assert q @ a == pytest.approx(best, abs=1e-6)
        assert q @ a >= best - 1e-12
        np.testing.assert_allclose(q, centre, atol=3e-3)


def test_two_actions_by_brute_force():
    p, radius = 0.2, 0.1
    best = best_policies(tensor([[p, 1 - p]]), tensor([[1.0, -2.0]]), radius)
    q = np.linspace(p, 1 - 1e-9, 2_000_001)
    within = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)) <= radius
    assert float(p * best.log_ratio[0, 0].exp()) == pytest.approx(q[within].max(), abs=1e-6)


def test_the_multiplier_is_the_derivative_of_the_gain():
    _, old = random_case(2, states=6, actions=4)
    advantages = torch.randn(6, 4, dtype=torch.float64, generator=generator(7))

    def gain(radius):
        return (old * torch.expm1(best_policies(old, advantages, radius).log_ratio) * advantages).sum(-1)

    for radius in (1e-4, 0.02, 0.5):
        h = 1e-4 * radius
        slope = (gain(radius + h) - gain(radius - h)) / (2 * h)
        torch.testing.assert_close(best_policies(old, advantages, radius).multiplier, slope, rtol=1e-6, atol=0.0)


def test_equal_advantages_change_nothing_and_impossible_actions_stay_impossible():
    old = tensor([[0.2, 0.8], [0.5, 0.5]])
    best = best_policies(old, tensor([[3.0, 3.0], [0.0, 0.0]]), 0.1)
    assert not best.log_ratio.any() and not best.kl.any() and not best.multiplier.any()
    new = (
        tensor([[0.4, 0.6, 0.0]])
        * best_policies(tensor([[0.4, 0.6, 0.0]]), tensor([[1.0, 0.0, 9.0]]), 0.1).log_ratio.exp()
    )
    two = tensor([[0.4, 0.6]]) * best_policies(tensor([[0.4, 0.6]]), tensor([[1.0, 0.0]]), 0.1).log_ratio.exp()
    torch.testing.assert_close(new[:, :2], two)
    assert not new[0, 2]


@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.9])
def test_the_step_maximises_the_bound_by_brute_force(gamma):
    """Two states, two actions: all policies on a grid, refined around its best point."""
    mdp, old_policy = random_case(3, states=2, actions=2, gamma=gamma)
    old = evaluate_policy(mdp, old_policy)
    step = algorithm_1_step(mdp, old)
    new_policy = old_policy * step.log_ratio.exp()
    found = float(lower_bound(mdp, old, new_policy))
    assert found == pytest.approx(float(old.eta) + step.guaranteed, abs=1e-13)

    c, weights = float(penalty(mdp, old)), (old.visitation[:, None] * old.advantages).numpy()
    p, centre, width = old_policy[:, 0].numpy(), old_policy[:, 0].numpy(), 1.0
    best = -math.inf
    for _ in range(25):
        grids = [np.clip(centre[s] + width * np.linspace(-1, 1, 101), 1e-12, 1 - 1e-12) for s in range(2)]
        gains = [grid * weights[s, 0] + (1 - grid) * weights[s, 1] for s, grid in enumerate(grids)]
        kls = [p[s] * np.log(p[s] / g) + (1 - p[s]) * np.log((1 - p[s]) / (1 - g)) for s, g in enumerate(grids)]
        objective = gains[0][:, None] + gains[1] - c * np.maximum(kls[0][:, None], kls[1])
        i, j = np.unravel_index(objective.argmax(), objective.shape)
        best, centre, width = max(best, objective[i, j]), np.array([grids[0][i], grids[1][j]]), width / 2
    assert found - float(old.eta) == pytest.approx(best, rel=1e-6, abs=1e-12)
    assert best > 1e-4


@pytest.mark.parametrize("gamma", [0.2, 0.9, 0.99])
def test_no_other_radius_is_better(gamma):
    mdp, old_policy = random_case(4, gamma=gamma)
    old = evaluate_policy(mdp, old_policy)
    step = algorithm_1_step(mdp, old)
    c = float(penalty(mdp, old))
    assert float(max_kl(mdp, old_policy, old_policy * step.log_ratio.exp())) == pytest.approx(step.radius, rel=1e-6)
    for factor in (0.25, 0.9, 1.1, 4.0):
        best = best_policies(old_policy, old.advantages, factor * step.radius)
        gain = old.visitation @ (old_policy * torch.expm1(best.log_ratio) * old.advantages).sum(-1)
        assert float(gain) - c * factor * step.radius < step.guaranteed


@pytest.mark.parametrize(("seed", "gamma"), [(0, 0.3), (1, 0.5), (2, 0.9), (3, 0.99)])
def test_it_never_gets_worse(seed, gamma):
    mdp, policy = random_case(seed, states=6, gamma=gamma)
    start = None
    for _ in range(15):
        old = evaluate_policy(mdp, policy)
        start = old.eta if start is None else start
        step = algorithm_1_step(mdp, old)
        policy = torch.softmax(policy.log() + step.log_ratio, -1)
        new = evaluate_policy(mdp, policy)
        assert step.guaranteed > 0.0
        assert new.eta >= surrogate(old, policy) - penalty(mdp, old) * step.radius - 1e-12
        assert new.eta >= old.eta + step.guaranteed * (1 - 1e-6) - 1e-13
    assert start is not None and new.eta > start + 1e-5


def test_an_optimal_policy_and_unreachable_states_stay():
    transitions = torch.zeros(3, 2, 3, dtype=torch.float64)
    transitions[:, :, 0] = 0.5
    initial = tensor([1.0, 0.0, 0.0])
    equal = TabularMDP(transitions, tensor([[1.0, 1.0], [0.0, 5.0], [0.0, 5.0]]), initial, 0.9)
    policy = torch.full((3, 2), 0.5, dtype=torch.float64)
    step = algorithm_1_step(equal, evaluate_policy(equal, policy))
    assert not step.log_ratio.any() and step.radius == step.guaranteed == 0.0
    unequal = TabularMDP(transitions, tensor([[1.0, 0.0], [0.0, 5.0], [0.0, 5.0]]), initial, 0.9)
    log_ratio = algorithm_1_step(unequal, evaluate_policy(unequal, policy)).log_ratio
    assert log_ratio[0].abs().min() > 0.0 and not log_ratio[1:].any()


def test_without_a_future_there_is_no_penalty_and_no_best_step():
    mdp, policy = random_case(0, gamma=0.0)
    with pytest.raises(ValueError, match="gamma > 0"):
        algorithm_1_step(mdp, evaluate_policy(mdp, policy))
