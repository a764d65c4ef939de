"""Turns rollouts into what is learned from: advantages, value targets, batches."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.numerics.returns import discounted_returns, generalized_advantages, standardize
from trpo_lightning.ranks import Share
from trpo_lightning.rollouts.exact import TabularRollout
from trpo_lightning.rollouts.population import PopulationRollout
from trpo_lightning.rollouts.rollout import (
    AnyBatch,
    Batch,
    PopulationBatch,
    Rollout,
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

    `share` says which of all ranks' rows these are.
    """

    observations: Tensor
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
    log_q = None if rollout.log_q is None else torch.full_like(q_values, rollout.log_q)
    return VineBatch(observations, actions, q_values, log_q, rollout.all_actions)


def _single_path(rollout: SinglePathRollout, value_function: Any, s: RunSettings, device: torch.device) -> Estimate:
    """Generalized advantages (GAE 2016), with values from before this iteration's fit."""
    slots = rollout.observations.shape[:2]
    observations = torch.from_numpy(rollout.observations)
    values = value_function.predict(observations.flatten(0, 1).to(device)).cpu().double().view(slots)
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

    def rows(x: np.ndarray | Tensor) -> Tensor:
        return valid_rows(x, rollout.valid, device)

    raw = rows(advantages)
    share = rollout.share or Share(len(raw))
    standardized, std = standardize(raw, share)
    rule = s.rule if isinstance(s.rule, AdvantageRuleSettings) else AdvantageRuleSettings()
    chosen, divisor = (standardized, std) if rule.standardize_advantages else (raw, 1.0)
    if rule.discounted_state_weights:
        chosen = chosen * s.gamma ** rows(rollout.episode_steps)
    batch = Batch(rows(rollout.observations), rows(rollout.actions), chosen.float(), divisor)
    batch.share = share
    metrics = {"advantages/std": std} if share.count else {}
    value_data = ValueData(batch.observations, rows(targets).float(), rows(values).float(), share)
    return Estimate(batch, value_data, metrics)
