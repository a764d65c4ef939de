"""The exact maximiser of the bound, written into parameters."""

import pytest
import torch
from methods import rule_settings
from tabular_problem import tabular_problem

from trpo_lightning.numerics.algorithm_1 import algorithm_1_step
from trpo_lightning.numerics.tabular import TabularMDP, evaluate_policy, lower_bound, state_kl
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.table import policy_table, with_logits_changed
from trpo_lightning.rollouts.rollout import TabularBatch
from trpo_lightning.rules import build_rule

GENERATOR = torch.Generator()


def update(policy, batch):
    return build_rule(rule_settings(name="algorithm_1")).update(policy, batch, GENERATOR)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_the_policy_becomes_the_optimum(dtype, tolerance, gamma):
    policy, batch = tabular_problem(gamma=gamma, dtype=dtype)
    before = parameter_vector(policy)
    result = update(policy, batch)
    assert result.rejection_reason is None and result.theta.dtype == dtype
    torch.testing.assert_close(parameter_vector(policy), before, rtol=0.0, atol=0.0)
    step = algorithm_1_step(batch.mdp, batch.values)
    expected = batch.values.policy * step.log_ratio.exp()
    found = policy_table(policy, batch.observations, result.theta)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert result.metrics["trust_region/delta"] == step.radius
    assert result.metrics["trust_region/kl_max"] == pytest.approx(step.radius, rel=1e-2)
    weights = batch.values.visitation / batch.values.visitation.sum()
    mean = float((weights * state_kl(batch.values.policy, found)).sum())
    assert result.metrics["trust_region/kl"] == pytest.approx(mean)
    assert result.metrics["trust_region/surrogate_improvement"] > step.guaranteed


def test_the_exact_return_never_falls_in_float32_either():
    policy, batch = tabular_problem(gamma=0.5, dtype=torch.float32)
    observations, values = batch.observations, batch.values
    first = values.eta
    for _ in range(60):
        result = update(policy, TabularBatch(batch.mdp, observations, values))
        bound = lower_bound(batch.mdp, values, policy_table(policy, observations, result.theta))
        assign_parameter_vector(policy, result.theta)
        new = evaluate_policy(batch.mdp, policy_table(policy, observations))
        assert new.eta >= bound - 1e-14
        assert new.eta > values.eta or result.rejection_reason
        values = new
    assert new.eta > first + 0.1


def test_an_optimal_policy_is_kept_with_the_reason():
    policy, batch = tabular_problem()
    alike = TabularMDP(batch.mdp.transitions[:, :1].expand(-1, 3, -1), torch.ones_like(batch.mdp.rewards), *end(batch))
    values = evaluate_policy(alike, batch.values.policy)
    result = update(policy, TabularBatch(alike, batch.observations, values))
    assert "optimal" in (result.rejection_reason or "")
    assert torch.equal(result.theta, parameter_vector(policy))


def end(batch):
    return batch.mdp.initial, batch.mdp.gamma


def test_a_step_that_rounding_swallows_is_rejected():
    policy, batch = tabular_problem(gamma=0.999, dtype=torch.float32)
    with torch.no_grad():
        for p in policy.parameters():
            if p.ndim == 2:
                p += 1e4  # the same policy, its logits coarser than a step
        values = evaluate_policy(batch.mdp, policy_table(policy, batch.observations))
    result = update(policy, TabularBatch(batch.mdp, batch.observations, values))
    assert "resolution" in (result.rejection_reason or "")
    assert torch.equal(result.theta, parameter_vector(policy))


def test_only_a_table_is_written_to():
    policy, batch = tabular_problem(hidden_sizes=[4])
    with pytest.raises(ValueError, match="not a table"):
        update(policy, batch)


def test_logits_change_by_what_is_asked():
    policy, batch = tabular_problem()
    change = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    theta = with_logits_changed(policy, change)
    with torch.no_grad():
        difference = policy.at(theta, batch.observations).logits - policy(batch.observations).logits
    torch.testing.assert_close(difference, change)
