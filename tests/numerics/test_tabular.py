"""The theory's quantities against power series, simulation, autograd and hand-worked numbers."""

import math

import numpy as np
import pytest
import torch

from trpo_lightning.numerics.tabular import (
    TabularMDP,
    evaluate_policy,
    generalized_lower_bound,
    lower_bound,
    max_kl,
    mixture_surrogate,
    penalty,
    random_mdp,
    state_kl,
    surrogate,
)

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
SIZES = [(1, 2, 0.9), (4, 3, 0.5), (7, 2, 0.95), (20, 5, 0.99)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_policy(states, actions, seed, scale=1.0):
    return torch.softmax(scale * torch.randn(states, actions, dtype=torch.float64, generator=generator(seed)), -1)


def case(states, actions, gamma, seed=0, ending=0.1):
    mdp = random_mdp(states, actions, gamma=gamma, generator=generator(seed), ending=ending)
    return mdp, random_policy(states, actions, seed + 1), random_policy(states, actions, seed + 2)


def two_states():
    """Action 0 stays in state 0 for 1, action 1 goes to state 1 for 0; from there every action ends for 2 or 4."""
    transitions = torch.zeros(2, 2, 2, dtype=torch.float64)
    transitions[0, 0, 0] = transitions[0, 1, 1] = 1.0
    rewards = torch.tensor([[1.0, 0.0], [2.0, 4.0]], dtype=torch.float64)
    return TabularMDP(transitions, rewards, torch.tensor([1.0, 0.0], dtype=torch.float64), 0.5)


def test_values_of_an_mdp_worked_by_hand():
    mdp = two_states()
    values = evaluate_policy(mdp, torch.full((2, 2), 0.5, dtype=torch.float64))
    # V1 = 3; V0 = (1 + V0 / 2 + 0 + V1 / 2) / 2, so V0 = 5/3; rho0 = 1 / (1 - 1/4), rho1 = rho0 / 4
    torch.testing.assert_close(values.values, torch.tensor([5 / 3, 3.0], dtype=torch.float64), **TOLERANCE)
    torch.testing.assert_close(values.visitation, torch.tensor([4 / 3, 1 / 3], dtype=torch.float64), **TOLERANCE)
    expected = torch.tensor([[1 / 6, -1 / 6], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(values.advantages, expected, **TOLERANCE)
    assert float(values.eta) == pytest.approx(5 / 3)
    assert float(penalty(mdp, values)) == pytest.approx(4.0 * 1.0 * 0.5 / 0.25)  # eps = 1, in state 1


@pytest.mark.parametrize(("states", "actions", "gamma"), SIZES)
def test_values_and_visitation_are_their_power_series(states, actions, gamma):
    mdp, policy, _ = case(states, actions, gamma)
    found = evaluate_policy(mdp, policy)
    here, value, visits = mdp.initial.clone(), torch.zeros(states, dtype=torch.float64), torch.zeros_like(mdp.initial)
    for t in range(math.ceil(math.log(1e-14) / math.log(gamma))):
        visits += gamma**t * here
        here = torch.einsum("s,sa,sat->t", here, policy, mdp.transitions)
        value = (policy * (mdp.rewards + gamma * mdp.transitions @ value)).sum(-1)
    torch.testing.assert_close(found.visitation, visits, **TOLERANCE)
    torch.testing.assert_close(found.values, value, **TOLERANCE)
    assert float(found.eta) == pytest.approx(float((visits[:, None] * policy * mdp.rewards).sum()), rel=1e-10)
    torch.testing.assert_close((policy * found.advantages).sum(-1), torch.zeros_like(value), **TOLERANCE)
    torch.testing.assert_close((policy * found.q_values).sum(-1), found.values, **TOLERANCE)


def test_visitation_without_ends_sums_to_the_horizon():
    mdp, policy, _ = case(5, 3, 0.9, ending=0.0)
    assert float(evaluate_policy(mdp, policy).visitation.sum()) == pytest.approx(10.0, rel=1e-12)


def test_visitation_is_what_a_simulation_visits():
    mdp, policy, _ = case(4, 3, 0.8, ending=0.3)
    found = evaluate_policy(mdp, policy)
    rng, episodes = np.random.default_rng(0), 20_000
    visits, returns = np.zeros((episodes, 4)), np.zeros(episodes)
    state = rng.choice(4, size=episodes, p=mdp.initial.numpy())
    going = np.arange(episodes)
    steps = torch.cat([mdp.transitions, 1.0 - mdp.transitions.sum(-1, keepdim=True)], -1).cumsum(-1).numpy()
    for t in range(60):
        visits[going, state] += 0.8**t
        action = (rng.random((len(going), 1)) > policy.cumsum(-1).numpy()[state]).sum(-1).clip(0, 2)
        returns[going] += 0.8**t * mdp.rewards.numpy()[state, action]
        state = (rng.random((len(going), 1)) > steps[state, action]).sum(-1)
        going, state = going[state < 4], state[state < 4]
    error = np.abs(visits.mean(0) - found.visitation.numpy()) / (visits.std(0) / episodes**0.5)
    assert (error < 4.0).all()
    assert abs(returns.mean() - float(found.eta)) < 4.0 * returns.std() / episodes**0.5


@pytest.mark.parametrize(("states", "actions", "gamma"), SIZES)
def test_the_performance_difference_identity(states, actions, gamma):
    mdp, old_policy, new_policy = case(states, actions, gamma)
    old, new = evaluate_policy(mdp, old_policy), evaluate_policy(mdp, new_policy)
    difference = (new.visitation[:, None] * new.policy * old.advantages).sum()
    torch.testing.assert_close(new.eta - old.eta, difference, **TOLERANCE)


@pytest.mark.parametrize(("states", "actions", "gamma"), SIZES)
def test_the_surrogate_agrees_with_the_return_to_first_order(states, actions, gamma):
    mdp, _, _ = case(states, actions, gamma)
    theta = torch.randn(states, actions, dtype=torch.float64, generator=generator(9), requires_grad=True)
    old = evaluate_policy(mdp, torch.softmax(theta.detach(), -1))
    policy = torch.softmax(theta, -1)
    torch.testing.assert_close(surrogate(old, policy).detach(), old.eta, **TOLERANCE)
    of_surrogate = torch.autograd.grad(surrogate(old, policy), theta)[0]
    of_return = torch.autograd.grad(evaluate_policy(mdp, torch.softmax(theta, -1)).eta, theta)[0]
    assert of_return.abs().max() > 1e-3
    torch.testing.assert_close(of_surrogate, of_return, **TOLERANCE)


def test_the_surrogate_disagrees_to_second_order():
    mdp, old_policy, new_policy = case(7, 3, 0.9)
    old = evaluate_policy(mdp, old_policy)

    def error(step):
        mixed = (1.0 - step) * old_policy + step * new_policy
        return float((surrogate(old, mixed) - evaluate_policy(mdp, mixed).eta).abs())

    assert error(0.1) > 1e-6
    assert error(0.1) / error(0.01) == pytest.approx(100.0, rel=0.2)


@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0])
@pytest.mark.parametrize(("states", "actions", "gamma"), SIZES)
def test_the_return_is_never_below_the_bound(states, actions, gamma, scale):
    for seed in range(10):
        mdp, old_policy, _ = case(states, actions, gamma, seed)
        noise = torch.randn(states, actions, dtype=torch.float64, generator=generator(seed + 50))
        new_policy = torch.softmax(old_policy.log() + scale * noise, -1)
        old = evaluate_policy(mdp, old_policy)
        bound = lower_bound(mdp, old, new_policy)
        expected = surrogate(old, new_policy) - penalty(mdp, old) * state_kl(old_policy, new_policy).max()
        torch.testing.assert_close(bound, expected, **TOLERANCE)
        assert bound <= evaluate_policy(mdp, new_policy).eta + 1e-12


def test_kl_is_of_the_old_policy_against_the_new_and_keeps_its_digits():
    old, new = random_policy(6, 4, 1), random_policy(6, 4, 2)
    torch.testing.assert_close(state_kl(old, new), (old * (old / new).log()).sum(-1), **TOLERANCE)
    p, e = torch.tensor([[0.3, 0.7]], dtype=torch.float64), 1e-8
    tilted = p + torch.tensor([[e, -e]], dtype=torch.float64)
    assert float(state_kl(p, tilted)) == pytest.approx(e**2 / (2 * 0.3 * 0.7), rel=1e-6)
    certain, even = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert float(state_kl(certain, even)) == pytest.approx(math.log(2.0))
    assert float(state_kl(even, certain)) == math.inf
    assert float(state_kl(certain, certain)) == 0.0


def test_states_that_no_policy_reaches_count_for_nothing():
    mdp = two_states()
    transitions, rewards = torch.zeros(3, 2, 3, dtype=torch.float64), torch.full((3, 2), 100.0, dtype=torch.float64)
    transitions[:2, :, :2], rewards[:2] = mdp.transitions, mdp.rewards
    transitions[2, 0, 0] = 1.0
    rewards[2, 1] = -100.0
    larger = TabularMDP(transitions, rewards, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), 0.5)
    assert larger.reachable.tolist() == [True, True, False]
    policy = torch.full((3, 2), 0.5, dtype=torch.float64)
    assert float(penalty(larger, evaluate_policy(larger, policy))) == pytest.approx(8.0)
    changed = policy.clone()
    changed[2] = torch.tensor([0.9, 0.1])
    assert float(max_kl(larger, policy, changed)) == 0.0
    assert float(state_kl(policy, changed).max()) > 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"transitions": torch.ones(2, 2, 2)},
        {"transitions": torch.ones(2, 2, 2, dtype=torch.float64)},
        {"transitions": -torch.ones(2, 2, 2, dtype=torch.float64)},
        {"transitions": torch.zeros(2, 2, dtype=torch.float64)},
        {"rewards": torch.full((2, 2), math.nan, dtype=torch.float64)},
        {"initial": torch.tensor([0.5, 0.4], dtype=torch.float64)},
        {"gamma": 1.0},
    ],
)
def test_what_is_no_mdp_is_refused(change):
    mdp = two_states()
    parts = {name: getattr(mdp, name) for name in ("transitions", "rewards", "initial", "gamma")}
    with pytest.raises(ValueError):
        TabularMDP(**{**parts, **change})


