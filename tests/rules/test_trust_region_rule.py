import copy
import math

import pytest
import torch
from dense_trust_region import (
    EXACT,
    KINDS,
    ROWS,
    dense_log_prob,
    dense_update,
    generator,
    problem,
    surrogate_and_kls,
)
from methods import rule_settings

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules import build_rule, constraint, surrogate
from trpo_lightning.rules.constraint import fisher_rows
from trpo_lightning.rules.surrogate import surrogate_and_gradient
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.settings import CHOICES, RuleSettings, load_class

every_kind = pytest.mark.parametrize("kind", KINDS)


def rule(**settings) -> TrustRegionRule:
    return TrustRegionRule(rule_settings(**settings))


def surrogate_and_kl(policy, batch, theta, direction="old_new") -> tuple[float, float]:
    value, kls = surrogate_and_kls(policy, batch, theta, rule_settings(kl_direction=direction))
    return value, float(kls.mean())


@every_kind
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delta": 0.3},
        {"damping": 0.5},
        {"step_length": "undamped"},
        {"step_length": "undamped", "delta": 0.5, "backtrack_ratio": 0.5},
        {"step_length": "undamped", "delta": 0.5, "backtrack_ratio": 0.7, "kl_direction": "new_old"},
    ],
    ids=str,
)
def test_update_equals_the_dense_algorithm(kind, changes):
    policy, batch = problem(kind, hidden_sizes=(3,))
    settings = rule_settings(**EXACT, **changes)
    result = TrustRegionRule(settings).update(policy, batch, generator())
    assert result.rejection_reason is None
    torch.testing.assert_close(result.theta, dense_update(policy, batch, settings)[0], rtol=1e-6, atol=1e-8)


@every_kind
@pytest.mark.parametrize("direction", ["old_new", "new_old"])
@pytest.mark.parametrize("delta", [0.01, 0.2])
def test_update_improves_the_surrogate_within_the_trust_region(kind, direction, delta):
    policy, batch = problem(kind)
    result = rule(delta=delta, kl_direction=direction, step_length="undamped", fisher_fraction=0.5).update(
        policy, batch, generator()
    )
    before, _ = surrogate_and_kl(policy, batch, parameter_vector(policy))
    after, kl = surrogate_and_kl(policy, batch, result.theta, direction)
    assert result.rejection_reason is None
    assert after > before
    assert 0.05 * delta < kl <= delta * (1.0 + 1e-9)
    assert result.metrics["trust_region/kl"] == pytest.approx(kl, rel=1e-8)
    assert result.metrics["trust_region/surrogate_improvement"] == pytest.approx(after - before, rel=1e-8)


@every_kind
def test_float32_update_keeps_its_promises(kind):
    policy, batch = problem(kind, dtype=torch.float32)
    result = rule(delta=0.01).update(policy, batch, generator())
    assert result.rejection_reason is None and result.theta.dtype == torch.float32
    double = copy.deepcopy(policy).double()
    wide = Batch(
        batch.observations.double(),
        batch.actions.double() if kind == "gaussian" else batch.actions,
        batch.advantages.double(),
    )
    before, _ = surrogate_and_kl(double, wide, parameter_vector(double))
    after, kl = surrogate_and_kl(double, wide, result.theta.double())
    assert after > before
    assert 1e-4 < kl <= 0.01 * (1.0 + 1e-3)


