"""What a rule maximises, for each kind of batch: L, as a sum of contributions from the batch's states."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from trpo_lightning.numerics.objectives import (
    all_actions_surrogate,
    importance_sampled_surrogate,
    self_normalized_surrogate,
)
from trpo_lightning.policies.images import rows_at_once
from trpo_lightning.policies.linearized import linearized
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.sequences import Observations, row_parts
from trpo_lightning.ranks import Share
from trpo_lightning.rollouts.rollout import Batch, TabularBatch, VineBatch

CHUNK = 65536
"""Rows evaluated at once, which bounds the memory that a large batch takes."""
ENTROPY_METRIC = {"policy/entropy": "mean entropy of the policy at collection, in nats"}
"""The metric under which `mean_entropy` is logged."""


class Surrogate(Protocol):
    """L at any distributions; the mean KL is taken over the same states."""

    observations: Observations
    """States `[B, *O]`, or sequences of them."""
    share: Share
    """Which of all ranks' states these are."""
    old: list[tuple[slice, Any]]
    """The old policy's distributions there, by slices of the rows."""
    kl_weights: Tensor | None
    """Weights `[B]` of the states in the mean KL, summing to B; None is 1 each."""

    def begin(self, part: slice, old: Any) -> None:
        """Take the old policy's distributions at the states in `part`; parts come in order, before all else."""
        ...

    def total(self, distribution: Any, part: slice) -> Tensor:
        """Sum of the contributions of the states in `part`, under `distribution`; float64, differentiable."""
        ...

    def magnitude(self) -> float:
        """Mean size of the terms of L at the old policy, which sets the scale of its rounding."""
        ...


class ImportanceSampled:
    """Single path (TRPO 2015, eq. 14): ratio times advantage; the old log-probabilities are recomputed here.

    In a batch of several policies the ratio is that to the policy which collected the transition, and weights multiply
    the terms (Queeney et al. 2021, eq. 8); the trust region still lies around the current policy.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch, self.observations, self.share = batch, batch.observations, batch.share
        self.kl_weights = batch.weights
        self.advantages = batch.advantages if batch.weights is None else batch.weights * batch.advantages
        self.old: list[tuple[slice, Any]] = []

    def begin(self, part: slice, old: Any) -> None:
        """As `Surrogate.begin`."""
        log_probs = old.log_prob(self.batch.actions[part])
        if not self.old:
            self.old_log_probs = log_probs.new_empty(len(self.batch))
        self.old.append((part, old))
        self.old_log_probs[part] = log_probs

    @property
    def collected_log_probs(self) -> Tensor:
        """`[B]`: log-probabilities under the policies that collected the transitions."""
        return self.old_log_probs if self.batch.log_probs is None else self.batch.log_probs

    def total(self, distribution: Any, part: slice) -> Tensor:
        """Sum of ratio times advantage."""
        log_prob = distribution.log_prob(self.batch.actions[part])
        return importance_sampled_surrogate(log_prob, self.collected_log_probs[part], self.advantages[part])

    @torch.no_grad()
    def magnitude(self) -> float:
        """Mean |A|, weighted as in L."""
        advantages = self.advantages
        if self.collected_log_probs is not self.old_log_probs:
            advantages = torch.exp(self.old_log_probs - self.collected_log_probs) * advantages
        return self.share.mean(float(advantages.abs().sum(dtype=torch.float64)))


class BranchesWeighted:
    """Vine: Q-values weighted by pi / q and normalized (TRPO 2015, eq. 16), or weighted by pi for all actions (eq. 15).

    If q was the policy, its log-probabilities are recomputed here, so that all weights at theta_old are exactly 1.
    """

    kl_weights: Tensor | None = None

    def __init__(self, batch: VineBatch) -> None:
        self.batch, self.share = batch, Share(len(batch))
        self.observations: Observations = batch.observations
        self.old: list[tuple[slice, Any]] = []
        self.log_q = batch.log_q

    def begin(self, part: slice, old: Any) -> None:
        """As `Surrogate.begin`."""
        if self.batch.log_q is None:
            log_q = self._log_probs(old, part)
            self.log_q = log_q.new_empty(self.batch.q_values.shape) if self.log_q is None else self.log_q
            self.log_q[part] = log_q
        self.old.append((part, old))

    def total(self, distribution: Any, part: slice) -> Tensor:
        """As `Surrogate.total`."""
        log_probs, q_values = self._log_probs(distribution, part), self.batch.q_values[part]
        if self.batch.all_actions:
            return all_actions_surrogate(log_probs, q_values)
        assert self.log_q is not None
        return self_normalized_surrogate(log_probs, self.log_q[part], q_values)

    def magnitude(self) -> float:
        """Mean over states of the largest |Q|; with normalized weights, of Q less what all actions share."""
        q_values = self.batch.q_values.double()
        if not self.batch.all_actions:
            q_values = q_values - q_values.mean(1, keepdim=True)
        return float(q_values.abs().amax(1).mean())

    def _log_probs(self, distribution: Any, part: slice) -> Tensor:
        """Log-probabilities of each state's K actions, `[S, K]`."""
        return torch.stack([distribution.log_prob(column) for column in self.batch.actions[part].unbind(1)], dim=1)


