import copy
import math

import pytest
import torch
from methods import mlp_policy, rule_settings
from torch import Tensor

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import GaussianPolicy, Policy
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.reward_weighted_regression import RewardWeightedRegression, reward_weights

ROWS = 200
KINDS: dict[str, ActionSpec] = {
    "gaussian": ContinuousActions(2),
    "categorical": DiscreteActions((4,)),
    "multi_binary": BinaryActions(3),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(kind="gaussian", hidden_sizes=(), dtype=torch.float64) -> tuple[Policy, Batch]:
    source = generator(1)
    policy = mlp_policy(
        (3,), KINDS[kind], hidden_sizes=list(hidden_sizes), activation="tanh", initial_log_std=0.3, generator=source
    ).to(dtype)
    theta = parameter_vector(policy)
    assign_parameter_vector(policy, 0.5 * torch.randn(theta.shape, dtype=dtype, generator=source))
    observations = torch.randn(ROWS, 3, dtype=dtype, generator=source)
    with torch.no_grad():
        distribution = policy(observations)
        actions = distribution.sample(torch.rand(distribution.mode().shape, dtype=dtype, generator=source))
    return policy, Batch(observations, actions, torch.randn(ROWS, dtype=dtype, generator=source))


def rule(**values) -> RewardWeightedRegression:
    return RewardWeightedRegression(rule_settings(name="reward_weighted_regression", **values))


def update(policy: Policy, batch: Batch, **values):
    return rule(**values).update(policy, batch, generator())


def weights_by_definition(q: Tensor, temperature: float) -> Tensor:
    w = torch.tensor([math.exp((float(x) - float(q.max())) / temperature) for x in q], dtype=torch.float64)
    return w / w.sum()


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_temperature_gives_the_effective_sample_size(fraction, scale):
    q = scale * torch.randn(ROWS, dtype=torch.float64, generator=generator(3))
    weights, temperature = reward_weights(q, fraction)
    torch.testing.assert_close(weights, weights_by_definition(q, temperature), rtol=1e-9, atol=1e-15)
    assert float(weights.sum() ** 2 / weights.square().sum()) == pytest.approx(fraction * ROWS, rel=1e-9)


def test_ties_at_the_top_share_all_the_weight():
    q = torch.tensor([1.0, 3.0, 3.0, 3.0, 2.0], dtype=torch.float64)
    weights, _ = reward_weights(q, 0.2)
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64) / 3.0)


