"""What is learned from several policies' batches, against expectations enumerated in a small MDP."""

import math

import numpy as np
import pytest
import tiny_mdp
import torch
from torch import Tensor

from trpo_lightning import TRPO
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.table import policy_table
from trpo_lightning.rules.mixture import mixture_weights
from trpo_lightning.rules.surrogate import build_surrogate, surrogate_and_gradient
from trpo_lightning.training.reuse.diagnostics import (
    combined,
    effective_size,
    kl_from_ratios,
    reuse_metrics,
    value_of,
)
from trpo_lightning.values.value_function import NoValueFunction

GAMMA, STEPS = 0.9, 10
STATES = torch.eye(tiny_mdp.STATES)


class ExactValues(NoValueFunction):
    """V of a policy, from the MDP's tables."""

    def __init__(self, policy: np.ndarray) -> None:
        torch.nn.Module.__init__(self)
        q = tiny_mdp.q_table(policy, GAMMA, 400)
        self.values, self.advantages = (policy * q).sum(1), q - (policy * q).sum(1, keepdims=True)

    def predict(self, observations: Tensor, chunk: int = 65536) -> Tensor:
        return observations.double() @ torch.from_numpy(self.values)


def module_with(**rule) -> TRPO:
    return TRPO(
        "tiny_mdp:make",
        num_envs=8,
        max_episode_steps=STEPS,
        steps_per_iteration=4000,
        whole_episodes=True,
        normalize={"observations": False, "rewards": False},
        policy={"hidden_sizes": []},
        value={"name": "none"},
        gamma=GAMMA,
        gae_lambda=0.6,
        rule={"standardize_advantages": False, **rule},
    )


def table(policy) -> np.ndarray:
    with torch.no_grad():
        return policy_table(policy, STATES).numpy()


@pytest.fixture(scope="module")
def collected():
    """Three policies' batches, the last of them the current one, mixed with the exact values of the current policy."""
    return collect("optimal")


def collect(kind: str, truncation: float | None = 100.0):
    size = {"reuse_size": 1.5} if kind == "optimal" else {}
    module = module_with(reuse=kind, reuse_batches=3, reuse_truncation=truncation, **size)
    generator, tables = torch.Generator().manual_seed(0), []
    for _ in range(3):
        theta = parameter_vector(module.policy)
        assign_parameter_vector(module.policy, theta + 0.4 * torch.randn(theta.shape, generator=generator))
        tables.append(table(module.policy))
        module.value_function = ExactValues(tables[-1])
        rollout = module.collect()
        estimate = module.estimate(rollout)
        if len(tables) < 3:
            module.reuse.keep(estimate.mixture)
        module.iteration += 1
    module.scheme.close()
    return module, estimate, tables[::-1]


def exact_surrogate(theta: Tensor, module: TRPO, tables: list[np.ndarray]) -> Tensor:
    """sum_i w_i sum_s P_i(s) sum_a pi_theta(a|s) A(s, a), A of the current policy, P_i a random step of policy i."""
    advantages = torch.from_numpy(module.value_function.advantages)
    gained = (policy_table(module.policy, STATES, theta) * advantages).sum(-1)
    visits = [torch.from_numpy(tiny_mdp.visitation(one, STEPS)) for one in tables]
    return sum(w * (p @ gained) for w, p in zip(mixture_weights(module.settings.rule), visits, strict=True))


def standard_error(module, batch, theta) -> float:
    """Of the sampled surrogate, as if transitions were independent."""
    with torch.no_grad():
        ratios = torch.exp(module.policy.at(theta, batch.observations).log_prob(batch.actions) - batch.log_probs)
    return float((batch.weights * ratios * batch.advantages).std() / math.sqrt(len(batch)))


