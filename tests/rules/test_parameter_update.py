import pytest
import torch
from methods import mlp_policy, rule_settings

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.spaces import ContinuousActions
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.rule import ParameterUpdate, UpdateRule


def policy():
    return mlp_policy(
        (3,),
        ContinuousActions(2),
        hidden_sizes=[4],
        activation="tanh",
        initial_log_std=0.0,
        generator=torch.Generator().manual_seed(0),
    )


def test_step_writes_theta_into_the_parameters_in_place():
    one = policy()
    parameters = list(one.parameters())
    theta = torch.randn(len(parameter_vector(one)), generator=torch.Generator().manual_seed(1))
    ParameterUpdate(one).step(lambda: theta)
    assert torch.equal(parameter_vector(one), theta)
    assert all(a is b for a, b in zip(parameters, one.parameters(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in parameters)


def test_step_calls_its_closure_once():
    one = policy()
    calls = []

    def closure() -> torch.Tensor:
        calls.append(None)
        return parameter_vector(one)

    before = parameter_vector(one)
    ParameterUpdate(one).step(closure)
    assert len(calls) == 1
    assert torch.equal(parameter_vector(one), before)


def test_later_changes_of_theta_do_not_reach_the_policy():
    one = policy()
    theta = torch.ones_like(parameter_vector(one))
    ParameterUpdate(one).step(lambda: theta)
    theta.zero_()
    assert torch.equal(parameter_vector(one), torch.ones_like(theta))


def test_theta_of_another_length_is_refused():
    one = policy()
    before = parameter_vector(one)
    with pytest.raises(ValueError, match="parameters"):
        ParameterUpdate(one).step(lambda: torch.zeros(3))
    assert torch.equal(parameter_vector(one), before)


def test_optimizer_knows_every_parameter_of_the_policy():
    one = policy()
    (group,) = ParameterUpdate(one).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in one.parameters()}


def test_base_rule_refuses_to_update_and_remembers_nothing():
    base = UpdateRule(rule_settings())
    with pytest.raises(NotImplementedError, match="UpdateRule"):
        base.update(policy(), Batch(torch.zeros(1, 3), torch.zeros(1, 2), torch.zeros(1)), torch.Generator())
    assert base.state_dict() == {}
