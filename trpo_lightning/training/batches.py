"""Turns rollouts into what is learned from: advantages, value targets, batches."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.numerics.returns import discounted_returns, generalized_advantages, standardize
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
    """What a value function is fitted to: observations `[B, *O]`, `targets` and the old `values` `[B]`."""

    observations: Tensor
    targets: Tensor
    values: Tensor


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
    log_q = None if rollout.log_q is None else torch.full_like(q_values, rollout.log_q)
    return VineBatch(observations, actions, q_values, log_q, rollout.all_actions)


def _single_path(rollout: SinglePathRollout, value_function: Any, s: RunSettings, device: torch.device) -> Estimate:
    """Generalized advantages (GAE 2016), with values from before this iteration's fit."""
    transitions = valued(rollout, value_function, s, device).transitions()
    batch, metrics = to_batch(transitions, s)
    return Estimate(batch, transitions.value_data(), metrics)


@dataclass(frozen=True)
class Transitions:
    """The B valid transitions of rollouts, as rows `[B, ...]` on the policy's device.

    `advantages`, `targets` and `values` are float64; `steps` counts from each episode's begin. For transitions of
    several policies there are also the `log_probs` and `weights` of `Batch`, and the current policy's `ratios` to those
    that collected them.
    """

    observations: Tensor
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
        return ValueData(self.observations, self.targets.float(), self.values.float())


@dataclass(frozen=True)
class ValuedRollout:
    """A rollout with V of its observations, `values` `[T + 1, N]`, float64 on the CPU."""

    rollout: SinglePathRollout
    values: Tensor
    settings: RunSettings
    device: torch.device

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
        advantages, rollout = self.advantages(ratios), self.rollout
        columns = (advantages, self.targets(advantages, ratios), self.values, rollout.episode_steps)
        return Transitions(self.rows(rollout.observations), self.rows(rollout.actions), *map(self.rows, columns))

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
    observations = torch.from_numpy(rollout.observations)
    values = value_function.predict(observations.flatten(0, 1).to(device)).cpu().double()
    return ValuedRollout(rollout, values.view(observations.shape[:2]), s, device)


def _fitted(s: RunSettings) -> FittedValueSettings:
    return s.value if isinstance(s.value, FittedValueSettings) else FittedValueSettings()


def to_slots(rows: Tensor, valid: np.ndarray) -> Tensor:
    """The inverse of `valid_rows` for numbers `[B]`: slots `[T, N]` on the CPU, 0 where there is no transition."""
    slots = torch.zeros(valid.shape, dtype=rows.dtype)
    slots[torch.from_numpy(valid)] = rows.cpu()
    return slots


def to_batch(transitions: Transitions, s: RunSettings) -> tuple[Batch, dict[str, float]]:
    """The rule's batch: which advantages, standardized or not, times gamma^t or not; and metrics of them."""
    t, raw, importance = transitions, transitions.advantages, None
    if t.weights is not None and t.ratios is not None:
        importance = t.weights * t.ratios
    standardized, std = standardize(raw, weights=importance)
    rule = s.rule if isinstance(s.rule, AdvantageRuleSettings) else AdvantageRuleSettings()
    chosen, divisor = (standardized, std) if rule.standardize_advantages else (raw, 1.0)
    if rule.discounted_state_weights:
        chosen = chosen * s.gamma**t.steps
    batch = Batch(t.observations, t.actions, chosen.float(), divisor, t.log_probs, t.weights)
    return batch, {"advantages/std": std} if len(raw) else {}
