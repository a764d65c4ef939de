"""The bound on a trust-region step, chosen by settings: the KL of a candidate, and its curvature at theta_old."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.curvature import (
    Linearizable,
    Scalars,
    curvature_of_rows,
    fisher_vector_product,
)
from trpo_lightning.numerics.objectives import kl_divergence
from trpo_lightning.policies.images import rows_at_once, rows_kept
from trpo_lightning.policies.linearized import evaluator, linearized
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.observations import in_precision
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.sequences import Observations, Sequences, row_parts
from trpo_lightning.ranks import Share
from trpo_lightning.rollouts.rollout import AnyBatch, Batch
from trpo_lightning.rules.surrogate import CHUNK, Surrogate
from trpo_lightning.settings import TrustRegionSettings

Model = Callable[[Tensor, slice], Linearizable]
"""From theta and a slice of the rows to what `numerics/curvature.py` linearizes."""


def _mean(x: Tensor, weights: Tensor | None, share: Share) -> float:
    return share.mean(float((x if weights is None else x * weights).sum(dtype=torch.float64)))


def _largest(x: Tensor, weights: Tensor | None, share: Share) -> float:
    x = x if weights is None else x[weights > 0.0]
    return share.ranks.largest(float(x.max()) if len(x) else -math.inf)


OVER_STATES: dict[str, Callable[[Tensor, Tensor | None, Share], float]] = {"mean": _mean, "max": _largest}
"""How one number per state, `[B]`, becomes one number over the states of all ranks; `kl_weights` count."""

OVER_DIMENSIONS: dict[str, Callable[[int], float]] = {"sum": lambda size: 1.0, "mean": lambda size: 1.0 / size}
"""Factor by which the joint KL is multiplied, by the number of action dimensions."""


def kl_factor(surrogate: Surrogate, settings: TrustRegionSettings) -> float:
    """The factor for each state's joint KL, and so for its curvature."""
    _, old = surrogate.old[0]
    return OVER_DIMENSIONS[settings.kl_over_dimensions](old.mode().shape[-1])


class Candidates:
    """Evaluates the parameters that the line search tries, against the old policy on the whole batch."""

    def __init__(self, policy: Policy, surrogate: Surrogate, settings: TrustRegionSettings) -> None:
        self.policy, self.surrogate, self.settings = policy, surrogate, settings
        self.factor = kl_factor(surrogate, settings)
        self.weight_of_largest = _weight_of_largest(settings)
        self.theta = parameter_vector(policy)
        self.kl: dict[str, float] = {}
        """Mean and largest KL of the last candidate."""

    @torch.no_grad()
    def evaluate(self, theta: Tensor) -> tuple[float, float]:
        """The mean surrogate and the bounded KL at `theta` `[P]`, or where the policy would be instead (`projected`).

        Where the search starts, the distributions are known.

        The largest KL of a state counts `kl_slack / kl_state_slack` times, so that the bound `kl_slack * delta` holds
        the mean KL to that and each state's KL to `kl_state_slack * delta`.
        """
        theta = self.policy.projected(theta)
        unmoved, at = torch.equal(theta, self.theta), evaluator(self.policy, theta)
        value, kls = 0.0, []
        for part, old in self.surrogate.old:
            new: Any = old if unmoved else at(self.surrogate.observations[part])
            value += float(self.surrogate.total(new, part))
            kls.append(self.factor * kl_divergence(old, new, self.settings.kl_direction))
        kl, weights = torch.cat(kls), self.surrogate.kl_weights
        share = self.surrogate.share
        self.kl = {name: over(kl, weights, share) for name, over in OVER_STATES.items()}
        bounded = max(self.kl[self.settings.kl_over_states], self.weight_of_largest * self.kl["max"])
        return share.mean(value), bounded


def _weight_of_largest(s: TrustRegionSettings) -> float:
    """What the largest KL of a state is multiplied by, next to the bounded KL: 0 if it is not bounded."""
    if s.kl_slack is None or s.kl_state_slack is None or s.kl_over_states == "max":
        return 0.0
    return s.kl_slack / s.kl_state_slack


def fisher(policy: Policy, observations: Observations, actions: Tensor | None) -> Model:
    """Rows of the analytic Fisher matrix (TRPO 2015, appendix C.1)."""
    return lambda theta, part: linearized(policy, theta, observations[part]) or policy.at(theta, observations[part])