@pytest.mark.parametrize("hidden_sizes", [(), (4,)])
def test_shift_and_scale_of_returns_and_the_order_of_rows_change_nothing(hidden_sizes):
    policy, batch = problem(hidden_sizes=hidden_sizes)
    theta = update(policy, batch).theta
    moved = update(policy, Batch(batch.observations, batch.actions, 5.0 + 30.0 * batch.advantages)).theta
    order = torch.randperm(ROWS, generator=generator(2))
    shuffled = update(policy, Batch(*(x[order] for x in (batch.observations, batch.actions, batch.advantages)))).theta
    torch.testing.assert_close(moved, theta, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(shuffled, theta, rtol=1e-6, atol=1e-8)


def dense_fit(policy: GaussianPolicy, batch: Batch, fraction: float) -> Tensor:
    """Normal equations with dense weights, and the weighted variance row by row; in `parameters()` order."""
    weights = weights_by_definition(batch.advantages, reward_weights(batch.advantages, fraction)[1])
    x = torch.cat([batch.observations, torch.ones(ROWS, 1, dtype=torch.float64)], dim=1)
    moment = x.T @ weights.diag()
    solution = torch.linalg.solve(moment @ x, moment @ batch.actions)  # [O + 1, A]
    variance = torch.zeros(batch.actions.shape[1], dtype=torch.float64)
    for w, row, action in zip(weights, x, batch.actions, strict=True):
        variance += w * (action - row @ solution) ** 2
    named = {"log_std": 0.5 * variance.log(), "network.0.weight": solution[:-1].T, "network.0.bias": solution[-1]}
    return torch.cat([named[name].reshape(-1) for name, _ in policy.named_parameters()])


@pytest.mark.parametrize("fraction", [0.1, 0.6])
def test_a_linear_gaussian_is_the_weighted_least_squares_solution(fraction):
    policy, batch = problem()
    result = update(policy, batch, effective_sample_fraction=fraction, least_log_std=-20.0)
    expected = dense_fit(policy, batch, fraction)  # type: ignore[arg-type]
    torch.testing.assert_close(result.theta, expected, rtol=1e-9, atol=1e-11)
    assert result.rejection_reason is None and result.metrics["regression/log_likelihood"] > 0.0
    entropy = policy(batch.observations).entropy().mean().detach()
    assert result.metrics["policy/entropy"] == pytest.approx(float(entropy))


def weighted_log_likelihood(policy: Policy, batch: Batch, theta: Tensor, fraction: float) -> Tensor:
    weights = weights_by_definition(batch.advantages, reward_weights(batch.advantages, fraction)[1])
    return (weights * policy.at(theta, batch.observations).log_prob(batch.actions)).sum()


@pytest.mark.parametrize(
    ("kind", "hidden"), [("gaussian", ()), ("categorical", ()), ("multi_binary", ()), ("gaussian", (3,))]
)
def test_the_fit_is_stationary_and_better(kind, hidden):
    policy, batch = problem(kind, hidden)
    result = update(policy, batch, effective_sample_fraction=0.6, regression_iterations=300, least_log_std=-20.0)
    theta = result.theta.clone().requires_grad_(True)
    value = weighted_log_likelihood(policy, batch, theta, 0.6)
    (gradient,) = torch.autograd.grad(value, theta)
    assert gradient.abs().max() < 2e-4
    before = weighted_log_likelihood(policy, batch, parameter_vector(policy), 0.6)
    rise = float((value - before).detach())
    assert rise > 0.0 and result.metrics["regression/log_likelihood"] == pytest.approx(rise, rel=1e-6)


def test_lbfgs_and_the_solution_agree_for_a_linear_gaussian(monkeypatch):
    from trpo_lightning.rules import reward_weighted_regression as module

    policy, batch = problem()
    solved = update(policy, batch, effective_sample_fraction=0.5).theta
    monkeypatch.setattr(module, "_only_layer", lambda network: None)
    found = update(policy, batch, effective_sample_fraction=0.5, regression_iterations=200).theta
    torch.testing.assert_close(found, solved, rtol=1e-4, atol=1e-5)


def test_more_iterations_fit_better():
    policy, batch = problem(hidden_sizes=(4,))
    rises = [update(policy, batch, regression_iterations=n).metrics["regression/log_likelihood"] for n in (1, 5, 40)]
    assert 0.0 < rises[0] < rises[1] < rises[2]


def test_a_log_std_is_raised_to_the_least_one():
    policy, batch = problem()
    free = update(policy, batch, least_log_std=-20.0).theta
    floor = float(free[:2].min()) + 0.01
    held = update(policy, batch, least_log_std=floor).theta
    torch.testing.assert_close(held[:2], free[:2].clamp(min=floor), rtol=1e-12, atol=0)
    assert torch.equal(held[2:], free[2:]) and not torch.equal(held, free)
    exact = Batch(batch.observations, policy(batch.observations).mean.detach(), batch.advantages)
    collapsed = update(policy, exact, least_log_std=-3.0)
    assert collapsed.rejection_reason is None and (collapsed.theta[:2] == -3.0).all()


def test_what_the_observations_do_not_determine_stays():
    policy, batch = problem()
    batch.observations[:, 1] = 0.0
    before, after = copy.deepcopy(policy), copy.deepcopy(policy)
    assign_parameter_vector(after, update(policy, batch).theta)
    torch.testing.assert_close(after.network[0].weight[:, 1], before.network[0].weight[:, 1], rtol=1e-12, atol=0)
    assert (after.network[0].weight[:, 0] - before.network[0].weight[:, 0]).abs().min() > 1e-3


def test_the_policy_is_left_alone_and_float32_is_kept():
    policy, batch = problem(dtype=torch.float32)
    before = parameter_vector(policy)
    result = update(policy, batch)
    assert result.theta.dtype == torch.float32 and result.theta.shape == before.shape
    assert torch.equal(parameter_vector(policy), before) and all(p.grad is None for p in policy.parameters())


@pytest.mark.parametrize("hidden_sizes", [(), (4,)])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda batch: batch.advantages.__setitem__(3, math.nan), "a return is not finite"),
        (lambda batch: batch.advantages.fill_(2.0), "all returns are equal"),
        (lambda batch: batch.actions.__setitem__((5, 0), math.inf), "an observation or action is not finite"),
    ],
)
def test_what_cannot_be_fitted_is_rejected_with_its_reason(spoil, reason, hidden_sizes):
    policy, batch = problem(hidden_sizes=hidden_sizes)
    spoil(batch)
    result = update(policy, batch)
    assert result.rejection_reason == reason and torch.equal(result.theta, parameter_vector(policy))