def nearby(policy: torch.Tensor, distance: float, seed: int) -> torch.Tensor:
    """A policy whose logits differ by normal numbers times `distance`."""
    noise = torch.randn(policy.shape, dtype=torch.float64, generator=generator(seed))
    return torch.softmax(torch.log(policy) + distance * noise, -1)


@pytest.mark.parametrize(("states", "actions", "gamma"), [(2, 2, 0.9), (4, 3, 0.5), (7, 2, 0.95), (5, 3, 0.99)])
def test_the_generalized_bound_holds_for_thousands_of_policies(states, actions, gamma):
    """Far and near ones, each with three collectors: the bound is below the return, and close to it near by."""
    gaps = []
    for seed in range(100):
        mdp, policy, _ = case(states, actions, gamma, seed, ending=[0.0, 0.1, 0.5][seed % 3])
        distance = [1e-3, 0.05, 0.5, 3.0][seed % 4]
        current = evaluate_policy(mdp, policy)
        collectors = [evaluate_policy(mdp, nearby(policy, distance, 100 * seed + i)) for i in range(2)]
        weights = [0.5, 0.3, 0.2]
        for i in range(8):
            new = nearby(policy, distance, 1000 * seed + i)
            eta = float(evaluate_policy(mdp, new).eta)
            bound = float(generalized_lower_bound(mdp, current, [current, *collectors], weights, new))
            assert bound <= eta + 1e-9 * max(1.0, abs(eta))
            if distance == 1e-3:
                gaps.append((eta - bound) / max(1.0, abs(eta)))
    assert max(gaps) < 0.01


