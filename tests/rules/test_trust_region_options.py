import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_trust_region import (
    EXACT,
    KINDS,
    dense_curvature,
    dense_entropy,
    dense_gradient,
    dense_update,
    generator,
    problem,
    surrogate_and_kls,
)
from methods import rule_settings

from trpo_lightning.errors import UserError
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.ranks import Share
from trpo_lightning.rollouts.rollout import Batch, VineBatch
from trpo_lightning.rules import constraint, surrogate
from trpo_lightning.rules.surrogate import ImportanceSampled, surrogate_and_gradient
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.rules.vanilla import VanillaPolicyGradient
from trpo_lightning.runs.config import load_settings
from trpo_lightning.settings import RuleSettings, RunSettings, TrustRegionSettings, changed_keys

ROWS = 14
NATURAL = {"step_length": "fixed", "kl_slack": None, "improvement_ratio": None, "max_backtracks": 0}
FAR = {"step_length": "undamped", "delta": 0.5, "backtrack_ratio": 0.85}
every_kind = pytest.mark.parametrize("kind", KINDS)


def compare(kind: str, settings: RuleSettings, progress: float = 0.0, delta: float | None = None) -> dict[str, float]:
    """Metrics of an update that equals the oracle's."""
    policy, batch = problem(kind, hidden_sizes=(3,), rows=ROWS)
    rule = TrustRegionRule(settings)
    rule.progress = progress
    result = rule.update(policy, batch, generator())
    expected, backtracks = dense_update(policy, batch, settings, delta=delta)
    assert result.rejection_reason is None
    assert result.metrics["line_search/backtracks"] == backtracks
    torch.testing.assert_close(result.theta, expected, rtol=1e-6, atol=1e-8)
    value, kls = surrogate_and_kls(policy, batch, result.theta, settings)
    before, _ = surrogate_and_kls(policy, batch, parameter_vector(policy), settings)
    assert result.metrics["trust_region/surrogate_improvement"] == pytest.approx(value - before, rel=1e-6, abs=1e-9)
    assert result.metrics["trust_region/kl"] == pytest.approx(float(kls.mean()), rel=1e-6)
    assert result.metrics["trust_region/kl_max"] == pytest.approx(float(kls.max()), rel=1e-6)
    return result.metrics


@every_kind
@pytest.mark.parametrize(
    "changes",
    [
        {"max_step_size": 0.1},
        {"max_step_size": 0.1, "kl_over_states": "max", "step_length": "undamped"},
        {"max_step_size": 1e6},
        {**NATURAL, "step_size": 0.3},
        {**NATURAL, "step_size": 3.0, "curvature": "empirical_fisher"},
        {"step_length": "fixed", "step_size": 3.0, "max_backtracks": 40},
        {"curvature": "empirical_fisher"},
        {"curvature": "empirical_fisher", "kl_over_states": "max", **FAR},
        {"kl_over_states": "max"},
        {"kl_over_states": "max", "damping": 0.7},
        {"kl_over_states": "max", "kl_over_dimensions": "mean", "kl_direction": "new_old", **FAR},
        {"kl_over_dimensions": "mean", **FAR},
        {"kl_over_dimensions": "mean", "curvature": "empirical_fisher"},
        {"kl_state_slack": 1.5, **FAR},
        {"kl_state_slack": 1.5, "kl_slack": 0.5, "kl_over_dimensions": "mean", **FAR},
        {"kl_state_slack": 1e-3, "kl_over_states": "max"},
        {"kl_state_slack": 1e-3, "kl_slack": None},
        {"entropy_bonus": 0.5},
        {"entropy_bonus": 0.5, "kl_slack": None, "improvement_ratio": 0.8, **FAR},
    ],
    ids=str,
)
def test_update_equals_the_dense_algorithm(kind, changes):
    compare(kind, rule_settings(**EXACT, **changes))


@pytest.mark.parametrize("std", [0.003, 1.0, 40.0])
def test_a_limited_step_is_the_same_for_standardized_advantages_and_for_their_own_scale(std):
    policy, batch = problem("gaussian", hidden_sizes=(3,), rows=ROWS)
    rule = TrustRegionRule(rule_settings(**EXACT, max_step_size=0.01))
    standardized = replace(batch, advantage_std=std)
    raw = replace(batch, advantages=std * batch.advantages)
    steps = [rule.update(policy, one, generator()) for one in (standardized, raw)]
    torch.testing.assert_close(steps[0].theta, steps[1].theta, rtol=1e-9, atol=1e-12)
    sizes = [step.metrics["trust_region/step_size"] for step in steps]
    assert sizes[0] == pytest.approx(std * sizes[1])