class Exact:
    """Known model: the mean over rows is L(theta) - eta(old) = sum_s rho(s) sum_a pi(a|s) A(s, a) (TRPO 2015, eq. 3).

    States are weighted by rho, which is normalised in the mean KL but not in L.
    """

    def __init__(self, batch: TabularBatch) -> None:
        self.share = Share(len(batch))
        self.observations: Observations = batch.observations
        self.old: list[tuple[slice, Any]] = []
        visits = batch.values.visitation.clamp(min=0.0)  # below 0 by rounding only
        weighted = len(batch) * visits[:, None] * batch.values.advantages
        self.kl_weights: Tensor | None = (visits * (len(batch) / visits.sum())).to(batch.observations.device)
        self.weighted_advantages = weighted.to(batch.observations.device)

    def begin(self, part: slice, old: Any) -> None:
        """As `Surrogate.begin`."""
        self.old.append((part, old))

    def total(self, distribution: Any, part: slice) -> Tensor:
        """As `Surrogate.total`."""
        return (torch.softmax(distribution.logits.double(), dim=-1) * self.weighted_advantages[part]).sum()

    def magnitude(self) -> float:
        """The mean over rows of sum_a pi(a|s) |A(s, a)|, weighted as in L."""
        terms = [torch.softmax(old.logits.double(), dim=-1) * self.weighted_advantages[part] for part, old in self.old]
        return float(torch.cat(terms).abs().sum()) / len(self.observations)


SURROGATES: dict[type, Callable[[Any], Surrogate]] = {
    Batch: ImportanceSampled,
    VineBatch: BranchesWeighted,
    TabularBatch: Exact,
}


class WithEntropy:
    """Another surrogate plus `bonus` times the mean entropy over the states of the mean KL."""

    def __init__(self, surrogate: Surrogate, bonus: float) -> None:
        self.surrogate, self.bonus = surrogate, bonus
        self.observations: Observations = surrogate.observations
        self.old, self.kl_weights = surrogate.old, surrogate.kl_weights
        self.share, self.begin = surrogate.share, surrogate.begin

    def total(self, distribution: Any, part: slice) -> Tensor:
        """The surrogate's total plus the bonus times the sum of entropies."""
        return self.surrogate.total(distribution, part) + self.bonus * _entropy(self.surrogate, distribution, part)

    def magnitude(self) -> float:
        """The surrogate's magnitude plus the bonus times the mean entropy."""
        return self.surrogate.magnitude() + abs(self.bonus * mean_entropy(self))


def build_surrogate(policy: Policy, batch: Any, entropy_bonus: float = 0.0) -> Surrogate:
    """The surrogate of a batch at the current policy, plus an entropy bonus unless that is 0."""
    surrogate = _of_batch(batch, entropy_bonus)
    with torch.no_grad():
        for part in _parts(policy, surrogate.observations, CHUNK):
            surrogate.begin(part, policy(surrogate.observations[part]))
    return surrogate


def surrogate_and_gradient(
    policy: Policy, batch: Any, entropy_bonus: float = 0.0, chunk: int | None = None
) -> tuple[Surrogate, Tensor]:
    """As `build_surrogate`, with the gradient `[P]` of its mean at the policy's parameters, from the same evaluation.

    For single path that is the mean of A grad log pi.
    """
    surrogate, theta = _of_batch(batch, entropy_bonus), parameter_vector(policy)
    total = torch.zeros_like(theta)
    for part in _parts(policy, surrogate.observations, chunk or CHUNK):
        observations = surrogate.observations[part]

        def value(distribution: Any, part: slice = part) -> Tensor:
            surrogate.begin(part, distribution.detach())
            return surrogate.total(distribution, part)

        known = linearized(policy, theta, observations)
        total += known.gradient(value) if known else _autograd(policy, value(policy(observations)))
    return surrogate, surrogate.share.mean(total)


def _of_batch(batch: Any, entropy_bonus: float) -> Surrogate:
    surrogate = SURROGATES[type(batch)](batch)
    return WithEntropy(surrogate, entropy_bonus) if entropy_bonus else surrogate


def _parts(policy: Policy, observations: Observations, chunk: int) -> list[slice]:
    return row_parts(observations, rows_at_once(policy.network, chunk))


def _autograd(policy: Policy, value: Tensor) -> Tensor:
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(policy.parameters()))])


@torch.no_grad()
def mean_entropy(surrogate: Surrogate) -> float:
    """Mean entropy of the old policy over the states of the mean KL, in nats."""
    return surrogate.share.mean(sum(float(_entropy(surrogate, old, part)) for part, old in surrogate.old))


def _entropy(surrogate: Surrogate, distribution: Any, part: slice) -> Tensor:
    """Sum of the entropies at the states in `part`, weighted as in the mean KL; float64."""
    entropy = distribution.entropy()
    if surrogate.kl_weights is not None:
        entropy = entropy * surrogate.kl_weights[part]
    return entropy.sum(dtype=torch.float64)