@pytest.mark.parametrize(("states", "actions", "gamma"), SIZES)
def test_with_the_current_policy_alone_the_mixture_is_the_surrogate(states, actions, gamma):
    mdp, policy, new = case(states, actions, gamma)
    current = evaluate_policy(mdp, policy)
    expected = surrogate(current, new)
    torch.testing.assert_close(mixture_surrogate(current, [current], [1.0], new), expected, **TOLERANCE)
    torch.testing.assert_close(mixture_surrogate(current, [current] * 3, [0.5, 0.3, 0.2], new), expected, **TOLERANCE)
    gained = float((new * current.advantages).sum(-1).abs().max())
    change = float(current.visitation @ (new - policy).abs().sum(-1)) / 2.0
    bound = float(generalized_lower_bound(mdp, current, [current], [1.0], new))
    assert bound == pytest.approx(float(expected) - 2.0 * gamma / (1.0 - gamma) * gained * change, rel=1e-9)


def test_at_the_current_policy_surrogate_and_bound_are_its_return_whoever_collected():
    mdp, policy, other = case(5, 3, 0.9)
    current, collector = evaluate_policy(mdp, policy), evaluate_policy(mdp, other)
    for weights in ([1.0, 0.0], [0.4, 0.6], [0.0, 1.0]):
        found = mixture_surrogate(current, [current, collector], weights, policy)
        torch.testing.assert_close(found, current.eta, **TOLERANCE)
        bound = generalized_lower_bound(mdp, current, [current, collector], weights, policy)
        torch.testing.assert_close(bound, current.eta, **TOLERANCE)