def test_rare_states_are_bounded_where_the_mean_is_not():
    """One state far from the others, where the mean KL hardly counts: the search goes on until it is bounded, too."""
    policy, batch = problem("gaussian", hidden_sizes=(3,), rows=ROWS)
    rare = replace(batch, observations=batch.observations.clone())
    rare.observations[0] *= 30.0

    def update(slack):
        settings = rule_settings(**EXACT, kl_state_slack=slack, max_backtracks=40)
        return TrustRegionRule(settings).update(policy, rare, generator()).metrics

    free = update(None)
    largest = free["trust_region/kl_max"] / 3.0
    bounded = update(largest / rule_settings().delta)
    assert free["trust_region/kl"] <= rule_settings().delta  # the mean alone shows nothing
    assert bounded["trust_region/kl_max"] <= largest
    assert bounded["line_search/backtracks"] > free["line_search/backtracks"]


def test_a_fixed_step_has_no_limit():
    """There `rule.max_step_size` does not count, whatever value the settings hold."""
    policy, batch = problem("gaussian", hidden_sizes=(3,), rows=ROWS)
    small = replace(batch, advantage_std=1e-6)
    result = TrustRegionRule(rule_settings(**EXACT, **NATURAL, step_size=0.3, max_step_size=10.0)).update(
        policy, small, generator()
    )
    assert result.metrics["trust_region/step_size"] == 0.3


def test_where_advantages_are_noise_a_limited_step_is_small():
    policy, batch = problem("gaussian", hidden_sizes=(3,), rows=ROWS)
    batches = batch, replace(batch, advantage_std=1e-6)

    def norms(limit):
        rule = TrustRegionRule(rule_settings(**EXACT, delta=1e-6, max_step_size=limit))
        return [rule.update(policy, one, generator()).metrics["trust_region/step_norm"] for one in batches]

    (free, also_free), (same, small) = norms(None), norms(0.1)
    assert free == also_free == same
    assert small < 1e-2 * free


@pytest.mark.parametrize("kind", ["gaussian", "multi_discrete"])
def test_acceptance_rules_equal_a_scan_over_all_backtracks(kind):
    rules = [
        {"kl_slack": slack, "improvement_ratio": ratio} for slack in (0.5, 1.0, None) for ratio in (None, 0.0, 0.9)
    ]
    far = {**FAR, "max_backtracks": 40}
    found = [compare(kind, rule_settings(**EXACT, **far, **rule))["line_search/backtracks"] for rule in rules]
    assert len(set(found)) >= 3  # the rules differ here


@pytest.mark.parametrize("kind", ["gaussian", "multi_discrete"])
def test_natural_gradient_takes_its_step_whatever_the_radius_even_downhill(kind):
    policy, batch = problem(kind, hidden_sizes=(3,), rows=ROWS)
    theta, falls = parameter_vector(policy), 0
    for step_size in (0.01, 1.0, 30.0, 1000.0):
        settings = rule_settings(**EXACT, **NATURAL, step_size=step_size, delta=1e-9)
        result = TrustRegionRule(settings).update(policy, batch, generator())
        fisher = dense_curvature(policy, batch, torch.arange(ROWS), settings)
        damped = fisher + settings.damping * torch.eye(len(theta), dtype=theta.dtype)
        natural = torch.linalg.solve(damped, dense_gradient(policy, batch, settings))
        torch.testing.assert_close(result.theta, theta + step_size * natural, rtol=1e-6, atol=1e-8)
        assert result.metrics["trust_region/step_size"] == step_size
        falls += result.metrics["trust_region/surrogate_improvement"] < 0.0
    assert falls


def test_a_natural_gradient_step_to_nowhere_is_rejected():
    policy, batch = problem("gaussian", rows=ROWS, dtype=torch.float32)
    result = TrustRegionRule(rule_settings(**NATURAL, step_size=1e100)).update(policy, batch, generator())
    assert result.rejection_reason == "the line search found no step: surrogate or KL is not finite"
    assert torch.equal(result.theta, parameter_vector(policy))


