import copy
import math

import pytest
import torch
from methods import mlp_policy, rule_settings
from torch import Tensor

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.spaces import ContinuousActions
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.vanilla import VanillaPolicyGradient

ROWS = 40
LEARNING_RATE = 0.02


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def policy() -> Policy:
    return mlp_policy(
        (3,), ContinuousActions(2), hidden_sizes=[4], activation="tanh", initial_log_std=-0.4, generator=generator()
    ).double()


def batch(seed: int) -> Batch:
    source = generator(seed)
    return Batch(
        *(torch.randn(*shape, dtype=torch.float64, generator=source) for shape in ((ROWS, 3), (ROWS, 2), (ROWS,)))
    )


def rule() -> VanillaPolicyGradient:
    return VanillaPolicyGradient(rule_settings(name="vanilla_policy_gradient", learning_rate=LEARNING_RATE))


def policy_gradient(policy: Policy, batch: Batch) -> Tensor:
    score = (policy(batch.observations).log_prob(batch.actions) * batch.advantages).mean()
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(score, list(policy.parameters()))])


def do(rule: VanillaPolicyGradient, policy: Policy, seeds: range) -> Tensor:
    for seed in seeds:
        assign_parameter_vector(policy, rule.update(policy, batch(seed), generator()).theta)
    return parameter_vector(policy)


def test_three_updates_equal_hand_written_adam_ascent():
    ours, theirs, one = policy(), policy(), rule()
    theta = parameter_vector(theirs)
    first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    for t in range(1, 4):
        gradient = policy_gradient(theirs, batch(t))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = (first / (1.0 - 0.9**t), second / (1.0 - 0.999**t))
        theta = theta + LEARNING_RATE * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        assign_parameter_vector(theirs, theta)
        result = one.update(ours, batch(t), generator())
        assert result.rejection_reason is None
        torch.testing.assert_close(result.theta, theta, rtol=1e-9, atol=1e-12)
        assign_parameter_vector(ours, result.theta)


def test_small_steps_raise_the_weighted_log_likelihood():
    one = policy()
    data = batch(1)

    def score() -> float:
        with torch.no_grad():
            return float((one(data.observations).log_prob(data.actions) * data.advantages).mean())

    before = score()
    settings = rule_settings(name="vanilla_policy_gradient", learning_rate=1e-4)
    assign_parameter_vector(one, VanillaPolicyGradient(settings).update(one, data, generator()).theta)
    assert score() > before


def test_update_modifies_neither_the_policy_nor_earlier_results():
    one, network = rule(), policy()
    before = parameter_vector(network)
    first = one.update(network, batch(1), generator()).theta
    kept = first.clone()
    second = one.update(network, batch(2), generator()).theta
    assert torch.equal(parameter_vector(network), before)
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(first, kept) and not torch.equal(first, second)
    assert not first.requires_grad


def test_update_starts_from_the_policy_and_not_from_its_own_last_result():
    one, network = rule(), policy()
    one.update(network, batch(1), generator())
    moved = parameter_vector(network) + 5.0
    assign_parameter_vector(network, moved)
    result = one.update(network, batch(2), generator()).theta
    assert float((result - moved).abs().max()) < 2.0 * LEARNING_RATE


def test_state_round_trip_continues_bit_for_bit():
    straight = do(rule(), policy(), range(1, 6))
    network, one = policy(), rule()
    do(one, network, range(1, 4))
    resumed = rule()
    resumed.load_state_dict(copy.deepcopy(one.state_dict()))
    assert torch.equal(do(resumed, network, range(4, 6)), straight)


def test_state_can_be_saved_again_before_the_first_update_after_loading():
    network, one = policy(), rule()
    do(one, network, range(1, 4))
    state = copy.deepcopy(one.state_dict())
    between = rule()
    between.load_state_dict(state)
    last = rule()
    last.load_state_dict(copy.deepcopy(between.state_dict()))
    assert torch.equal(do(last, copy.deepcopy(network), range(4, 6)), do(one, network, range(4, 6)))


def test_forgetting_the_state_changes_the_continuation():
    network, one = policy(), rule()
    do(one, network, range(1, 4))
    assert not torch.equal(do(rule(), copy.deepcopy(network), range(4, 5)), do(one, network, range(4, 5)))


def test_state_is_a_copy_on_both_sides():
    network, one = policy(), rule()
    do(one, network, range(1, 4))
    state = one.state_dict()
    kept = copy.deepcopy(state)
    loaded = rule()
    loaded.load_state_dict(state)
    do(one, network, range(4, 6))
    do(loaded, network, range(6, 8))
    assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_loaded_state_leaves_the_step_size_to_the_settings():
    network, one = policy(), rule()
    do(one, network, range(1, 4))
    settings = rule_settings(name="vanilla_policy_gradient", learning_rate=3.0 * LEARNING_RATE)
    faster, same = VanillaPolicyGradient(settings), rule()
    for other in (faster, same):
        other.load_state_dict(one.state_dict())
    theta = parameter_vector(network)
    steps = [other.update(network, batch(4), generator()).theta - theta for other in (faster, same)]
    torch.testing.assert_close(steps[0], 3.0 * steps[1], rtol=1e-9, atol=1e-12)


def test_fresh_rule_has_an_empty_state_that_loads():
    one = rule()
    assert one.state_dict() == {}
    one.load_state_dict({})
    assert torch.equal(do(one, policy(), range(1, 3)), do(rule(), policy(), range(1, 3)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("updates_before", [0, 2])
def test_non_finite_gradient_is_rejected_and_leaves_no_trace(bad, updates_before):
    network, one = policy(), rule()
    do(one, network, range(1, 1 + updates_before))
    theta, state = parameter_vector(network), copy.deepcopy(one.state_dict())
    poisoned = batch(9)
    poisoned.advantages[0] = bad
    result = one.update(network, poisoned, generator())
    assert result.rejection_reason == "the gradient is not finite"
    assert torch.equal(result.theta, theta)
    if updates_before:
        moments = one.state_dict()
        assert moments.keys() == state.keys() and len(state) == 3
        assert all(torch.equal(moments[name], state[name]) for name in state)
    clean, untouched = policy(), rule()
    do(untouched, clean, range(1, 1 + updates_before))
    assert torch.equal(do(one, network, range(5, 7)), do(untouched, clean, range(5, 7)))
