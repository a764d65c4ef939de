"""What the tests of population methods share."""

import torch
from methods import mlp_policy
from torch import Tensor

from trpo_lightning.policies.networks import assign_parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.spaces import ActionSpec, ContinuousActions
from trpo_lightning.rollouts.rollout import PopulationBatch
from trpo_lightning.rules.population import PopulationRule


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def policy(actions: ActionSpec | None = None, observations: int = 3) -> Policy:
    """Of a Gaussian, `log_std` is the first of its parameters: [log_std (2), weight (2 x 3), bias (2)]."""
    return mlp_policy(
        (observations,),
        actions or ContinuousActions(2),
        hidden_sizes=[],
        activation="tanh",
        initial_log_std=-0.5,
        generator=generator(),
    )


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def generation(rule: PopulationRule, policy: Policy, score, seed: int) -> Tensor:
    """Propose, score `[K]` candidates `[K, P]`, update, write the new parameters; returns them."""
    candidates = rule.propose(policy, generator(seed))
    result = rule.update(policy, PopulationBatch(candidates, score(candidates)), generator())
    assert result.rejection_reason is None
    assign_parameter_vector(policy, result.theta)
    return result.theta


def sphere(x: Tensor) -> Tensor:
    return -(x - 1.0).square().sum(1)


def rosenbrock(x: Tensor) -> Tensor:
    return -(100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1.0 - x[:, :-1]).square()).sum(1)
