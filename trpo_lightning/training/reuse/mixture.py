"""One batch from the rollouts of several policies (Queeney et al. 2021, section 5; 2022, section IV)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.numerics.curvature import row_slices
from trpo_lightning.policies.policy import Policy
from trpo_lightning.ranks import Share
from trpo_lightning.rules.surrogate import CHUNK
from trpo_lightning.settings import RunSettings
from trpo_lightning.training.batches import Estimate, Transitions, ValueData, ValuedRollout, to_batch, to_slots


@dataclass(frozen=True)
class Part:
    """The rollout of one policy in a mixture: its weight, its age in updates, and its transitions, for today's policy.

    As rows `[B]`: `log_probs` of the actions under the policy that collected them, and the current policy's `ratios`.
    """

    weight: float
    age: int
    valued: ValuedRollout
    transitions: Transitions
    log_probs: Tensor
    ratios: Tensor

    def new_ratios(self, policy: Policy) -> Tensor:
        """The ratios `[B]` of another policy to the one that collected."""
        return torch.exp(log_probs(policy, self.transitions) - self.log_probs)


@dataclass(frozen=True)
class Mixture:
    """The parts of an iteration, newest first; their weights sum to 1. `reward_scale` is that of their rewards."""

    parts: list[Part]
    reward_scale: float = 1.0

    def estimate(self, s: RunSettings, generator: np.random.Generator) -> Estimate:
        """The estimate for all parts together; the newest rollout alone gives what `make_batch` gives."""
        if [part.age for part in self.parts] == [0]:
            transitions = self.parts[0].transitions
            batch, metrics = to_batch(transitions, s)
            return Estimate(batch, transitions.value_data(), metrics, self)
        batch, metrics = to_batch(joined(self.parts), s)
        return Estimate(batch, value_data(self.parts, generator), metrics, self)


def part_of(
    valued: ValuedRollout,
    policy: Policy,
    weight: float,
    age: int,
    collected: np.ndarray | None,
    truncation: float | None,
) -> Part:
    """A rollout with advantages and value targets of the current policy.

    Args:
        valued: The rollout with today's values.
        policy: The current policy.
        weight: The rollout's weight.
        age: How many updates ago it was collected.
        collected: Log-probabilities `[T, N]` under the policy that collected; None if that is the current one.
        truncation: Where ratios are cut off in traces; None makes none of them count.
    """
    on_policy = valued.transitions()
    current = log_probs(policy, on_policy)
    if collected is None:
        return Part(weight, age, valued, on_policy, current, torch.ones_like(current))
    before = valued.rows(collected)
    ratios = torch.exp(current - before)
    if truncation is None:
        return Part(weight, age, valued, on_policy, before, ratios)
    traces = to_slots(ratios.clamp(max=truncation), valued.rollout.valid)
    return Part(weight, age, valued, valued.transitions(traces), before, ratios)


@torch.no_grad()
def log_probs(policy: Policy, transitions: Transitions) -> Tensor:
    """Log-probabilities `[B]` of the actions."""
    parts = row_slices(len(transitions.actions), CHUNK)
    found = [policy(transitions.observations[part]).log_prob(transitions.actions[part]) for part in parts]
    return torch.cat(found) if found else transitions.advantages.new_zeros(0)


def joined(parts: Sequence[Part]) -> Transitions:
    """The transitions of all parts; each part has its weight in a mean over rows, whatever its number of rows."""
    rows = sum(len(part.ratios) for part in parts)
    prepared = [
        replace(
            part.transitions,
            log_probs=part.log_probs,
            ratios=part.ratios,
            weights=torch.full_like(part.ratios, part.weight * rows / len(part.ratios)),
        )
        for part in parts
    ]
    return Transitions(*(torch.cat(column) for column in _columns(prepared)))


def value_data(parts: Sequence[Part], generator: np.random.Generator) -> ValueData:
    """Transitions for the value function: a random share of each part, in proportion to its weight.

    A part of the largest weight is there as a whole. (The authors weight squared errors instead, in which a transition
    of little weight costs as much time as any other.)
    """
    most, chosen = max(part.weight for part in parts), []
    for part in parts:
        data, size = part.transitions.value_data(), len(part.ratios)
        number = max(1, round(size * part.weight / most))
        if number < size:
            rows = torch.from_numpy(np.sort(generator.permutation(size)[:number])).to(part.ratios.device)
            data = ValueData(data.observations[rows], data.targets[rows], data.values[rows], Share(number))
        chosen.append(data)
    observations, targets, values, shares = _columns(chosen)
    share = Share(sum(one.count for one in shares))
    return ValueData(torch.cat(observations), torch.cat(targets), torch.cat(values), share)


def _columns(items: Sequence[Transitions] | Sequence[ValueData]) -> list[tuple[Any, ...]]:
    """The values of each field, of all items."""
    return list(zip(*(vars(item).values() for item in items), strict=True))
