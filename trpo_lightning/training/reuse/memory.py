"""Keeps the rollouts of the last policies, and mixes them with the newest one."""

from typing import Any

from trpo_lightning.errors import UserError
from trpo_lightning.policies.observations import Layout
from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, numpy_generator
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import SinglePathRollout
from trpo_lightning.rules.mixture import mixture_weights
from trpo_lightning.settings import RunSettings, reuses
from trpo_lightning.training.batches import Estimate, to_slots, valued
from trpo_lightning.training.reuse.mixture import Mixture, part_of
from trpo_lightning.training.reuse.past import PastRollout, to_keep
from trpo_lightning.values.value_function import ValueFunction


class Reuse:
    """The rollouts of the last policies, newest first; `weights` are those of the newest one and of these."""

    def __init__(self, settings: RunSettings) -> None:
        assert reuses(settings.rule)
        self.settings, self.truncation = settings, settings.rule.reuse_truncation
        self.weights = mixture_weights(settings.rule)
        self.past: list[PastRollout | None] = []
        """None where a rollout could not be kept: the others keep their ages."""

    def estimate(
        self,
        rollout: SinglePathRollout,
        policy: Policy,
        value_function: ValueFunction,
        normalizer: Normalizer,
        iteration: int,
    ) -> Estimate:
        """The estimate from this rollout and those kept, all seen with today's normalizer, values and policy."""
        s, device = self.settings, next(policy.parameters()).device
        rollouts = [(0, rollout, None)]
        rollouts += [(age, p.seen_by(normalizer), p.log_probs) for age, p in enumerate(self.past, 1) if p is not None]
        rollouts = [one for one in rollouts if one[1].valid.any()] or rollouts[:1]
        total = sum(self.weights[age] for age, *_ in rollouts)
        parts = [
            part_of(
                valued(seen, value_function, s, device), policy, self.weights[age] / total, age, before, self.truncation
            )
            for age, seen, before in rollouts
        ]
        generator = numpy_generator(s.seed, Stream.VALUE_FIT, iteration, index=1)
        return Mixture(parts, normalizer.reward_scale).estimate(s, generator)

    def keep(self, mixture: Mixture) -> None:
        """After the update, put the newest rollout in front; the oldest one goes if there are too many."""
        if len(self.weights) == 1:
            return
        newest, kept = mixture.parts[0], None
        if newest.age == 0:
            rollout = newest.valued.rollout
            kept = to_keep(rollout, to_slots(newest.log_probs, rollout.valid).numpy())
        self.past = [kept, *self.past][: len(self.weights) - 1]

    def state_dict(self) -> list[dict[str, Any]]:
        """The rollouts as tensors, newest first; an empty dict stands for None."""
        return [{} if rollout is None else rollout.state() for rollout in self.past]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Continue from a `state_dict`."""
        self.past = [PastRollout.from_state(one) if one else None for one in state]


def build_reuse(settings: RunSettings, layout: Layout) -> Reuse | None:
    """What `rule.reuse` asks for; None if each batch is learned from once. Raises `UserError` for images."""
    if not reuses(settings.rule):
        return None
    if layout.images:
        raise UserError(f"rule.reuse={settings.rule.reuse} keeps vectors, not images: use rule.reuse=none")
    return Reuse(settings)
