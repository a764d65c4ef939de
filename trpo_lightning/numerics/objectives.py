"""What the update maximises and what bounds it, as functions of log-probabilities and distributions."""

from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor


class HasKL(Protocol):
    """A batch of distributions with a closed-form KL divergence."""

    def kl(self, other: Self) -> Tensor:
        """KL(self || other), joint over action dimensions, `[B]`."""
        ...


D = TypeVar("D", bound=HasKL)


def importance_sampled_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor) -> Tensor:
    """Sum over transitions of pi_theta(a|s) / pi_old(a|s) * A(s, a), in float64 (TRPO 2015, eq. 14 times B).

    All arguments are `[B]`. A sum, not a mean, so that chunks of a batch add up; its gradient at theta_old is the
    policy gradient's sum of A grad log pi.
    """
    return (torch.exp(log_prob - old_log_prob) * advantages).sum(dtype=torch.float64)


def self_normalized_surrogate(log_prob: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    """Sum over states of sum_k w_k Q_k / sum_k w_k, w_k = pi_theta(a_k|s) / q(a_k|s), in float64 (TRPO 2015, eq. 16).

    All arguments are `[S, K]`: K actions in each of S states, drawn from q. A constant added to a state's Q-values is
    added to its contribution and changes no gradient: the weighted mean is its own baseline.
    """
    return (torch.softmax((log_prob - log_q).double(), dim=1) * q_values).sum()


def all_actions_surrogate(log_prob: Tensor, q_values: Tensor) -> Tensor:
    """Sum over states and all actions of pi_theta(a|s) Q(s, a), in float64; both `[S, K]` (TRPO 2015, eq. 15)."""
    return (torch.exp(log_prob.double()) * q_values).sum()


def kl_divergence(old: D, new: D, direction: str = "old_new") -> Tensor:
    """KL(old || new) `[B]` for `"old_new"` (TRPO 2015, eq. 12), KL(new || old) for `"new_old"`."""
    return old.kl(new) if direction == "old_new" else new.kl(old)


def mean_kl(old: D, new: D, direction: str = "old_new") -> Tensor:
    """Mean over states of the KL divergence, a float64 scalar."""
    return kl_divergence(old, new, direction).mean(dtype=torch.float64)
