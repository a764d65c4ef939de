"""Turns rollouts into what is learned from: advantages, value targets, batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.returns import discounted_returns, generalized_advantages, standardize
from trpo_lightning.policies.sequences import Observations, Sequences
from trpo_lightning.ranks import Share
from trpo_lightning.rollouts.exact import TabularRollout
from trpo_lightning.rollouts.population import PopulationRollout
from trpo_lightning.rollouts.rollout import (
    AnyBatch,
    Batch,
    PopulationBatch,
    Rollout,
    SequenceSlots,
    SinglePathRollout,
    TabularBatch,
    VineBatch,
    observation_rows,
    valid_rows,
)
from trpo_lightning.rollouts.vine import VineRollout
from trpo_lightning.settings import AdvantageRuleSettings, FittedValueSettings, RunSettings


@dataclass(frozen=True)
class ValueData:
    """What a value function is fitted to: observations `[B, *O]`, `targets` and the old `values` `[B]`.

    Its rows are the batch's, but sequence by sequence if it has a memory. `share` says which of all ranks' rows these
    are.
    """

    observations: Observations
    targets: Tensor
    values: Tensor
    share: Share


@dataclass(frozen=True)
class Estimate:
    """The rule's batch, and data for the value function if the scheme provides any."""

    batch: AnyBatch
    value_data: ValueData | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    mixture: Any = None
    """The `Mixture` behind the batch, with `rule.reuse`."""


def make_batch(rollout: Rollout, value_function: Any, settings: RunSettings, device: torch.device) -> Estimate:
    """Make the batch, on `device`, from a rollout of any scheme; raises `TypeError` for an unknown kind of rollout."""
    match rollout:
        case TabularRollout():
            observations = torch.from_numpy(rollout.observations).to(device)
            return Estimate(TabularBatch(rollout.mdp, observations, rollout.values))
        case SinglePathRollout():
            return _single_path(rollout, value_function, settings, device)
        case VineRollout():
            return Estimate(_vine(rollout, device))
        case PopulationRollout():
            return Estimate(PopulationBatch(rollout.candidates, rollout.returns))
    raise TypeError(f"no estimate for a {type(rollout).__name__}")


def _vine(rollout: VineRollout, device: torch.device) -> VineBatch:
    arrays = (rollout.observations, rollout.actions, rollout.q_values)
    observations, actions, q_values = (torch.from_numpy(array).to(device) for array in arrays)
    if rollout.trunks.states is not None:
        observations, order = _ways_to_branches(rollout, rollout.trunks.states, device)
        actions, q_values = actions[order], q_values[order]
    log_q = None if rollout.log_q is None else torch.full_like(q_values, rollout.log_q)
    return VineBatch(observations, actions, q_values, log_q, rollout.all_actions)


def _ways_to_branches(rollout: VineRollout, states: np.ndarray, device: torch.device) -> tuple[Sequences, Tensor]:
    """The trunks' sequences in which the states of the rollout set count, and the order of these states there."""
    slots = SequenceSlots(rollout.trunks.valid)
    rows, order = torch.from_numpy(slots.row_of(*rollout.slots.T)).sort()
    ways = replace(slots.sequences(rollout.trunks.observations, states, device), counted=rows)
    return ways.take(ways.counts.nonzero()[:, 0]), order.to(device)


def _single_path(rollout: SinglePathRollout, value_function: Any, s: RunSettings, device: torch.device) -> Estimate:
    """Generalized advantages (GAE 2016), with values from before this iteration's fit."""
    now = valued(rollout, value_function, s, device)
    advantages = now.advantages()
    targets = now.targets(advantages)
    transitions = now.rows_of(advantages, targets)
    share = rollout.share
    if share is None or share.ranks.size == 1:
        share = Share(len(transitions.advantages))
    batch, metrics = to_batch(transitions, s, share)
    return Estimate(batch, now.value_data(targets, share), metrics)