def test_the_sampled_mixture_surrogate_is_the_exact_one(collected):
    module, estimate, tables = collected
    assert len(estimate.mixture.parts) == 3
    surrogate, old = build_surrogate(module.policy, estimate.batch), parameter_vector(module.policy)
    generator = torch.Generator().manual_seed(1)
    for scale in (0.0, 0.1, 0.5):
        theta = old + scale * torch.randn(old.shape, generator=generator)
        with torch.no_grad():
            everything = slice(0, len(estimate.batch))
            total = surrogate.total(module.policy.at(theta, estimate.batch.observations), everything)
        found, expected = float(total) / len(estimate.batch), float(exact_surrogate(theta, module, tables))
        assert abs(found - expected) < 4.0 * standard_error(module, estimate.batch, theta)


def test_its_gradient_is_the_exact_one(collected):
    module, estimate, tables = collected
    found = surrogate_and_gradient(module.policy, estimate.batch)[1]
    theta = parameter_vector(module.policy).requires_grad_(True)
    (expected,) = torch.autograd.grad(exact_surrogate(theta, module, tables), theta)
    assert float((found - expected).norm()) < 0.1 * float(expected.norm())
    # the old policies' own advantages and states would give another one
    alone = surrogate_and_gradient(module.policy, replace_without_ratios(estimate.batch))[1]
    assert float((alone - expected).norm()) > 2.0 * float((found - expected).norm())


def replace_without_ratios(batch):
    return type(batch)(batch.observations, batch.actions, batch.advantages, batch.advantage_std, None, batch.weights)


def test_corrected_advantages_of_old_batches_are_those_of_the_current_policy(collected):
    module, estimate, _ = collected
    exact = module.value_function.advantages
    for part in estimate.mixture.parts:
        t = part.transitions
        states, actions = t.observations.argmax(-1), t.actions[:, 0]
        for s in range(tiny_mdp.STATES):
            for a in range(tiny_mdp.ACTIONS):
                here = t.advantages[(states == s) & (actions == a)]
                error = float(here.std() / math.sqrt(len(here)))
                assert abs(float(here.mean()) - exact[s, a]) < 4.5 * error, (part.age, s, a)


def test_value_targets_of_old_batches_have_the_current_policys_values_in_the_mean(collected):
    module, estimate, _ = collected
    for part in estimate.mixture.parts:
        states = part.transitions.observations.argmax(-1)
        for s in range(tiny_mdp.STATES):
            here = part.transitions.targets[states == s]
            error = float(here.std() / math.sqrt(len(here)))
            assert abs(float(here.mean()) - module.value_function.values[s]) < 4.5 * error, (part.age, s)


def test_each_batch_has_its_weight_whatever_its_size(collected):
    module, estimate, _ = collected
    weights, start = mixture_weights(module.settings.rule), 0
    assert float(estimate.batch.weights.sum()) == pytest.approx(len(estimate.batch), rel=1e-5)
    for weight, part in zip(weights, estimate.mixture.parts, strict=True):
        rows = slice(start, start + len(part.ratios))
        assert float(estimate.batch.weights[rows].sum()) / len(estimate.batch) == pytest.approx(weight, rel=1e-5)
        start = rows.stop


def test_the_value_function_sees_a_share_of_each_batch_in_proportion_to_its_weight(collected):
    module, estimate, _ = collected
    weights = mixture_weights(module.settings.rule)
    sizes = [len(part.ratios) for part in estimate.mixture.parts]
    expected = [round(size * weight / weights[0]) for size, weight in zip(sizes, weights, strict=True)]
    assert expected[0] == sizes[0] and expected[2] < sizes[2]
    assert len(estimate.value_data.targets) == sum(expected)
    targets = estimate.mixture.parts[2].transitions.targets.float()
    assert set(estimate.value_data.targets[-expected[2] :].tolist()) <= set(targets.tolist())


def test_without_truncation_old_batches_are_taken_as_the_current_policys_own():
    module, estimate, _ = collect("uniform", truncation=None)
    for part in estimate.mixture.parts:
        torch.testing.assert_close(part.transitions.advantages, part.valued.transitions().advantages)
        assert (float((part.ratios - 1.0).abs().max()) > 0.01) == bool(part.age)
    del module


