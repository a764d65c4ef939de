"""Categorical policies over finitely many states as tables: probabilities and logits of all states at once."""

import torch
from torch import Tensor

from trpo_lightning.policies.policy import Policy


def policy_table(policy: Policy, observations: Tensor, theta: Tensor | None = None) -> Tensor:
    """Probabilities `[S, A]` at the states' observations `[S, O]`, for `theta` `[P]` if given; float64, on the CPU."""
    distribution = policy(observations) if theta is None else policy.at(theta, observations)
    return torch.softmax(distribution.logits.double().cpu(), dim=-1)


def with_logits_changed(policy: Policy, change: Tensor) -> Tensor:
    """The parameters `[P]` whose logits differ from the policy's by `change` `[S, A]`, up to the parameters' precision.

    One linear layer on one-hot observations is a table: column s of its weights holds the logits of state s. Raises
    `ValueError` for any other policy.
    """
    parameters = [p.detach() for p in policy.parameters()]
    if [p.shape for p in parameters] != [change.T.shape, change.shape[1:]]:
        raise ValueError("the policy is not a table: it needs one linear layer on one-hot observations")
    weight, bias = parameters
    table = weight.double() + change.T.to(weight.device)
    return torch.cat([table.to(weight.dtype).reshape(-1), bias])
