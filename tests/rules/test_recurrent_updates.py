"""Updates of policies with a memory, against the dense algorithm on equations written out step by step."""

import pytest
import torch
from dense_trust_region import EXACT, dense_update, generator
from methods import rule_settings
from recurrent_problem import recurrent_problem, sequences, slow

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.ranks import Share
from trpo_lightning.rules import build_rule, constraint, reward_weighted_regression, surrogate
from trpo_lightning.rules.constraint import fisher_subset
from trpo_lightning.rules.trust_region import TrustRegionRule

every_cell = pytest.mark.parametrize("name", ["gru", "lstm"])
LENGTHS = (4, 1, 6, 2)


@every_cell
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"delta": 0.5, "step_length": "undamped"}, {"curvature": "empirical_fisher", "entropy_bonus": 0.1}],
    ids=str,
)
def test_updates_equal_the_dense_algorithm(monkeypatch, name, kind, changes):
    policy, batch = recurrent_problem(name, kind, sizes=(2,), lengths=LENGTHS)
    for module in (surrogate, constraint):
        monkeypatch.setattr(module, "CHUNK", 7)  # of several parts
    settings = rule_settings(**EXACT, **changes)
    result = TrustRegionRule(settings).update(policy, batch, generator())
    assert result.rejection_reason is None
    expected, backtracks = dense_update(slow(policy), batch, settings)
    assert result.metrics["line_search/backtracks"] == backtracks
    torch.testing.assert_close(result.theta, expected, rtol=1e-6, atol=1e-8)


@every_cell
def test_the_largest_kl_of_a_step_is_bounded_where_asked(name):
    policy, batch = recurrent_problem(name, "categorical", sizes=(2,), lengths=LENGTHS)
    settings = rule_settings(**EXACT, kl_over_states="max", delta=0.001)
    result = TrustRegionRule(settings).update(policy, batch, generator())
    with torch.no_grad():
        old, new = policy(batch.observations), slow(policy).at(result.theta, batch.observations)
    assert float(old.kl(new).max()) == pytest.approx(result.metrics["trust_region/kl_max"], rel=1e-9)
    assert 0.0 < result.metrics["trust_region/kl_max"] <= 0.001


@pytest.mark.parametrize("fraction", [0.01, 0.4, 0.99, 1.0])
def test_fisher_subsets_are_of_whole_sequences(fraction):
    policy, _ = recurrent_problem("gru", "categorical")
    observed = sequences(policy)
    rows, _ = fisher_subset(observed, Share(len(observed)), fraction, generator())
    chosen = observed[rows]  # would raise
    assert len(chosen.lengths) == max(1, round(7 * fraction))
    torch.testing.assert_close(policy(chosen).logits, policy(observed).logits[rows])


def test_a_fisher_subset_is_the_curvature_of_the_update():
    policy, batch = recurrent_problem("gru", "gaussian", sizes=(2,))
    settings = rule_settings(**{**EXACT, "fisher_fraction": 0.5})
    result = TrustRegionRule(settings).update(policy, batch, generator(5))
    rows, _ = fisher_subset(batch.observations, Share(len(batch)), 0.5, generator(5))
    torch.testing.assert_close(
        result.theta, dense_update(slow(policy), batch, settings, rows=rows)[0], rtol=1e-6, atol=1e-8
    )


@every_cell
@pytest.mark.parametrize("rule", ["vanilla_policy_gradient", "reward_weighted_regression"])
def test_other_rules_improve_their_objective_on_sequences(monkeypatch, name, rule):
    for module in (surrogate, reward_weighted_regression):
        monkeypatch.setattr(module, "CHUNK", 7)
    policy, batch = recurrent_problem(name, "gaussian")
    result = build_rule(rule_settings(rule)).update(policy, batch, generator())
    assert result.rejection_reason is None and not torch.equal(result.theta, parameter_vector(policy))
    if rule == "reward_weighted_regression":
        assert result.metrics["regression/log_likelihood"] > 0.0
    else:
        with torch.no_grad():
            old, new = (slow(policy).at(th, batch.observations) for th in (parameter_vector(policy), result.theta))
            rise = (new.log_prob(batch.actions) - old.log_prob(batch.actions)) @ batch.advantages
        assert float(rise) > 0.0


def test_a_number_that_is_not_finite_is_a_rejection():
    policy, batch = recurrent_problem("lstm", "gaussian")
    batch.observations.observations[3] = float("nan")
    result = TrustRegionRule(rule_settings()).update(policy, batch, generator())
    assert result.rejection_reason is not None
    assert torch.equal(result.theta, parameter_vector(policy))