@every_kind
@pytest.mark.parametrize("changes", [{}, {"kl_over_states": "max"}], ids=str)
def test_largest_kl_is_the_bound_of_max_kl_and_beyond_it_otherwise(kind, changes):
    policy, batch = problem(kind)
    settings = rule_settings(**EXACT, **changes, delta=0.02, step_length="undamped", damping=1e-3)
    metrics = TrustRegionRule(settings).update(policy, batch, generator()).metrics
    assert metrics["trust_region/kl"] < metrics["trust_region/kl_max"]
    assert (metrics["trust_region/kl_max"] <= 0.02) == bool(changes)


@pytest.mark.parametrize(("progress", "delta"), [(0.0, 0.08), (0.25, 0.065), (0.9, 0.026), (1.0, 0.02)])
def test_delta_is_annealed_linearly(progress, delta):
    settings = rule_settings(**EXACT, delta=0.08, final_delta=0.02)
    metrics = compare("gaussian", settings, progress, delta)
    assert metrics["trust_region/delta"] == pytest.approx(delta, rel=1e-12)
    constant = rule_settings(**EXACT, delta=0.08)
    assert compare("gaussian", constant, progress)["trust_region/delta"] == 0.08


@pytest.mark.parametrize(("env_steps", "delta"), [(0, 0.08), (250, 0.065), (900, 0.026), (1000, 0.02), (10**9, 0.02)])
def test_delta_is_annealed_over_env_steps_whatever_the_budget(env_steps, delta):
    rule = TrustRegionRule(rule_settings(delta=0.08, final_delta=0.02, annealing_steps=1000))
    rule.progress, rule.env_steps = 0.5, env_steps
    assert rule.delta() == pytest.approx(delta)


@pytest.mark.parametrize("solve_dtype", ["float32", "float64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("curvature", ["fisher", "empirical_fisher"])
def test_curvature_of_every_iterate_equals_its_ascent(solve_dtype, dtype, curvature):
    policy, batch = problem("gaussian", dtype=dtype)
    exact = solve_dtype == "float64" or dtype == torch.float64
    for iterations in range(1, 7):
        choices = {"curvature": curvature, "solve_dtype": solve_dtype, "fisher_fraction": 1.0}
        settings = rule_settings(cg_iterations=iterations, **choices, **NATURAL)
        metrics = TrustRegionRule(settings).update(policy, batch, generator()).metrics
        assert metrics["cg/iterations"] == iterations
        curvature_of_step = 2.0 * metrics["trust_region/kl_quadratic_damped"]  # beta^2 s'(A + damping I)s
        ascent = metrics["trust_region/step_size"] * metrics["trust_region/expected_improvement"]  # beta^2 s'g
        assert curvature_of_step == pytest.approx(ascent, rel=1e-9 if exact else 1e-3)


@pytest.mark.parametrize("kind", ["gaussian", "multi_discrete"])
def test_float64_solve_reaches_what_float32_cannot(kind):
    """Over several orders of the rows: the rounding of the float32 gradient, which both have, differs in each."""
    policy, batch = problem(kind, dtype=torch.float32)
    exact = Batch(batch.observations.double(), batch.actions, batch.advantages.double())
    expected, _ = dense_update(copy.deepcopy(policy).double(), exact, rule_settings(damping=1e-6))
    errors: dict[str, list[float]] = {"float32": [], "float64": []}
    for seed in range(16):
        order = torch.randperm(ROWS, generator=generator(seed))
        shuffled = Batch(batch.observations[order], batch.actions[order], batch.advantages[order])
        residuals = {}
        for solve_dtype, found in errors.items():
            settings = rule_settings(**EXACT, damping=1e-6, solve_dtype=solve_dtype, kl_slack=None)
            result = TrustRegionRule(settings).update(policy, shuffled, generator())
            residuals[solve_dtype] = result.metrics["cg/residual"]
            assert result.rejection_reason is None and result.theta.dtype == torch.float32
            found.append(float((result.theta.double() - expected).norm()))
        assert residuals["float64"] < 1e-10 < residuals["float32"]
    assert np.mean(errors["float64"]) < np.mean(errors["float32"])


class Weighted(ImportanceSampled):
    """Single path with weights of states; advantages carry them already."""

    weights: torch.Tensor

    def __init__(self, batch) -> None:
        super().__init__(batch)
        self.kl_weights = self.weights


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kl_over_states": "max"},
        {"curvature": "empirical_fisher"},
        {"entropy_bonus": 0.7},
        {"kl_over_states": "max", **FAR},
    ],
    ids=str,
)
def test_weights_of_states_count_as_repeated_rows(changes, monkeypatch):
    policy, batch = problem("multi_discrete", hidden_sizes=(3,), rows=ROWS)
    settings = rule_settings(**EXACT, **changes)
    unweighted = TrustRegionRule(settings).update(policy, batch, generator())
    times = torch.arange(ROWS) % 4  # some states not at all, the one with the largest KL among them
    times[surrogate_and_kls(policy, batch, unweighted.theta, settings)[1].argmax()] = 0
    repeated = Batch(
        *(x.repeat_interleave(times, dim=0) for x in (batch.observations, batch.actions, batch.advantages))
    )
    expected = TrustRegionRule(settings).update(policy, repeated, generator())
    Weighted.weights = times.double() * ROWS / times.sum()
    monkeypatch.setitem(surrogate.SURROGATES, Batch, Weighted)
    weighted = Batch(batch.observations, batch.actions, batch.advantages * Weighted.weights)
    for chunk in (65536, 5):
        for module in (constraint, surrogate):
            monkeypatch.setattr(module, "CHUNK", chunk)
        result = TrustRegionRule(settings).update(policy, weighted, generator())
        torch.testing.assert_close(result.theta, expected.theta, rtol=1e-7, atol=1e-9)
        for name in ("kl", "kl_max", "surrogate_improvement"):
            assert result.metrics[f"trust_region/{name}"] == pytest.approx(expected.metrics[f"trust_region/{name}"])


