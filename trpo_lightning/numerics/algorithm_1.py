"""Algorithm 1 of TRPO: policy iteration that cannot get worse, its inner maximisation solved exactly.

    maximise  L_old(pi) - C max_s KL(old || pi)   over all policies pi   (Schulman et al. 2015, algorithm 1)

For a radius d common to all states, the best policy is known state by state and its gain is concave in d, so only one
number remains to be found. Everything is float64; policies are `[S, A]`, as in `tabular.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trpo_lightning.numerics.tabular import PolicyValues, TabularMDP, penalty

ITERATIONS = 100
"""Limit for Newton's method and for the search for d; ten are enough except for nearly deterministic policies."""
SMALLEST, LARGEST = 1e-25, 700.0
"""Limits of z below: KL down to about 1e-50, probabilities down to e^-700."""
ROUNDING = 1e-14
"""A difference this small, relative to the numbers subtracted, counts as 0."""
PRECISION = 1e-12
"""Relative precision of the radii, and of the derivative at the best one."""


@dataclass(frozen=True)
class BestPolicies:
    """The best policy of each state within its radius: log(pi / old) `[S, A]`, KL(old || pi) and multiplier `[S]`.

    `multiplier` is the derivative of a state's best sum_a pi A with respect to its radius.
    """

    log_ratio: Tensor
    kl: Tensor
    multiplier: Tensor


def best_policies(old_policy: Tensor, advantages: Tensor, radius: float) -> BestPolicies:
    """Maximise sum_a pi(a) A(s, a) subject to KL(old || pi) <= radius, in each state.

    pi = c old / (nu - A), nu > max_a A; c normalises and is the multiplier. With A centred (sum_a old A = 0) and
    A* = max_a A, nu is found as z = -log(1 - A*/nu) in (0, inf), which resolves tiny radii and nearly deterministic
    policies alike, by Newton's method on log KL as a function of log z, kept in a bracket. A state whose advantages are
    all equal keeps its policy; an action of probability 0 keeps probability 0.

    Args:
        old_policy: Probabilities `[S, A]`.
        advantages: A(s, a) `[S, A]`.
        radius: Bound on the KL divergence in each state, in nats.
    """
    possible = old_policy > 0.0
    centred = torch.where(possible, advantages - (old_policy * advantages).sum(-1, keepdim=True), 0.0)
    largest = centred.max(-1, keepdim=True).values
    flat = largest <= ROUNDING * advantages.abs().max(-1, keepdim=True).values
    scale = torch.where(flat, 1.0, largest)
    x = torch.where(flat, 0.0, centred / scale)  # at most 1
    gap = torch.where(flat, 1.0, (largest - centred) / scale)  # 1 - x, exactly 0 for the best action
    low, high = (torch.full_like(largest, math.log(limit)) for limit in (SMALLEST, LARGEST))
    quadratic = math.sqrt(2.0 * radius) / (old_policy * x.square()).sum(-1, keepdim=True).sqrt()
    done = flat | (_tilt(old_policy, x, gap, high.exp()).kl <= radius)
    log_z = torch.where(done, high, quadratic.log().clamp(low, high))
    for _ in range(ITERATIONS):
        tilt = _tilt(old_policy, x, gap, log_z.exp())
        error = tilt.kl.log() - math.log(radius)
        low, high = torch.where(error > 0.0, low, log_z), torch.where(error > 0.0, log_z, high)
        newton = log_z - error / tilt.slope
        step = torch.where((newton > low) & (newton < high), newton, (low + high) / 2.0) - log_z
        step = torch.where(done | (error.abs() < PRECISION), 0.0, step)
        if float(step.abs().max()) < PRECISION:
            break
        log_z = log_z + step
    z = log_z.exp()
    tilt = _tilt(old_policy, x, gap, z)
    multiplier = torch.where(flat, 0.0, largest / (-torch.expm1(-z) * (1.0 + tilt.mass)))
    log_ratio = -torch.log1p(tilt.mass) - tilt.log_distance
    return BestPolicies(log_ratio, tilt.kl.squeeze(-1), multiplier.squeeze(-1))


class _Tilt(NamedTuple):
    """With y = A/nu: sum_a old / (1 - y) - 1 and KL(old || pi), d log KL / d log z `[S, 1]`, log(1 - y) `[S, A]`."""

    mass: Tensor
    kl: Tensor
    slope: Tensor
    log_distance: Tensor


