"""Numbers that are not finite, or have nothing to teach: an update is rejected without a trace, or learns from them."""

import math
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from methods import mlp_policy, rule_settings, value_settings

from trpo_lightning import TRPO
from trpo_lightning.numerics.conjugate_gradient import conjugate_gradient
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.spaces import ContinuousActions, DiscreteActions
from trpo_lightning.rollouts.normalizers import RunningMoments
from trpo_lightning.rollouts.rollout import Batch, PopulationBatch, VineBatch
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.rule import apply_rule
from trpo_lightning.settings import RunSettings, updated
from trpo_lightning.values import build_value_function

FAULTY = {"env.id": "faulty_numbers:faulty", "env.backend": "gymnasium", "env.num_envs": 4, "threads": 1}
SMALL = {
    **FAULTY,
    "env.max_episode_steps": 50,
    "rollout.steps_per_iteration": 64,
    "policy.hidden_sizes": [8],
    "value.hidden_sizes": [8],
    "value.epochs": 1,
    "evaluation.every": 0,
    "checkpoint.every": 0,
}
POPULATION = {"rollout.scheme": "population", "rule.population": 6}
RULES = {
    "trust_region": {},
    "trust_region_max_kl": {"rule.kl_over_states": "max"},
    "natural_gradient": {"rule.step_length": "fixed", "rule.step_size": 0.01},
    "empirical_fisher": {"rule.curvature": "empirical_fisher"},
    "vanilla": {"rule.name": "vanilla_policy_gradient"},
    "rwr": {"rule.name": "reward_weighted_regression", "value.name": "none", "gae_lambda": 1.0},
    "rwr_linear": {
        "rule.name": "reward_weighted_regression",
        "value.name": "none",
        "gae_lambda": 1.0,
        "policy.hidden_sizes": [],
    },
    "cem": {**POPULATION, "rule.name": "cem"},
    "cma_es": {**POPULATION, "rule.name": "cma_es", "policy.hidden_sizes": []},
}
GRADIENT = [name for name in RULES if name not in ("cem", "cma_es")]
VINE = {
    "rollout.scheme": "vine",
    "value.name": "none",
    "rollout.rollout_set_size": 16,
    "rollout.branches": 2,
    "rollout.branch_length": 3,
}


