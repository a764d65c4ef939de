import math

import pytest
import torch
from dense_trust_region import dense_kl, generator, with_theta
from methods import mlp_policy, rule_settings
from torch import Tensor

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import GaussianPolicy
from trpo_lightning.policies.spaces import ContinuousActions, DiscreteActions
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.rule import apply_rule

START, FLOOR = -0.375, -0.5  # exact in float32
RULES = {
    "trust_region": {"delta": 1.0, "max_step_size": None, "kl_state_slack": None, "final_delta": None},
    "vanilla_policy_gradient": {"learning_rate": 0.5},
    "reward_weighted_regression": {"least_log_std": -20.0},
}


def policy(floor: float | None, start: float = START) -> GaussianPolicy:
    made = mlp_policy(
        (3,),
        ContinuousActions(2),
        hidden_sizes=[4],
        activation="tanh",
        initial_log_std=start,
        least_log_std=floor,
        generator=generator(),
    ).double()
    assert isinstance(made, GaussianPolicy)
    return made


def batch_that_wants_less_noise(one: GaussianPolicy, rows: int = 200) -> Batch:
    observations = torch.randn(rows, 3, dtype=torch.float64, generator=generator(1))
    noise = torch.randn(rows, 2, dtype=torch.float64, generator=generator(2))
    with torch.no_grad():
        actions = one(observations).sample(noise)
    return Batch(observations, actions, 1.0 - noise.square().sum(-1))


def updated(one: GaussianPolicy, batch: Batch, name: str) -> tuple[Tensor, dict[str, float]]:
    result = apply_rule(build_rule(rule_settings(name=name, **RULES[name])), one, batch, generator())
    assert result.rejection_reason is None
    return result.theta, result.metrics


@pytest.mark.parametrize("name", RULES)
def test_noise_stops_at_the_floor_and_falls_below_it_without_one(name):
    held, free = policy(FLOOR), policy(None)
    batch = batch_that_wants_less_noise(held)
    theta, _ = updated(held, batch, name)
    assert torch.equal(theta[:2], torch.full((2,), FLOOR, dtype=torch.float64))
    assert (updated(free, batch, name)[0][:2] < FLOOR - 0.05).all()


def test_the_line_search_measures_the_policy_that_is_used():
    one = policy(FLOOR)
    batch = batch_that_wants_less_noise(one)
    theta, metrics = updated(one, batch, "trust_region")
    with torch.no_grad():
        old, new = one(batch.observations), with_theta(one, theta)(batch.observations)
        kl = dense_kl(old, new)
        ratio = torch.exp(new.log_prob(batch.actions) - old.log_prob(batch.actions))
    assert metrics["trust_region/kl"] == pytest.approx(float(kl.mean()), rel=1e-9)
    improvement = float(((ratio - 1.0) * batch.advantages).mean())
    assert metrics["trust_region/surrogate_improvement"] == pytest.approx(improvement, rel=1e-9)


def test_only_noise_below_the_floor_changes():
    one = policy(-0.5)
    theta = parameter_vector(one)
    lower = theta.clone()
    lower[1] = -0.75
    projected = one.projected(lower)
    assert projected[:2].tolist() == [START, -0.5] and torch.equal(projected[2:], theta[2:])
    assert torch.equal(one.projected(theta), theta)
    assert torch.equal(policy(None).projected(lower), lower)


def test_noise_that_begins_below_the_floor_may_come_back_to_where_it_began():
    one = policy(-0.5, start=-1.0)
    theta = parameter_vector(one)
    theta[:2] = torch.tensor([-1.25, -0.75])
    assert one.projected(theta)[:2].tolist() == [-1.0, -0.75]


def test_noise_that_is_below_the_floor_rises_but_is_not_raised():
    one = policy(-0.5)
    theta = parameter_vector(one)
    theta[:2] = -2.0
    assign_parameter_vector(one, theta)
    assert torch.equal(one.projected(theta), theta)
    theta[:2] = torch.tensor([-2.5, -1.875])
    assert one.projected(theta)[:2].tolist() == [-2.0, -1.875]


def test_what_is_not_a_number_is_not_turned_into_the_floor():
    one = policy(-0.5)
    theta = parameter_vector(one)
    theta[0] = math.nan
    assert one.projected(theta)[0].isnan()


def test_policies_without_noise_of_their_own_have_no_floor():
    other = mlp_policy((3,), DiscreteActions((4,)), hidden_sizes=[4], least_log_std=-0.5, generator=generator())
    theta = torch.full_like(parameter_vector(other), -9.0)
    assert torch.equal(other.projected(theta), theta)