def _tilt(old_policy: Tensor, x: Tensor, gap: Tensor, z: Tensor) -> _Tilt:
    """KL(old || pi) = log(sum_a old / (1 - y)) + sum_a old log(1 - y), y = u x, u = 1 - e^-z, without cancellation.

    Since sum_a old y is 0, multiples of it can be taken out of every sum.
    """
    fading = torch.exp(-z)
    y = -torch.expm1(-z) * x
    distance = gap + fading * x  # 1 - y
    log_distance = torch.where(y.abs() < 0.5, torch.log1p(-y), torch.log(distance))
    series = torch.zeros_like(y)
    for k in range(9, 1, -1):  # log(1 - y) + y where that would cancel
        series = y * series - 1.0 / k
    second = torch.where(y.abs() < 0.01, y.square() * series, log_distance + y)
    mass = (old_policy * y.square() / distance).sum(-1, keepdim=True)
    kl = torch.log1p(mass) + (old_policy * second).sum(-1, keepdim=True)
    tilted = old_policy * x * y / distance
    squared = (tilted * (1.0 + 1.0 / distance)).sum(-1, keepdim=True)  # of old x / (1 - y)^2
    slope = z * fading * (squared / (1.0 + mass) - tilted.sum(-1, keepdim=True)) / kl
    return _Tilt(mass, kl, slope, log_distance)


@dataclass(frozen=True)
class ExactStep:
    """log(new / old) `[S, A]`, the radius d = max_s KL(old || new), and the guaranteed rise gain(d) - C d of eta."""

    log_ratio: Tensor
    radius: float
    guaranteed: float


def algorithm_1_step(mdp: TabularMDP, old: PolicyValues) -> ExactStep:
    """The policy that maximises L_old(pi) - C max_s KL(old || pi) (TRPO 2015, algorithm 1).

    gain(d) = sum_s rho(s) max {sum_a pi A : KL <= d} is concave with derivative sum_s rho(s) multiplier_s(d); the best
    d is where that falls to C. The search starts at G^2 / (2 C^2), the answer where KL is quadratic (G = sum_s rho(s)
    std_old A). An optimal policy and unreachable states stay as they are.

    Raises:
        ValueError: gamma is 0: C is then 0, and no d is best.
    """
    if mdp.gamma == 0.0:
        raise ValueError("algorithm 1 needs gamma > 0: without a penalty the best step is unbounded")
    c = float(penalty(mdp, old))
    real = old.advantages.abs() > ROUNDING * old.q_values.abs().max()
    advantages = torch.where(real & mdp.reachable[:, None], old.advantages, 0.0)
    slope = float(old.visitation @ (old.policy * advantages.square()).sum(-1).sqrt())
    if slope == 0.0:
        return ExactStep(torch.zeros_like(old.policy), 0.0, 0.0)

    def excess(log_radius: float) -> float:
        best = best_policies(old.policy, advantages, math.exp(log_radius))
        return math.log(max(float(old.visitation @ best.multiplier), 1e-300) / c)

    radius = math.exp(_falling_root(excess, 2.0 * math.log(slope / c) - math.log(2.0), math.log(LARGEST)))
    log_ratio = best_policies(old.policy, advantages, radius).log_ratio
    gain = float(old.visitation @ (old.policy * torch.expm1(log_ratio) * advantages).sum(-1))
    return ExactStep(log_ratio, radius, gain - c * radius)


def _falling_root(f: Callable[[float], float], start: float, largest: float) -> float:
    """The zero of a decreasing function, or `largest` if it is positive up to there; false position (Illinois)."""
    low = high = min(start, largest)
    f_low = f_high = f(low)
    while f_high > 0.0 and high < largest:
        low, f_low, high = high, f_high, min(high + 1.0, largest)
        f_high = f(high)
    while f_low < 0.0:
        high, f_high, low = low, f_low, low - 1.0
        f_low = f(low)
    if f_high >= 0.0:
        return high
    middle, side = low, 0
    for _ in range(ITERATIONS):
        middle = (low * f_high - high * f_low) / (f_high - f_low)
        value = f(middle)
        if abs(value) < PRECISION:
            break
        if value > 0.0:
            low, f_low, f_high, side = middle, value, f_high * (0.5 if side > 0 else 1.0), 1
        else:
            high, f_high, f_low, side = middle, value, f_low * (0.5 if side < 0 else 1.0), -1
    return middle