def test_empirical_fisher_matrix_needs_single_paths():
    policy, batch = problem("gaussian", rows=ROWS)
    vine = VineBatch(batch.observations[:7], batch.actions.view(7, 2, 2), batch.advantages.view(7, 2))
    with pytest.raises(UserError, match=r"rule\.curvature=empirical_fisher needs .*single_path"):
        TrustRegionRule(rule_settings(curvature="empirical_fisher")).update(policy, vine, generator())


@every_kind
@pytest.mark.parametrize("bonus", [0.0, 0.3])
def test_entropy_bonus_is_in_the_gradient_of_both_rules(kind, bonus):
    policy, batch = problem(kind)
    settings = rule_settings(entropy_bonus=bonus)
    expected = dense_gradient(policy, batch, settings)
    found = surrogate_and_gradient(policy, batch, bonus, chunk=7)[1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    vanilla = VanillaPolicyGradient(rule_settings(name="vanilla_policy_gradient", entropy_bonus=bonus))
    step = vanilla.update(policy, batch, generator()).theta - parameter_vector(policy)
    assert torch.equal(step.sign(), expected.sign())  # Adam's first step


def test_a_large_entropy_bonus_raises_the_entropy():
    policy, batch = problem("gaussian")
    result = TrustRegionRule(rule_settings(entropy_bonus=100.0)).update(policy, batch, generator())
    with torch.no_grad():
        before, after = policy(batch.observations), policy.at(result.theta, batch.observations)
    assert dense_entropy(after).mean() > dense_entropy(before).mean() + 0.01


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("natural_gradient", NATURAL),
        ("empirical_fisher", {"curvature": "empirical_fisher"}),
        ("max_kl", {"kl_over_states": "max"}),
    ],
)
def test_presets_are_the_default_rule_with_other_parts(preset, changes):
    settings = load_settings([], Path(__file__).parents[2] / "experiments" / "rules" / f"{preset}.yaml")
    assert set(changed_keys(RunSettings(), settings)) == {f"rule.{name}" for name in changes}
    assert settings.rule == TrustRegionSettings(**changes)


def test_states_without_weight_count_in_neither_mean_nor_maximum():
    kls, weights = torch.tensor([1.0, 9.0, 2.0]), torch.tensor([2.0, 0.0, 1.0])
    over_states = constraint.OVER_STATES.items()
    assert {name: over(kls, weights, Share(3)) for name, over in over_states} == {"mean": 4 / 3, "max": 2.0}
    assert {name: over(kls, None, Share(3)) for name, over in over_states} == {"mean": 4.0, "max": 9.0}
