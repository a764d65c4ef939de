"""Turns rollouts into what is learned from: advantages, value targets, batches."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    valid_rows,
)
from trpo_lightning.rollouts.vine import VineRollout
from trpo_lightning.settings import AdvantageRuleSettings, FittedValueSettings, RunSettings


@dataclass(frozen=True)
class ValueData:
    """What a value function is fitted to: observations `[B, *O]`, `targets` and the old `values` `[B]`.

    Its rows are the batch's, but sequence by sequence if it has a memory; `share` says which of all ranks' they are.
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
    values, fit_rows, fitted_to = _values(rollout, value_function, device)
    ends = rollout.terminated | rollout.truncated
    fitted = s.value if isinstance(s.value, FittedValueSettings) else FittedValueSettings()
    terminated = rollout.terminated if fitted.bootstrap_time_limits else ends
    rewards = torch.from_numpy(rollout.rewards)
    masks = (torch.from_numpy(terminated), torch.from_numpy(ends), torch.from_numpy(rollout.valid))
    advantages = generalized_advantages(rewards, values, *masks, gamma=s.gamma, gae_lambda=s.gae_lambda)
    if fitted.targets == "returns":
        targets = discounted_returns(rewards, values, *masks, gamma=s.gamma)
    else:
        targets = advantages + values[:-1]

    rows, observations = _policy_rows(rollout, device)
    raw = rows(advantages)
    share = rollout.share or Share(len(raw))
    standardized, std = standardize(raw, share)
    rule = s.rule if isinstance(s.rule, AdvantageRuleSettings) else AdvantageRuleSettings()
    chosen, divisor = (standardized, std) if rule.standardize_advantages else (raw, 1.0)
    if rule.discounted_state_weights:
        chosen = chosen * s.gamma ** rows(rollout.episode_steps)
    batch = Batch(observations, rows(rollout.actions), chosen.float(), divisor)
    batch.share = share
    metrics = {"advantages/std": std} if share.count else {}
    value_data = ValueData(fitted_to, fit_rows(targets).float(), fit_rows(values).float(), share)
    return Estimate(batch, value_data, metrics)


Rows = Callable[[np.ndarray | Tensor], Tensor]
"""From an array over the slots, `[T, N, ...]`, to rows of the valid ones, `[B, ...]`."""


def _policy_rows(rollout: SinglePathRollout, device: torch.device) -> tuple[Rows, Observations]:
    """The batch's order of rows, and its observations: sequences for a policy with a memory."""
    if rollout.states is None:
        return _in_order_of_time(rollout, device)
    slots = SequenceSlots(rollout.valid)
    return partial(slots.rows, device=device), slots.sequences(rollout.observations, rollout.states, device)


def _in_order_of_time(rollout: SinglePathRollout, device: torch.device) -> tuple[Rows, Tensor]:
    rows = partial(valid_rows, valid=rollout.valid, device=device)
    return rows, rows(rollout.observations)


def _values(rollout: SinglePathRollout, value_function: Any, device: torch.device) -> tuple[Tensor, Rows, Observations]:
    """V `[T + 1, N]` (float64, on the CPU), and the order of rows and the observations of a fit of V."""
    shape = rollout.observations.shape[:2]
    if value_function.state_size:
        return _remembering_values(rollout, value_function, device)
    observations = torch.from_numpy(rollout.observations).flatten(0, 1)
    values = value_function.predict(observations.to(device)).cpu().double().view(shape)
    return values, *_in_order_of_time(rollout, device)


def _remembering_values(
    rollout: SinglePathRollout, value_function: Any, device: torch.device
) -> tuple[Tensor, Rows, Observations]:
    """The same for a V with a memory, which it keeps for the next rollout; V is 0 in slots that nothing asks for."""
    slots, observations = SequenceSlots(rollout.valid), rollout.observations
    steps, envs = observations.shape[:2]
    began = rollout.episode_steps[:1].T == 0
    states = np.zeros((envs, value_function.state_size)) if value_function.states is None else value_function.states
    sequences = slots.sequences(observations, np.where(began, 0.0, states), device)
    values, states = np.zeros((steps, envs)), np.zeros_like(states)
    if len(sequences):
        after = torch.from_numpy(slots.after(observations)).to(device)
        along, last, ends = (found.cpu().numpy() for found in value_function.run(sequences, after))
        values[slots.steps, slots.envs] = along
        values[slots.first_steps + slots.lengths, slots.owners] = last
        whole = slots.first_steps + slots.lengths == steps - 1
        states[slots.owners[whole]] = ends[whole]
    value_function.states = states
    return torch.from_numpy(values), partial(slots.rows, device=device), sequences
