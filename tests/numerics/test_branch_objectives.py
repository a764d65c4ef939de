"""Vine's two estimators against loops over states and actions, in float64."""

import pytest
import torch
from torch import Tensor

from trpo_lightning.numerics.objectives import all_actions_surrogate, self_normalized_surrogate

STATES, BRANCHES = 6, 5


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits `[S, K]`, log q `[S, K]`, Q-values `[S, K]`."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(3, STATES, BRANCHES, dtype=torch.float64, generator=generator).unbind(0))


def test_self_normalized_is_the_weighted_mean_of_q_values_over_a_state_s_actions():
    log_prob, log_q, q_values = data()
    expected = 0.0
    for s in range(STATES):
        w = [float(torch.exp(log_prob[s, k]) / torch.exp(log_q[s, k])) for k in range(BRANCHES)]
        expected += sum(w[k] * float(q_values[s, k]) for k in range(BRANCHES)) / sum(w)
    assert float(self_normalized_surrogate(log_prob, log_q, q_values)) == pytest.approx(expected, rel=1e-12)


def test_all_actions_is_the_expectation_under_the_new_policy():
    log_prob, _, q_values = data()
    expected = sum(float(torch.exp(log_prob[s, k]) * q_values[s, k]) for s in range(STATES) for k in range(BRANCHES))
    assert float(all_actions_surrogate(log_prob, q_values)) == pytest.approx(expected, rel=1e-12)


def test_at_the_old_policy_the_self_normalized_gradient_has_the_mean_as_baseline():
    """With q = policy, d/d log pi_k is (Q_k - mean Q) / K."""
    log_q, _, q_values = data()
    log_prob = log_q.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(self_normalized_surrogate(log_prob, log_q, q_values), log_prob)
    for s in range(STATES):
        mean = sum(float(q) for q in q_values[s]) / BRANCHES
        for k in range(BRANCHES):
            assert float(gradient[s, k]) == pytest.approx((float(q_values[s, k]) - mean) / BRANCHES, abs=1e-12)
    assert gradient.norm() > 0.1


def surrogates(q_values: Tensor, log_q: Tensor):
    return {
        "self_normalized": lambda x: self_normalized_surrogate(torch.log_softmax(x, 1), log_q, q_values),
        "all_actions": lambda x: all_actions_surrogate(torch.log_softmax(x, 1), q_values),
    }


@pytest.mark.parametrize("name", ["self_normalized", "all_actions"])
@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_gradients_agree_with_finite_differences_and_ignore_a_constant_added_to_a_state(name, distance):
    logits, other, q_values = data()
    log_q = torch.log_softmax(logits + distance * other, 1)
    surrogate = surrogates(q_values, log_q)[name]
    x = logits.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(surrogate(x), x)
    h = 1e-6
    for s in range(STATES):
        for k in range(BRANCHES):
            step = torch.zeros_like(logits)
            step[s, k] = h
            difference = float(surrogate(logits + step) - surrogate(logits - step)) / (2 * h)
            assert difference == pytest.approx(float(gradient[s, k]), abs=1e-8)
    shifted = surrogates(q_values + 100.0 * torch.arange(STATES)[:, None], log_q)[name]
    (same,) = torch.autograd.grad(shifted(x), x)
    torch.testing.assert_close(same, gradient, rtol=0, atol=1e-11)


def test_values_are_float64_and_an_impossible_action_has_no_weight():
    log_prob, log_q = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-0.7, -0.7]])
    q_values = torch.tensor([[2.0, 50.0]])
    for value in (self_normalized_surrogate(log_prob, log_q, q_values), all_actions_surrogate(log_prob, q_values)):
        assert value.dtype == torch.float64 and float(value) == 2.0