def test_effective_sizes_and_kls_are_those_of_enumerated_policies(collected):
    module, estimate, tables = collected
    metrics = reuse_metrics(module.policy, estimate.mixture)
    new = torch.from_numpy(tables[0])
    for part, one in zip(estimate.mixture.parts, tables, strict=True):
        visits, old = torch.from_numpy(tiny_mdp.visitation(one, STEPS)), torch.from_numpy(one)
        kl = float(visits @ (old * torch.log(old / new)).sum(-1))
        second_moment = float(visits @ (new.square() / old).sum(-1))
        assert metrics[f"reuse/kl_{part.age}"] == pytest.approx(kl, rel=0.15, abs=1e-6)
        assert metrics[f"reuse/effective_share_{part.age}"] == pytest.approx(1.0 / second_moment, rel=0.1)
    assert metrics["reuse/kl_oldest"] == metrics["reuse/kl_2"]
    weights = torch.cat([part.weight / len(part.ratios) * part.ratios.double() for part in estimate.mixture.parts])
    assert metrics["reuse/effective_sample_size"] == pytest.approx(float(weights.sum() ** 2 / (weights @ weights)))


def test_the_predicted_return_is_what_the_surrogate_promises(collected):
    """With the exact values of the current policy: enumerated over the steps of the policies that collected."""
    module, estimate, tables = collected
    old, before = parameter_vector(module.policy), module.value_function
    direction = surrogate_and_gradient(module.policy, estimate.batch)[1]
    try:
        assign_parameter_vector(module.policy, old + 0.3 * direction / direction.norm())
        ratios = [part.new_ratios(module.policy).double() for part in estimate.mixture.parts]
        new, metrics = table(module.policy), reuse_metrics(module.policy, estimate.mixture)
    finally:
        assign_parameter_vector(module.policy, old)
    truth, found = ExactValues(new).values, []
    for part, r, one in zip(estimate.mixture.parts, ratios, tables, strict=True):
        state, transitions, _ = tiny_mdp.tables()
        expected = rise = 0.0
        for k in range(STEPS):
            reached = (1.0 - GAMMA ** (k + 1)) / (1.0 - GAMMA)
            expected += float(state @ (before.values + reached * (new * before.advantages).sum(1))) / STEPS
            rise += float(state @ (truth - before.values)) / STEPS
            state = np.einsum("s,sa,sat->t", state, one, transitions)
        found.append(value_of(part, r))
        assert abs(found[-1].mean - expected) < 4.0 * found[-1].error
        promised = expected - float(tiny_mdp.visitation(one, STEPS) @ before.values)
        assert 0.3 * rise < promised < rise  # the rest comes after the time limit
    both = combined([part.weight for part in estimate.mixture.parts], found)
    assert metrics["reuse/return_predicted"] == pytest.approx(both.mean)
    assert metrics["reuse/return_high"] - metrics["reuse/return_low"] == pytest.approx(3.92 * both.error, rel=1e-3)


def test_the_error_of_a_value_is_its_spread_over_repetitions():
    module, values, errors = module_with(reuse="uniform", reuse_batches=1), [], []
    module.value_function = ExactValues(table(module.policy))
    module.settings.rollout.steps_per_iteration = module.scheme.steps = 40
    for _ in range(80):
        estimate = module.estimate(module.collect())
        found = value_of(estimate.mixture.parts[0])
        values.append(found.mean)
        errors.append(found.error)
        module.iteration += 1
    module.scheme.close()
    assert float(np.std(values)) == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=0.25)


def test_effective_size_and_kl_of_ratios_by_hand():
    ratios = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    assert effective_size(ratios) == pytest.approx(16.0 / 6.0)
    assert kl_from_ratios(ratios) == pytest.approx((1.0 - math.log(2.0)) / 3.0)
    assert kl_from_ratios(torch.ones(4)) == 0.0