@dataclass(frozen=True)
class Transitions:
    """The B valid transitions of rollouts, as rows `[B, ...]` on the policy's device.

    `advantages`, `targets` and `values` are float64; `steps` counts from each episode's begin. For transitions of
    several policies there are also the `log_probs` and `weights` of `Batch`, and the current policy's `ratios` to those
    that collected them.
    """

    observations: Any
    actions: Tensor
    advantages: Tensor
    targets: Tensor
    values: Tensor
    steps: Tensor
    log_probs: Tensor | None = None
    ratios: Tensor | None = None
    weights: Tensor | None = None

    def value_data(self) -> ValueData:
        """What the value function is fitted to."""
        share = Share(len(self.targets))
        return ValueData(self.observations, self.targets.float(), self.values.float(), share)


@dataclass(frozen=True)
class ValuedRollout:
    """A rollout with V of its observations, `values` `[T + 1, N]`, float64 on the CPU."""

    rollout: SinglePathRollout
    values: Tensor
    settings: RunSettings
    device: torch.device
    fit_rows: "Rows"
    """The order of rows in a fit of V."""
    fitted_to: Observations
    """The observations of a fit of V, in that order."""

    def advantages(self, ratios: Tensor | None = None, gae_lambda: float | None = None) -> Tensor:
        """`generalized_advantages` `[T, N]`, for a policy with these truncated ratios to the one that collected."""
        s = self.settings
        gae_lambda = s.gae_lambda if gae_lambda is None else gae_lambda
        return generalized_advantages(*self._arguments, gamma=s.gamma, gae_lambda=gae_lambda, ratios=ratios)

    def targets(self, advantages: Tensor, ratios: Tensor | None = None) -> Tensor:
        """Value targets `[T, N]`: V + A, or discounted returns; with ratios c, V + c A (Queeney et al. 2021)."""
        if _fitted(self.settings).targets != "returns":
            return self.values[:-1] + (advantages if ratios is None else ratios * advantages)
        if ratios is None:
            return discounted_returns(*self._arguments, gamma=self.settings.gamma)
        return self.values[:-1] + ratios * self.advantages(ratios, gae_lambda=1.0)

    def transitions(self, ratios: Tensor | None = None) -> Transitions:
        """The valid slots as rows, with advantages and targets for these ratios."""
        advantages = self.advantages(ratios)
        return self.rows_of(advantages, self.targets(advantages, ratios))

    def rows_of(self, advantages: Tensor, targets: Tensor) -> Transitions:
        """The valid slots as rows, with these advantages and targets `[T, N]`."""
        rollout = self.rollout
        if rollout.states is None and not isinstance(self.fitted_to, Sequences):  # V has them in the same order
            rows, observations = self.fit_rows, self.fitted_to
        else:
            rows, observations = _policy_rows(rollout, self.device)
        columns = (advantages, targets, self.values, rollout.episode_steps)
        return Transitions(observations, rows(rollout.actions), *map(rows, columns))

    def value_data(self, targets: Tensor, share: Share) -> ValueData:
        """What the value function is fitted to, for targets `[T, N]`."""
        rows = self.fit_rows
        return ValueData(self.fitted_to, rows(targets).float(), rows(self.values).float(), share)

    def rows(self, x: np.ndarray | Tensor) -> Tensor:
        """The valid slots of an array `[T, N, ...]` as rows `[B, ...]`."""
        return valid_rows(x, self.rollout.valid, self.device)

    @property
    def _arguments(self) -> tuple[Tensor, ...]:
        """Rewards, values and masks, for the functions of `numerics/returns.py`."""
        rollout, ends = self.rollout, self.rollout.terminated | self.rollout.truncated
        terminated = rollout.terminated if _fitted(self.settings).bootstrap_time_limits else ends
        masks = (torch.from_numpy(terminated), torch.from_numpy(ends), torch.from_numpy(rollout.valid))
        return torch.from_numpy(rollout.rewards), self.values, *masks


def valued(rollout: SinglePathRollout, value_function: Any, s: RunSettings, device: torch.device) -> ValuedRollout:
    """The rollout with the current values of its observations."""
    values, fit_rows, fitted_to = _values(rollout, value_function, device)
    return ValuedRollout(rollout, values, s, device, fit_rows, fitted_to)


def _fitted(s: RunSettings) -> FittedValueSettings:
    return s.value if isinstance(s.value, FittedValueSettings) else FittedValueSettings()