@every_kind
def test_update_touches_neither_policy_nor_batch_nor_global_randomness(kind):
    policy, batch = problem(kind)
    theta, before = parameter_vector(policy), copy.deepcopy(batch)
    state = torch.get_rng_state()
    result = rule(fisher_fraction=0.3).update(policy, batch, generator())
    assert not torch.equal(result.theta, theta)
    assert torch.equal(parameter_vector(policy), theta)
    assert all(p.grad is None for p in policy.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not result.theta.requires_grad
    for name in ("observations", "actions", "advantages"):
        assert torch.equal(getattr(batch, name), getattr(before, name))


@pytest.mark.parametrize(
    ("advantages", "reason"),
    [
        (math.nan, "the gradient is not finite"),
        (math.inf, "the gradient is not finite"),
        (0.0, "there is no ascent direction with positive curvature"),
    ],
)
@every_kind
def test_rejected_update_returns_theta_bit_identical(kind, advantages, reason):
    policy, batch = problem(kind, dtype=torch.float32)
    theta = parameter_vector(policy)
    bad = batch.advantages.clone()
    bad[3 if advantages else slice(None)] = advantages
    result = rule().update(policy, Batch(batch.observations, batch.actions, bad), generator())
    assert result.rejection_reason == reason
    assert torch.equal(result.theta, theta) and torch.equal(parameter_vector(policy), theta)


def test_exhausted_line_search_rejects():
    policy, batch = problem("gaussian")
    theta = parameter_vector(policy)
    result = rule(delta=50.0, damping=0.0, max_backtracks=0).update(policy, batch, generator())
    assert result.rejection_reason is not None and result.rejection_reason.startswith("the line search found no step")
    assert torch.equal(result.theta, theta)
    assert result.metrics["line_search/accepted"] == 0.0


@pytest.mark.parametrize("seed", [0, 1])
@every_kind
def test_only_the_fisher_products_use_the_subset(kind, seed):
    policy, batch = problem(kind, hidden_sizes=(3,))
    settings = rule_settings(**{**EXACT, "fisher_fraction": 0.25})
    rows = fisher_rows(ROWS, 0.25, generator(seed))
    result = TrustRegionRule(settings).update(policy, batch, generator(seed))
    expected, _ = dense_update(policy, batch, settings, rows=rows)
    torch.testing.assert_close(result.theta, expected, rtol=1e-6, atol=1e-8)
    _, kl = surrogate_and_kl(policy, batch, result.theta)
    assert result.metrics["trust_region/kl"] == pytest.approx(kl, rel=1e-9)


def test_subset_follows_from_the_generator():
    policy, batch = problem("gaussian")
    first, again, other = (rule(fisher_fraction=0.2).update(policy, batch, generator(s)).theta for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("rows", "fraction", "expected"), [(100, 0.1, 10), (10, 0.25, 2), (3, 0.01, 1), (1, 0.5, 1)])
def test_fisher_rows_are_distinct_and_as_many_as_asked_for(rows, fraction, expected):
    chosen = fisher_rows(rows, fraction, generator())
    assert len(chosen) == len(set(chosen.tolist())) == expected
    assert 0 <= int(chosen.min()) and int(chosen.max()) < rows


def test_fisher_rows_of_everything_draw_nothing():
    source = generator()
    state = source.get_state()
    assert torch.equal(fisher_rows(7, 1.0, source), torch.arange(7))
    assert torch.equal(source.get_state(), state)


def test_every_row_is_chosen_equally_often():
    source = generator()
    counts = torch.bincount(torch.cat([fisher_rows(20, 0.25, source) for _ in range(2000)]), minlength=20)
    sigma = math.sqrt(2000 * 0.25 * 0.75)
    assert (counts - 500).abs().max() < 4.0 * sigma


@pytest.mark.parametrize("chunk", [1, 7, ROWS - 1, ROWS])
@every_kind
def test_chunks_change_the_update_by_rounding_only(kind, chunk, monkeypatch):
    policy, batch = problem(kind)
    # few iterations: later ones amplify rounding, tenfold and more each where the Fisher matrix is ill-conditioned
    settings = {"fisher_fraction": 0.5, "cg_iterations": 5}
    whole = rule(**settings).update(policy, batch, generator())
    for module in (constraint, surrogate):
        monkeypatch.setattr(module, "CHUNK", chunk)
    chunked = rule(**settings).update(policy, batch, generator())
    torch.testing.assert_close(chunked.theta, whole.theta, rtol=1e-8, atol=1e-10)
    assert chunked.metrics == pytest.approx(whole.metrics, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("chunk", [1, 7, ROWS, 65536])
@every_kind
def test_surrogate_gradient_is_the_policy_gradient_of_a_per_sample_loop(kind, chunk):
    policy, batch = problem(kind)
    parameters = list(policy.parameters())
    expected = torch.zeros_like(parameter_vector(policy))
    for n in range(ROWS):
        log_prob = dense_log_prob(policy(batch.observations[n : n + 1]), batch.actions[n : n + 1]).squeeze()
        parts = torch.autograd.grad(log_prob, parameters)
        expected += batch.advantages[n] * torch.cat([part.reshape(-1) for part in parts]) / ROWS
    found = surrogate_and_gradient(policy, batch, chunk=chunk)[1]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_metrics_and_seconds_are_plain_floats():
    policy, batch = problem("gaussian")
    result = rule().update(policy, batch, generator())
    assert set(result.metrics) == {
        "policy/entropy",
        "cg/iterations",
        "cg/residual",
        "line_search/accepted",
        "line_search/backtracks",
        "trust_region/delta",
        "trust_region/kl",
        "trust_region/kl_max",
        "trust_region/kl_quadratic",
        "trust_region/kl_quadratic_damped",
        "trust_region/surrogate_improvement",
        "trust_region/expected_improvement",
        "trust_region/step_norm",
        "trust_region/step_size",
    }
    assert set(result.seconds) == {"gradient", "cg", "line_search"}
    assert all(type(v) is float for v in (*result.metrics.values(), *result.seconds.values()))
    assert all(v >= 0.0 for v in result.seconds.values())


@pytest.mark.parametrize("iterations", [1, 3])
def test_conjugate_gradient_settings_reach_the_solver(iterations):
    policy, batch = problem("gaussian")
    assert rule(cg_iterations=iterations).update(policy, batch, generator()).metrics["cg/iterations"] == iterations
    loose = rule(cg_iterations=50, cg_tolerance=0.3).update(policy, batch, generator()).metrics
    tight = rule(cg_iterations=50, cg_tolerance=1e-6).update(policy, batch, generator()).metrics
    assert loose["cg/iterations"] < tight["cg/iterations"]
    assert tight["cg/residual"] <= 1.1e-6 < loose["cg/residual"] <= 0.3


def test_trust_region_rule_remembers_nothing():
    policy, batch = problem("gaussian")
    one = rule()
    first = one.update(policy, batch, generator()).theta
    assert one.state_dict() == {}
    assert torch.equal(one.update(policy, batch, generator()).theta, first)


def test_every_name_that_settings_allow_builds_its_rule():
    names = RuleSettings.__dataclass_fields__["name"].metadata["choices"]
    assert set(names) == set(CHOICES["rule.name"].methods)
    for name in names:
        settings = rule_settings(name=name)
        built = build_rule(settings)
        assert type(built) is load_class("rule.name", name) and built.settings is settings
        assert type(settings) is type(built).Settings
