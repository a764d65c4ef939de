"""A random MDP with a linear policy on one-hot observations, as a batch of the scheme `exact`."""

import torch
from methods import mlp_policy

from trpo_lightning.numerics.tabular import evaluate_policy, random_mdp
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.spaces import DiscreteActions
from trpo_lightning.policies.table import policy_table
from trpo_lightning.rollouts.rollout import TabularBatch


def tabular_problem(
    states=5, actions=3, gamma=0.9, seed=0, hidden_sizes=(), dtype=torch.float64, scale=1.0
) -> tuple[Policy, TabularBatch]:
    generator = torch.Generator().manual_seed(seed)
    mdp = random_mdp(states, actions, gamma=gamma, generator=generator)
    policy = mlp_policy(
        (states,),
        DiscreteActions((actions,)),
        hidden_sizes=list(hidden_sizes),
        activation="tanh",
        initial_log_std=0.0,
        generator=generator,
    ).to(dtype)
    with torch.no_grad():
        for p in policy.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64))
        observations = torch.eye(states, dtype=dtype)
        values = evaluate_policy(mdp, policy_table(policy, observations))
    return policy, TabularBatch(mdp, observations, values)