def empirical_fisher(policy: Policy, observations: Observations, actions: Tensor | None) -> Model:
    """Rows of the empirical Fisher matrix (TRPO 2015, section 8.1).

    Raises:
        UserError: The batch does not have one sampled action per state.
    """
    if actions is None:
        raise UserError("rule.curvature=empirical_fisher needs the actions of rollout.scheme=single_path")

    def model(theta: Tensor, part: slice) -> Scalars:
        taken = actions[part].to(theta.dtype) if actions.is_floating_point() else actions[part]
        return Scalars(policy.at(theta, observations[part]).log_prob(taken))

    return model


CURVATURES = {"fisher": fisher, "empirical_fisher": empirical_fisher}


class Curvature:
    """A v over a random subset of the batch's states, and max_n v'A_n v over all of them, in the solver's precision."""

    def __init__(
        self,
        policy: Policy,
        batch: AnyBatch,
        surrogate: Surrogate,
        settings: TrustRegionSettings,
        generator: torch.Generator,
    ) -> None:
        self.policy, self.batch, self.surrogate, self.settings = policy, batch, surrogate, settings
        self.factor = kl_factor(surrogate, settings)
        theta = parameter_vector(policy)
        self.theta = theta.to(torch.promote_types(theta.dtype, getattr(torch, settings.solve_dtype)))
        observed, fraction = surrogate.observations, settings.fisher_fraction
        self.rows, self.share = fisher_subset(observed, surrogate.share, fraction, generator)
        self.rows = self.rows.to(theta.device)

    def _model(self, rows: Tensor | slice) -> tuple[Model, list[slice]]:
        """The model of some rows of the batch, and slices of them that are evaluated at once."""
        actions = self.batch.actions[rows] if isinstance(self.batch, Batch) else None
        observations: Observations = self.surrogate.observations
        if isinstance(rows, Tensor):
            whole = isinstance(observations, Sequences)
            observations = observations[rows] if whole else observations.index_select(0, rows)
        if isinstance(observations, Sequences):
            observations = observations.to(self.theta.dtype)
        elif isinstance(observations, Tensor):
            observations = in_precision(observations, self.theta.dtype)
        model = CURVATURES[self.settings.curvature](self.policy, observations, actions)
        return model, row_parts(observations, rows_at_once(self.policy.network, CHUNK))

    @cached_property
    def _operator(self) -> Callable[[Tensor], Tensor]:
        weights = self.surrogate.kl_weights
        if weights is not None:
            weights = weights[self.rows].to(self.theta.dtype)
            weights = weights / weights.sum()
        model, parts = self._model(self.rows)
        rows, share, keep = len(self.rows), self.share, rows_kept(self.policy.network)
        return fisher_vector_product(model, self.theta, rows, weights=weights, parts=parts, share=share, keep=keep)

    def product(self, v: Tensor) -> Tensor:
        """A v; the first call builds the graph."""
        return self.factor * self._operator(v)

    def largest(self, v: Tensor) -> float:
        """max_n v'A_n v over the whole batch, like the KL of the line search."""
        model, parts = self._model(slice(None))
        rows = curvature_of_rows(model, self.theta, v, len(self.surrogate.observations), parts=parts)
        return OVER_STATES["max"](self.factor * rows, self.surrogate.kl_weights, self.surrogate.share)


def fisher_subset(
    observations: Observations, share: Share, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Share]:
    """Indices of the rows of a random `fraction` of all ranks' states, or of whole sequences for a model with a memory.

    The share says which of all ranks' chosen rows these are.
    """
    if isinstance(observations, Sequences):
        rows = observations.rows_of(fisher_rows(len(observations.lengths), fraction, generator))
        return rows, replace(share, count=len(rows), places=None)
    chosen = fisher_rows(share.count, fraction, generator)
    return share.rows(chosen), replace(share, count=len(chosen), places=None)


def fisher_rows(rows: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Indices of a random `fraction` of the rows, at least one; all rows, in order, if it is 1."""
    if fraction >= 1.0:
        return torch.arange(rows)
    return torch.randperm(rows, generator=generator)[: max(1, round(rows * fraction))]
