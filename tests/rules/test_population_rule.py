"""What CEM and CMA-ES have in common: the parameters they search, order, rejection, state."""

import copy
import io
import math
from pathlib import Path

import pytest
import torch
from methods import rule_settings
from populations import generation, generator, policy, random, sphere

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.spaces import BinaryActions, DiscreteActions
from trpo_lightning.rollouts.rollout import PopulationBatch
from trpo_lightning.rules import build_rule
from trpo_lightning.runs.config import load_settings
from trpo_lightning.settings import counting_keys

KINDS = {
    "cem": {"name": "cem", "extra_std": 0.2},
    "cma_es": {"name": "cma_es"},
    "sep_cma_es": {"name": "cma_es", "covariance": "diagonal"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def rule(kind, **values):
    return build_rule(rule_settings(**{"population": 8, **KINDS[kind], **values}))


def advanced(kind, generations=3):
    one, network = rule(kind), policy()
    for seed in range(generations):
        generation(one, network, sphere, seed)
    return one, network


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


@every_kind
def test_log_std_does_not_act_and_is_not_searched(kind):
    one, network = advanced(kind)
    start = policy()
    assert torch.equal(network.log_std, start.log_std)  # type: ignore[arg-type]
    candidates = one.propose(network, generator(9))
    assert (candidates[:, :2] == network.log_std.detach().double()).all()
    assert (candidates[:, 2:].std(0) > 0.0).all() and not torch.equal(
        parameter_vector(network), parameter_vector(start)
    )


@every_kind
@pytest.mark.parametrize("actions", [DiscreteActions((2, 3)), BinaryActions(2)])
def test_every_parameter_of_other_policies_is_searched(kind, actions):
    candidates = rule(kind).propose(policy(actions), generator())
    assert (candidates.std(0) > 0.0).all()


@every_kind
def test_theta_becomes_the_mean_and_the_first_population_lies_around_the_policy(kind):
    network, one = policy(), rule(kind, population=4000, initial_std=0.5)
    x = one.propose(network, generator(1))
    torch.testing.assert_close(x.mean(0), parameter_vector(network).double(), rtol=0, atol=0.05)
    torch.testing.assert_close(x[:, 2:].std(0), torch.full((8,), 0.5, dtype=torch.float64), rtol=0.05, atol=0)
    theta = one.update(network, PopulationBatch(x, sphere(x)), generator()).theta
    assert torch.equal(theta[2:], one.state_dict()["mean"].float()) and theta.dtype == torch.float32
    assert float(sphere(theta[None].double())) > float(sphere(parameter_vector(network)[None].double()))


@every_kind
def test_proposals_depend_on_the_noise_alone_and_change_nothing(kind):
    one, network = advanced(kind)
    before, theta = copy.deepcopy(one.state_dict()), parameter_vector(network)
    first = one.propose(network, generator(5))
    assert not torch.equal(one.propose(network, generator(6)), first)
    assert torch.equal(one.propose(network, generator(5)), first)
    assert same(one.state_dict(), before) and torch.equal(parameter_vector(network), theta)


@every_kind
def test_the_order_of_candidates_and_monotone_changes_of_their_returns_do_not_matter(kind):
    one, network = advanced(kind)
    other, third = copy.deepcopy(one), copy.deepcopy(one)
    x = one.propose(network, generator(5))
    returns, order = random(8, seed=2), torch.randperm(8, generator=generator(1))
    result = one.update(network, PopulationBatch(x, returns), generator())
    other.update(network, PopulationBatch(x[order], returns[order]), generator())
    third.update(network, PopulationBatch(x, 1e3 + returns.exp() / 7.0), generator())
    assert same(one.state_dict(), other.state_dict()) and same(one.state_dict(), third.state_dict())
    assert not same(one.state_dict(), advanced(kind)[0].state_dict())
    assert result.metrics["population/best_return"] == float(returns.max())


@every_kind
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("generations", [0, 3])
def test_a_return_that_is_not_finite_rejects_the_update_and_leaves_no_trace(kind, bad, generations):
    one, network = advanced(kind, generations)
    twin = copy.deepcopy(one)
    x, theta = one.propose(network, generator(5)), parameter_vector(network)
    state, returns = copy.deepcopy(one.state_dict()), random(8)
    returns[3] = bad
    result = one.update(network, PopulationBatch(x, returns), generator())
    assert result.rejection_reason == "a candidate's return or observation is not finite"
    assert torch.equal(result.theta, theta) and same(one.state_dict(), state)
    after = [generation(r, copy.deepcopy(network), sphere, 7) for r in (one, twin)]
    assert torch.equal(*after)


@every_kind
def test_a_search_distribution_that_overflows_is_rejected(kind):
    one, network = advanced(kind)
    x, state = one.propose(network, generator(5)), copy.deepcopy(one.state_dict())
    x[2, 4], returns = math.inf, random(8)
    returns[2] = 100.0
    result = one.update(network, PopulationBatch(x, returns), generator())
    assert result.rejection_reason == "the search distribution is not finite"
    assert torch.equal(result.theta, parameter_vector(network)) and same(one.state_dict(), state)


@every_kind
def test_state_survives_a_file_without_pickled_objects_and_continues_bit_for_bit(kind):
    one, network = advanced(kind)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    resumed = rule(kind)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(network)
    for seed in range(10, 14):
        assert torch.equal(generation(one, network, sphere, seed), generation(resumed, twin, sphere, seed))
    assert same(one.state_dict(), resumed.state_dict())
    forgetful = rule(kind)
    assert not torch.equal(generation(forgetful, twin, sphere, 20), generation(one, network, sphere, 20))


@every_kind
def test_without_a_generation_there_is_no_state(kind):
    one = rule(kind)
    assert one.state_dict() == {}
    one.load_state_dict({})
    assert torch.equal(one.propose(policy(), generator(3)), rule(kind).propose(policy(), generator(3)))


@pytest.mark.parametrize(
    ("preset", "name"), [("cem", "cem"), ("cma_es", "cma_es"), ("rwr", "reward_weighted_regression")]
)
def test_the_presets_name_their_rules_and_take_rewards_as_they_are(preset, name):
    settings = load_settings([], Path(__file__).parents[2] / "experiments" / "rules" / f"{preset}.yaml")
    assert settings.rule.name == name and settings.value.name == "none"
    scaled = settings.normalize.rewards and "normalize.rewards" in counting_keys(settings)
    assert not scaled and (settings.normalize.observations == (name not in ("cem", "cma_es")))
    assert preset != "rwr" or (settings.gae_lambda == 1.0 and settings.rollout.whole_episodes)


def test_the_update_never_writes_to_the_policy():
    for kind in KINDS:
        one, network = rule(kind), policy()
        theta = parameter_vector(network)
        x = one.propose(network, generator())
        new = one.update(network, PopulationBatch(x, sphere(x)), generator()).theta
        assert torch.equal(parameter_vector(network), theta) and not torch.equal(new, theta)
        assign_parameter_vector(network, new)
