"""Returns and advantages of a batch of trajectory pieces, time first: `[T, N]` for N environments.

Slots with `valid` False (an environment that only resets) are skipped: their results are 0, and nothing passes through
them. `ended` marks an episode's last transition; `terminated` those whose next value is 0. The last row always
bootstraps from `values[T]` unless it terminated.
"""

import math

import torch
from torch import Tensor

from trpo_lightning.ranks import Share


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    valid: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    ratios: Tensor | None = None,
) -> Tensor:
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma V(s_{t+1}) - V(s_t) (GAE 2016, eq. 16).

    `values` is `[T + 1, N]`: row t + 1 holds V of the observation that step t returned, so a truncated episode
    bootstraps from its own last observation and a terminated one from 0. With the ratios c_t of a policy to the one
    that collected the batch, delta_{t+l} also has the factor c_{t+1} ... c_{t+l}, and A_t is an advantage of that
    policy (Queeney et al. 2021; V-trace, Espeholt et al. 2018, eq. 1): the action of step t itself is given.

    Args:
        rewards: r_t `[T, N]`.
        values: V `[T + 1, N]`.
        terminated: Transitions after which the value is 0, boolean `[T, N]`.
        ended: Last transitions of episodes, boolean `[T, N]`.
        valid: Slots that hold a transition, boolean `[T, N]`.
        gamma: The discount.
        gae_lambda: lambda.
        ratios: c_t `[T, N]`, usually min(c, pi / mu); None where the policy itself collected, all of them 1.

    Returns:
        The advantages `[T, N]`.

    Raises:
        ValueError: The shapes do not match, or a mask is not boolean.
    """
    _check_shapes(rewards, values, terminated, ended, valid)
    alive, going = ~terminated & valid, ~ended & valid
    bootstrap = torch.where(alive, values[1:], 0.0)  # not a product: a terminal observation may be non-finite
    delta = torch.where(valid, rewards + gamma * bootstrap - values[:-1], 0.0)
    decay = going.to(delta.dtype) * (gamma * gae_lambda)
    if ratios is not None:
        decay[:-1] *= torch.where(valid[1:], ratios[1:], 0.0)  # the last row has nothing after it
    advantages = torch.empty_like(delta)
    later = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        later = torch.addcmul(delta[t], decay[t], later, out=advantages[t])
    return advantages


def discounted_returns(
    rewards: Tensor, values: Tensor, terminated: Tensor, ended: Tensor, valid: Tensor, *, gamma: float
) -> Tensor:
    """R_t = r_t + gamma R_{t+1}, bootstrapped with V where an episode was cut (GAE 2016, Vhat of section 5).

    Takes the arguments of `generalized_advantages`. Returns `[T, N]`.
    """
    _check_shapes(rewards, values, terminated, ended, valid)
    returns = torch.zeros_like(rewards)
    later = values[-1]
    for t in range(len(rewards) - 1, -1, -1):
        later = torch.where(ended[t], torch.where(terminated[t], 0.0, values[t + 1]), later)
        later = torch.where(valid[t], rewards[t] + gamma * later, 0.0)
        returns[t] = later
    return returns


def _check_shapes(rewards: Tensor, values: Tensor, *masks: Tensor) -> None:
    if rewards.ndim != 2 or any(mask.shape != rewards.shape or mask.dtype != torch.bool for mask in masks):
        raise ValueError("rewards must be [T, N], and the masks boolean of the same shape")
    if values.shape != (rewards.shape[0] + 1, rewards.shape[1]):
        raise ValueError(f"values must be [T + 1, N], not {list(values.shape)} for rewards {list(rewards.shape)}")


def standardize(
    x: Tensor, share: Share | None = None, epsilon: float = 1e-8, weights: Tensor | None = None
) -> tuple[Tensor, float]:
    """Return (x - mean) / (std + epsilon), with the population std, and the divisor; a constant `x` becomes zeros.

    `share` says which of all ranks' numbers these are; mean and std are those of all. With `weights` (positive,
    shaped like `x`, on one rank) mean and std are weighted.
    """
    x, share = x.double(), share or Share(len(x))
    if not share.count:
        return x, epsilon
    x = x - _first(x, share)  # the mean of a constant may be off by rounding; that of zeros is exact
    if weights is not None:
        of_all = weights.double() / weights.double().sum()
        centred = x - (of_all * x).sum()
        divisor = float((of_all * centred.square()).sum().sqrt()) + epsilon
        return centred / divisor, divisor
    mean, std, _ = _moments(x, share)
    divisor = std + epsilon
    return (x - mean) / divisor, divisor


def explained_variance(predictions: Tensor, targets: Tensor, share: Share | None = None) -> float:
    """1 - Var(targets - predictions) / Var(targets): 1 is perfect; NaN for constant targets.

    `share` says which of all ranks' numbers these are.
    """
    share = share or Share(len(targets))
    if not share.count:
        return float("nan")
    shifted = targets.double() - _first(targets.double(), share)
    variance = _moments(shifted, share)[2]  # exactly 0 for a constant
    error = _moments(targets.double() - predictions.double(), share)[2]
    return 1.0 - error / variance if variance > 0.0 else float("nan")


def _first(x: Tensor, share: Share) -> Tensor:
    """The first number `[1]` of the first rank that has any."""
    found = share.ranks.gather(torch.stack([x.new_tensor(len(x)), x[0] if len(x) else x.new_zeros(())]))
    return found[found[:, 0] > 0.0][:1, 1]


def _moments(x: Tensor, share: Share) -> tuple[float, float, float]:
    """Mean, population std and variance of all ranks' float64 numbers, from those of each rank.

    For one rank they are its own, bit for bit: sums of one term, weights of 1, deviations of 0.
    """
    own = [x.mean(), x.std(correction=0), x.var(correction=0)] if len(x) else [x.new_zeros(())] * 3
    found = share.ranks.gather(torch.stack([x.new_tensor(len(x)), *own])).tolist()
    parts = [(rows / share.count, *moments) for rows, *moments in found if rows]
    mean = sum(weight * average for weight, average, _, _ in parts)
    std = math.hypot(*(math.sqrt(w) * math.hypot(std, average - mean) for w, average, std, _ in parts))
    return mean, std, sum(w * (variance + (average - mean) * (average - mean)) for w, average, _, variance in parts)