def flat(value) -> bytes:
    """All tensors and numbers of nested state, as bytes: equal only if bit-identical."""
    if isinstance(value, dict):
        return b"".join(str(key).encode() + flat(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return b"".join(flat(part) for part in value)
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()


class Watched(TRPO):
    """Checks at every update that a rejected one has changed nothing, and nobody's random numbers were drawn."""

    def training_step(self, rollout, batch_idx=0):
        before, rng = self.traces(), global_random_state()
        super().training_step(rollout, batch_idx)
        reason, after = self.row["update/rejection_reason"], self.traces()
        self.reasons = [*getattr(self, "reasons", []), reason]
        assert global_random_state() == rng
        if reason is not None:
            assert after["policy"] == before["policy"] and after["rule"] == before["rule"], reason
        if math.isnan(self.row.get("value/loss", 0.0)):
            assert after["values"] == before["values"]
        assert torch.isfinite(parameter_vector(self.policy)).all()
        state = [*self.normalizer.state_dict().values(), *self.value_function.state_dict().values()]
        assert all(torch.isfinite(tensor).all() for tensor in state)
        assert self.row["update/rejected"] == sum(reason is not None for reason in self.reasons)

    def traces(self):
        values = flat(self.value_function.state_dict()) + flat(self.value_function.optimizer_state())
        return {"policy": flat(self.policy.state_dict()), "rule": flat(self.rule.state_dict()), "values": values}


def global_random_state():
    return flat(torch.get_rng_state()), flat(list(np.random.get_state()[1])), repr(random.getstate())


def fit(iterations: int, values: dict, **kwargs) -> Watched:
    module = Watched(settings=updated(RunSettings(), {**SMALL, **values, "env.kwargs": kwargs}, lenient=SMALL))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=iterations, enable_model_summary=False, accelerator="cpu", **quiet)
    trainer.fit(module)
    assert trainer.global_step == len(module.reasons)
    return module


@pytest.mark.parametrize("rule", GRADIENT)
@pytest.mark.parametrize("where", ["reward", "observation"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_fault_that_passes_costs_the_iterations_that_hold_it(rule, where, value):
    module = fit(6, RULES[rule], where=where, value=value, after=16, until=24)
    rejected = [reason is not None for reason in module.reasons]
    assert rejected[1] and not rejected[0] and not any(rejected[4:])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_an_iteration_does_not_bootstrap_from_an_observation_that_is_not_finite(value):
    """The one after the first iteration's 16 steps, which the second begins with."""
    module = fit(4, {}, where="observation", value=value, after=15, until=16, length=100)
    assert [reason is not None for reason in module.reasons] == [True, True, False, False]


@pytest.mark.parametrize("rule", ["trust_region", "vanilla"])
@pytest.mark.parametrize("where", ["reward", "observation"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_fault_in_a_branch_costs_the_iteration_that_holds_it(rule, where, value):
    fault = {"where": where, "value": value, "after": 21, "until": 22}  # the second iteration's steps are 14 to 27
    module = fit(4, {**RULES[rule], **VINE}, **fault)
    assert [reason is not None for reason in module.reasons] == [False, True, False, False]
    assert "finite" in module.reasons[1]


@pytest.mark.parametrize("rule", ["cem", "cma_es"])
@pytest.mark.parametrize("where", ["reward", "observation"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_candidate_with_a_number_that_is_not_finite_rejects_the_generation(rule, where, value):
    module = fit(3, RULES[rule], where=where, value=value, after=5, until=6, length=4)
    assert module.reasons == ["a candidate's return or observation is not finite", None, None]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(
    ("values", "kwargs"),
    [
        ({}, {"where": "constant_reward"}),
        ({}, {"where": "constant_observation"}),
        ({}, {"length": 1}),
        ({}, {"length": 16}),
        ({"rollout.steps_per_iteration": 4}, {"length": 1}),
        ({"rollout.steps_per_iteration": 4}, {"length": 2}),
    ],
    ids=["constant_reward", "constant_observation", "one_step_episodes", "all_end_at_once", "one_step", "two_steps"],
)
def test_little_to_learn_from_is_learned_from_or_rejected(rule, values, kwargs, discrete):
    values = {} if rule in ("cem", "cma_es") else values
    module = fit(3, {**RULES[rule], **values}, discrete=discrete, **kwargs)
    assert_all_done(module)


@pytest.mark.parametrize("rule", ["trust_region", "vanilla"])
@pytest.mark.parametrize(
    "kwargs",
    [{"where": "constant_reward"}, {"where": "constant_observation"}, {"length": 1}, {"length": 16}],
    ids=["constant_reward", "constant_observation", "one_step_episodes", "all_end_at_once"],
)
@pytest.mark.parametrize("branches", ["policy", "all"])
def test_so_it_is_with_a_vine(rule, kwargs, branches):
    more = {"rollout.branch_actions": branches, "rollout.rollout_set_size": 3}
    assert_all_done(fit(3, {**RULES[rule], **VINE, **more}, discrete=branches == "all", **kwargs))


@pytest.mark.parametrize("rule", ["trust_region", "vanilla"])
def test_and_with_a_vine_of_one_state(rule):
    one = {"rollout.steps_per_iteration": 4, "rollout.rollout_set_size": 1, "rollout.branch_length": 1}
    assert_all_done(fit(3, {**RULES[rule], **VINE, **one}, length=1))


def assert_all_done(module):
    assert len(module.reasons) == 3 and all(reason is None or reason for reason in module.reasons)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("log_std", [-20.0, 2.0])
def test_log_std_at_its_bounds(rule, log_std):
    module = fit(3, {**RULES[rule], "policy.initial_log_std": log_std})
    assert module.iteration == 3 and all(p.isfinite().all() for p in module.policy.parameters())


def gaussian(hidden=(8,)):
    return mlp_policy(
        (3,),
        ContinuousActions(2),
        hidden_sizes=list(hidden),
        activation="tanh",
        initial_log_std=0.0,
        least_log_std=None,  # so that a step can ruin it
        generator=torch.Generator().manual_seed(0),
    )


def rows(count=40):
    generator = torch.Generator().manual_seed(1)
    return Batch(*(torch.randn(count, *shape, generator=generator) for shape in ((3,), (2,), ())))


def rule_of(name):
    return build_rule(
        rule_settings(**{k.partition(".")[2]: v for k, v in RULES[name].items() if k.startswith("rule.")})
    )


def rejected(rule, policy, batch) -> str:
    before, state = parameter_vector(policy), flat(rule.state_dict())
    result = apply_rule(rule, policy, batch, torch.Generator().manual_seed(0))
    assert result.rejection_reason is not None
    assert torch.equal(result.theta, before) and torch.equal(parameter_vector(policy), before)
    assert flat(rule.state_dict()) == state
    return result.rejection_reason


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["observations", "actions", "advantages"])
def test_one_bad_number_in_a_batch_rejects_its_update(name, value, part):
    policy, rule, batch = gaussian(() if name == "rwr_linear" else (8,)), rule_of(name), rows()
    assert apply_rule(rule, policy, batch, torch.Generator()).rejection_reason is None  # the rule has a state now
    getattr(batch, part).view(-1)[7] = value
    assert "finite" in rejected(rule, policy, batch)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["observations", "actions", "q_values"])
def test_one_bad_number_in_a_vine_rejects_its_update(value, part):
    generator = torch.Generator().manual_seed(1)
    batch = VineBatch(*(torch.randn(10, *shape, generator=generator) for shape in ((3,), (4, 2), (4,))))
    getattr(batch, part).view(-1)[5] = value
    for name in ("trust_region", "vanilla"):
        assert "finite" in rejected(rule_of(name), gaussian(), batch)


@pytest.mark.parametrize("name", ["trust_region", "trust_region_max_kl", "natural_gradient"])
def test_a_fisher_product_that_overflows_rejects_the_update(name):
    policy, batch = gaussian(), rows()
    batch.actions = policy(batch.observations).mode().detach()  # the gradient is finite, exp(-2 log std) is not
    policy.log_std.data.fill_(-50.0)
    reasons = ("the conjugate-gradient solution is not finite", "there is no ascent direction with positive curvature")
    assert rejected(rule_of(name), policy, batch) in reasons


def test_a_gradient_whose_square_overflows_would_poison_adam():
    policy, rule, batch = gaussian(), rule_of("vanilla"), rows()
    batch.advantages *= 1e30
    assert rejected(rule, policy, batch) == "the gradient's square is not finite"


def test_an_infinite_kl_rejects_the_update():
    settings = rule_settings(step_length="fixed", step_size=1e8, max_backtracks=2)
    assert "surrogate or KL is not finite" in rejected(build_rule(settings), gaussian(), rows())


def test_new_parameters_that_are_not_finite_reject_the_update():
    rule, policy = rule_of("vanilla"), gaussian()
    rule.settings.learning_rate = math.inf
    before = parameter_vector(policy)
    result = apply_rule(rule, policy, rows(), torch.Generator())
    assert result.rejection_reason == "the new parameters are not finite" and torch.equal(result.theta, before)


@pytest.mark.parametrize("name", ["cem", "cma_es"])
@pytest.mark.parametrize("broken", ["returns", "candidates", "overflow", "decomposition"])
def test_a_broken_generation_leaves_the_search_as_it_was(name, broken, monkeypatch):
    policy, rule = gaussian(()), rule_of(name)
    candidates = rule.propose(policy, torch.Generator().manual_seed(2))
    batch = PopulationBatch(candidates, torch.arange(len(candidates), dtype=torch.float64))
    if broken == "returns":
        batch.returns[1] = math.inf
    elif broken == "decomposition":
        if name == "cem":
            pytest.skip("cem decomposes nothing")

        def fails(matrix):
            raise torch.linalg.LinAlgError("the algorithm failed to converge")

        monkeypatch.setattr(torch.linalg, "eigh", fails)
        rule._search = rule._search.__class__(**{**rule.state_dict(), "decomposed": -(10**6)})
    else:
        batch.candidates[:, 3] = math.nan if broken == "candidates" else 1e60  # finite in float64, not in float32
    assert rejected(rule, policy, batch)


@pytest.mark.parametrize("name", ["adam", "lbfgs", "trust_region", "linear", "none"])
@pytest.mark.parametrize("part", ["observations", "targets"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_function_ignores_what_is_not_finite(name, part, value):
    settings = value_settings(name=name, hidden_sizes=[8], epochs=2, minibatch_size=16)
    function = build_value_function((3,), settings, torch.Generator().manual_seed(0))
    batch = rows()
    observations, targets = batch.observations, batch.advantages
    function.fit(observations, targets, torch.Generator())
    before = flat(function.state_dict()) + flat(function.optimizer_state())
    (observations if part == "observations" else targets).view(-1)[4] = value
    assert math.isnan(function.fit(observations, targets, torch.Generator()))
    assert flat(function.state_dict()) + flat(function.optimizer_state()) == before


@pytest.mark.parametrize("name", ["adam", "lbfgs", "trust_region", "linear", "none"])
@pytest.mark.parametrize("scale", [1e18, 1e30, 1e38])
def test_a_value_function_survives_targets_whose_squares_overflow(name, scale):
    settings = value_settings(name=name, hidden_sizes=[8], epochs=2, minibatch_size=16)
    function = build_value_function((3,), settings, torch.Generator().manual_seed(0))
    batch = rows()
    before = flat(function.state_dict())
    loss = function.fit(batch.observations, batch.advantages * scale, torch.Generator())
    assert all(torch.isfinite(tensor).all() for tensor in function.state_dict().values())
    assert math.isfinite(loss) or flat(function.state_dict()) == before


def test_a_curvature_so_small_that_the_step_overflows_ends_conjugate_gradients():
    b = torch.ones(3)
    solution = conjugate_gradient(lambda v: v * 1e-39, b, iterations=5)
    assert solution.iterations == 0 and torch.equal(solution.x, torch.zeros(3)) and solution.residual == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200, 1e308])
def test_statistics_are_not_poisoned(value):
    moments, clean = RunningMoments((2,)), RunningMoments((2,))
    good = np.random.default_rng(0).normal(size=(50, 2))
    bad = good.copy()
    bad[3, 1] = value
    for batch in (good, bad, good):
        moments.merge(batch)
    without = np.delete(bad, 3, axis=0) if not math.isfinite(value) else bad[:0]
    for batch in (good, without, good):
        clean.merge(batch)
    assert torch.equal(moments.std(), clean.std()) and torch.equal(moments.mean, clean.mean)
    assert moments.count == clean.count


def test_a_policy_of_logits_that_are_not_finite_rejects_the_update():
    policy = mlp_policy(
        (3,),
        DiscreteActions((4,)),
        hidden_sizes=[8],
        activation="tanh",
        initial_log_std=0.0,
        generator=torch.Generator().manual_seed(0),
    )
    batch = rows()
    batch.actions = torch.zeros(40, 1, dtype=torch.long)
    batch.observations[0] = math.inf
    policy.network[-1].weight.data.fill_(math.inf)
    for name in ("trust_region", "vanilla"):
        assert "finite" in rejected(rule_of(name), policy, batch)
