"""The theory of TRPO on finite MDPs, computed exactly in float64 (Schulman et al. 2015, sections 2 and 3).

Shapes: `S` states, `A` actions; a policy is a tensor of probabilities `[S, A]`. Everything that is a function of a
policy is differentiable in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class TabularMDP:
    """A finite MDP: P(s'|s, a) `[S, A, S]`, expected rewards `[S, A]`, distribution of s_0 `[S]`, discount in [0, 1).

    Rows of `transitions` sum to 1 or less: the missing probability ends the episode, with nothing after it.

    Raises:
        ValueError: The shapes, types or numbers do not describe an MDP.
    """

    transitions: Tensor
    rewards: Tensor
    initial: Tensor
    gamma: float
    reachable: Tensor = field(init=False)
    """The states that some policy can reach, boolean `[S]`: the bound takes its maxima over these."""

    def __post_init__(self) -> None:
        states, actions = self.rewards.shape
        if self.transitions.shape != (states, actions, states) or self.initial.shape != (states,):
            raise ValueError("transitions, rewards and initial must be [S, A, S], [S, A] and [S]")
        tensors = (self.transitions, self.rewards, self.initial)
        if any(x.dtype != torch.float64 or not torch.isfinite(x).all() for x in tensors):
            raise ValueError("transitions, rewards and initial must be finite and in float64")
        if self.transitions.min() < 0.0 or self.transitions.sum(-1).max() > 1.0 + 1e-12:
            raise ValueError("transitions are not probabilities: each row must sum to 1 or less")
        if self.initial.min() < 0.0 or abs(float(self.initial.sum()) - 1.0) > 1e-12:
            raise ValueError("initial is not a probability distribution")
        if not 0.0 <= self.gamma < 1.0:
            raise ValueError(f"gamma={self.gamma} is not in [0, 1)")
        object.__setattr__(self, "reachable", _reachable(self.transitions, self.initial))


def _reachable(transitions: Tensor, initial: Tensor) -> Tensor:
    successors = (transitions > 0.0).any(1)  # [S, S]
    found = initial > 0.0
    while bool((grown := found | successors[found].any(0)).ne(found).any()):
        found = grown
    return found


@dataclass(frozen=True)
class PolicyValues:
    """A policy `[S, A]`, its expected discounted return eta, V `[S]`, Q, A = Q - V `[S, A]`, visitation rho `[S]`."""

    policy: Tensor
    eta: Tensor
    values: Tensor
    q_values: Tensor
    advantages: Tensor
    visitation: Tensor


def evaluate_policy(mdp: TabularMDP, policy: Tensor) -> PolicyValues:
    """Exact values by linear solves: V = (I - gamma P_pi)^-1 r_pi, rho = (I - gamma P_pi)^-T initial.

    rho(s) = sum_t gamma^t P(s_t = s) is not normalised: it sums to 1/(1 - gamma) if no episode ends (TRPO 2015,
    section 2).
    """
    step = torch.einsum("sa,sat->st", policy, mdp.transitions)
    system = torch.eye(len(policy), dtype=policy.dtype) - mdp.gamma * step
    values = torch.linalg.solve(system, (policy * mdp.rewards).sum(-1))
    visitation = torch.where(mdp.reachable, torch.linalg.solve(system.T, mdp.initial), 0.0)
    q_values = mdp.rewards + mdp.gamma * mdp.transitions @ values
    return PolicyValues(policy, mdp.initial @ values, values, q_values, q_values - values[:, None], visitation)


def surrogate(old: PolicyValues, new_policy: Tensor) -> Tensor:
    """L_old(new) = eta(old) + sum_s rho_old(s) sum_a new(a|s) A_old(s, a) (TRPO 2015, eq. 3)."""
    return old.eta + old.visitation @ (new_policy * old.advantages).sum(-1)


def state_kl(old_policy: Tensor, new_policy: Tensor) -> Tensor:
    """KL(old || new) in each state `[S]`, as sum_a old (r - 1 - log r), r = new / old.

    Both policies sum to 1, so this equals -sum_a old log r, but without cancellation: a KL of 1e-12 keeps its digits.
    """
    possible = old_policy > 0.0
    log_ratio = torch.log(torch.where(possible, new_policy / old_policy, 1.0))
    return torch.where(possible, old_policy * (torch.expm1(log_ratio) - log_ratio), new_policy).sum(-1)


def max_kl(mdp: TabularMDP, old_policy: Tensor, new_policy: Tensor) -> Tensor:
    """The largest KL(old || new) over reachable states, a scalar."""
    return state_kl(old_policy, new_policy)[mdp.reachable].max()


def penalty(mdp: TabularMDP, old: PolicyValues) -> Tensor:
    """C = 4 eps gamma / (1 - gamma)^2, eps = max_{s,a} |A_old(s, a)| over reachable states (TRPO 2015, eq. 8 and 9)."""
    return 4.0 * old.advantages[mdp.reachable].abs().max() * mdp.gamma / (1.0 - mdp.gamma) ** 2


def lower_bound(mdp: TabularMDP, old: PolicyValues, new_policy: Tensor) -> Tensor:
    """L_old(new) - C max_s KL(old || new), a lower bound on eta(new) (TRPO 2015, theorem 1 with eq. 9)."""
    return surrogate(old, new_policy) - penalty(mdp, old) * max_kl(mdp, old.policy, new_policy)


def mixture_surrogate(
    current: PolicyValues, collectors: Sequence[PolicyValues], weights: Sequence[float], new_policy: Tensor
) -> Tensor:
    """eta(cur) + sum_i w_i sum_s rho_i(s) sum_a new(a|s) A_cur(s, a), over the policies i that collected the samples.

    The expectation of the generalized surrogate (Queeney et al. 2021, theorem 1), each action's ratio being
    new / collector; with the current policy as the only collector it is `surrogate`.
    """
    gained = (new_policy * current.advantages).sum(-1)
    return current.eta + sum(w * (one.visitation @ gained) for w, one in zip(weights, collectors, strict=True))


def generalized_lower_bound(
    mdp: TabularMDP,
    current: PolicyValues,
    collectors: Sequence[PolicyValues],
    weights: Sequence[float],
    new_policy: Tensor,
) -> Tensor:
    """A lower bound on eta(new) from the samples of several policies (Queeney et al. 2021, theorem 1).

    mixture_surrogate - 2 gamma / (1 - gamma) max_s |sum_a new A_cur| sum_i w_i sum_s rho_i(s) TV(new, collector_i)(s),
    TV = sum_a |new - collector| / 2; with the current policy as the only collector, the bound of Achiam et al. 2017.
    """
    gained = (new_policy * current.advantages).sum(-1)[mdp.reachable].abs().max()
    change = sum(
        w * (one.visitation @ (new_policy - one.policy).abs().sum(-1)) / 2.0
        for w, one in zip(weights, collectors, strict=True)
    )
    price = 2.0 * mdp.gamma / (1.0 - mdp.gamma) * gained
    return mixture_surrogate(current, collectors, weights, new_policy) - price * change


def random_mdp(
    states: int, actions: int, *, gamma: float, generator: torch.Generator, ending: float = 0.1
) -> TabularMDP:
    """A dense MDP with random transitions and normal rewards; a step ends the episode with probability `ending`."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=generator)

    def distribution(*shape: int) -> Tensor:
        weights = -torch.log1p(-draw(*shape))  # exponential weights: uniform on the simplex
        return weights / weights.sum(-1, keepdim=True)

    going = 1.0 - 2.0 * ending * draw(states, actions, 1)
    rewards = torch.randn(states, actions, dtype=torch.float64, generator=generator)
    return TabularMDP(going * distribution(states, actions, states), rewards, distribution(states), gamma)