def to_slots(rows: Tensor, valid: np.ndarray) -> Tensor:
    """The inverse of `valid_rows` for numbers `[B]`: slots `[T, N]` on the CPU, 0 where there is no transition."""
    slots = torch.zeros(valid.shape, dtype=rows.dtype)
    slots[torch.from_numpy(valid)] = rows.cpu()
    return slots


def to_batch(transitions: Transitions, s: RunSettings, share: Share | None = None) -> tuple[Batch, dict[str, float]]:
    """The rule's batch: which advantages, standardized or not, times gamma^t or not; and metrics of them."""
    t, raw, importance = transitions, transitions.advantages, None
    if t.weights is not None and t.ratios is not None:
        importance = t.weights * t.ratios
    standardized, std = standardize(raw, share, weights=importance)
    rule = s.rule if isinstance(s.rule, AdvantageRuleSettings) else AdvantageRuleSettings()
    chosen, divisor = (standardized, std) if rule.standardize_advantages else (raw, 1.0)
    if rule.discounted_state_weights:
        chosen = chosen * s.gamma**t.steps
    batch = Batch(t.observations, t.actions, chosen.float(), divisor, t.log_probs, t.weights)
    batch.share = share or batch.share
    return batch, {"advantages/std": std} if batch.share.count else {}


Rows = Callable[[np.ndarray | Tensor], Tensor]
"""From an array over the slots, `[T, N, ...]`, to rows of the valid ones, `[B, ...]`."""


def _policy_rows(rollout: SinglePathRollout, device: torch.device) -> tuple[Rows, Observations]:
    """The batch's order of rows, and its observations: sequences for a policy with a memory."""
    if rollout.states is None:
        return _in_order_of_time(rollout, device)
    slots = SequenceSlots(rollout.valid)
    return partial(slots.rows, device=device), slots.sequences(rollout.observations, rollout.states, device)


def _in_order_of_time(rollout: SinglePathRollout, device: torch.device) -> tuple[Rows, Observations]:
    rows = partial(valid_rows, valid=rollout.valid, device=device)
    return rows, observation_rows(rollout.observations, rollout.valid, device)


def _values(rollout: SinglePathRollout, value_function: Any, device: torch.device) -> tuple[Tensor, Rows, Observations]:
    """V `[T + 1, N]` (float64, on the CPU), and the order of rows and the observations of a fit of V."""
    shape = (len(rollout.observations), rollout.valid.shape[1])
    if value_function.state_size:
        return _remembering_values(rollout, value_function, device)
    values = value_function.predict(observation_rows(rollout.observations, None, device))
    if not isinstance(values, Tensor) or values.numel() != math.prod(shape):
        found = f"shape {list(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise UserError(
            f"{type(value_function).__name__}.predict returned {found} for {math.prod(shape)} observations: it must "
            "return a tensor of as many values"
        )
    return values.detach().cpu().double().view(shape), *_in_order_of_time(rollout, device)


def _remembering_values(
    rollout: SinglePathRollout, value_function: Any, device: torch.device
) -> tuple[Tensor, Rows, Observations]:
    """The same for a V with a memory, which it keeps for the next rollout; V is 0 in slots that nothing asks for."""
    slots, observations = SequenceSlots(rollout.valid), rollout.observations
    steps, envs = len(observations), rollout.valid.shape[1]
    began = rollout.episode_steps[:1].T == 0
    states = np.zeros((envs, value_function.state_size)) if value_function.states is None else value_function.states
    sequences = slots.sequences(observations, np.where(began, 0.0, states), device)
    values, states = np.zeros((steps, envs)), np.zeros_like(states)
    if len(sequences):
        after = slots.after(observations, device)
        along, last, ends = (found.cpu().numpy() for found in value_function.run(sequences, after))
        values[slots.steps, slots.envs] = along
        values[slots.first_steps + slots.lengths, slots.owners] = last
        whole = slots.first_steps + slots.lengths == steps - 1
        states[slots.owners[whole]] = ends[whole]
    value_function.states = states
    return torch.from_numpy(values), partial(slots.rows, device=device), sequences
