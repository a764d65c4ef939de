"""The practical algorithm with a known model: the same surrogate and constraint as in the theory, without samples."""

import pytest
import torch
from methods import rule_settings
from tabular_problem import tabular_problem

from trpo_lightning.numerics.tabular import evaluate_policy, state_kl, surrogate
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.table import policy_table
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.surrogate import build_surrogate, mean_entropy, surrogate_and_gradient

SETTINGS = {"fisher_fraction": 1.0, "cg_iterations": 60, "solve_dtype": "float64"}


@pytest.mark.parametrize("hidden_sizes", [[], [6]])
def test_it_is_the_theorys_surrogate(hidden_sizes):
    policy, batch = tabular_problem(hidden_sizes=hidden_sizes)
    built = build_surrogate(policy, batch)
    theta = parameter_vector(policy) + 0.3
    theta[::2] -= 0.5
    with torch.no_grad():
        new = policy_table(policy, batch.observations, theta)
        parts = [slice(0, 2), slice(2, 5)]
        total = sum(built.total(policy.at(theta, batch.observations[part]), part) for part in parts)
    assert float(total) / 5 == pytest.approx(float(surrogate(batch.values, new) - batch.values.eta), rel=1e-12)


@pytest.mark.parametrize("hidden_sizes", [[], [6]])
def test_its_gradient_is_the_returns(hidden_sizes):
    policy, batch = tabular_problem(hidden_sizes=hidden_sizes)
    policy_of = torch.softmax(policy(batch.observations).logits, -1)
    gradient = torch.autograd.grad(evaluate_policy(batch.mdp, policy_of).eta, list(policy.parameters()))
    expected = torch.cat([g.reshape(-1) for g in gradient])
    found = surrogate_and_gradient(policy, batch)[1]
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_states_count_in_the_kl_by_their_visitation():
    policy, batch = tabular_problem()
    weights = build_surrogate(policy, batch).kl_weights
    assert weights is not None and float(weights.sum()) == pytest.approx(5.0)
    torch.testing.assert_close(weights / weights[0], batch.values.visitation / batch.values.visitation[0])


def test_and_in_the_mean_entropy():
    policy, batch = tabular_problem()
    weights = batch.values.visitation / batch.values.visitation.sum()
    entropies = policy(batch.observations).entropy().detach()
    assert mean_entropy(build_surrogate(policy, batch)) == pytest.approx(float((weights * entropies).sum()), rel=1e-6)
    assert float(entropies.mean()) != pytest.approx(float((weights * entropies).sum()), rel=1e-3)


@pytest.mark.parametrize("damping", [1e-8, 0.3])
def test_a_step_is_that_of_dense_matrices(damping):
    policy, batch = tabular_problem()
    settings = rule_settings(**SETTINGS, delta=1e-4, damping=damping, step_length="undamped", kl_slack=1.5)
    result = build_rule(settings).update(policy, batch, torch.Generator())
    assert result.rejection_reason is None and result.metrics["line_search/backtracks"] == 0
    theta, old = parameter_vector(policy), batch.values
    weights = old.visitation / old.visitation.sum()

    def probabilities(at):
        return torch.softmax(policy.at(at, batch.observations).logits, -1)

    def mean_kl(at):
        return weights @ (old.policy * (old.policy / probabilities(at)).log()).sum(-1)

    gradient = torch.func.grad(lambda at: evaluate_policy(batch.mdp, probabilities(at)).eta)(theta)
    fisher = torch.autograd.functional.hessian(mean_kl, theta)
    s = torch.linalg.solve(fisher + damping * torch.eye(len(theta), dtype=torch.float64), gradient)
    step = s * (2 * settings.delta / (s @ fisher @ s)).sqrt()
    torch.testing.assert_close(result.theta - theta, step.detach(), rtol=1e-4, atol=1e-7)

    new = policy_table(policy, batch.observations, result.theta).detach()
    assert result.metrics["trust_region/kl"] == pytest.approx(float(weights @ state_kl(old.policy, new)), rel=1e-6)
    assert result.metrics["trust_region/kl_max"] == pytest.approx(float(state_kl(old.policy, new).max()), rel=1e-6)
    rise = float(surrogate(old, new) - old.eta)
    assert result.metrics["trust_region/surrogate_improvement"] == pytest.approx(rise, rel=1e-6)
