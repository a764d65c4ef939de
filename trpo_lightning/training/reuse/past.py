"""Rollouts of earlier policies: what is kept of them, in memory and in barrier files."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from trpo_lightning.errors import UserError
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import SinglePathRollout


@dataclass(frozen=True)
class PastRollout:
    """What the environments returned in slots `[T, N]`, before normalization, and how probable the actions were.

    `raw_observations` are `[T + 1, N, *O]`; `log_probs` those of the policy that collected. Fields are otherwise those
    of `SinglePathRollout`. One number of an observation takes as many bytes as in the environment.
    """

    raw_observations: np.ndarray
    actions: np.ndarray
    raw_rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    episode_steps: np.ndarray
    log_probs: np.ndarray

    def seen_by(self, normalizer: Normalizer) -> SinglePathRollout:
        """The rollout as the current policy would see it: normalized with today's statistics."""
        return SinglePathRollout(
            observations=normalizer.normalize(self.raw_observations),
            actions=self.actions,
            rewards=normalizer.scale_rewards(self.raw_rewards),
            terminated=self.terminated,
            truncated=self.truncated,
            valid=self.valid,
            episode_steps=self.episode_steps,
            raw_observations=self.raw_observations[:-1],
            running_returns=np.zeros_like(self.raw_rewards),
        )

    def state(self) -> dict[str, torch.Tensor]:
        """The arrays as tensors."""
        return {item.name: torch.from_numpy(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> "PastRollout":
        """The inverse of `state`."""
        return cls(**{name: tensor.numpy() for name, tensor in state.items()})


def to_keep(rollout: SinglePathRollout, log_probs: np.ndarray) -> PastRollout | None:
    """A copy of what later iterations need of a rollout, with the log-probabilities `[T, N]` of its actions.

    None if it has no transition, or a number that is not finite, which would have all further updates rejected.

    Raises:
        UserError: The rollout does not say what it was before normalization.
    """
    if rollout.raw_rewards is None or rollout.last_observations is None:
        raise UserError(
            "rule.reuse needs raw_rewards and last_observations of a rollout: this rollout.scheme leaves them out"
        )
    observations = np.concatenate([rollout.raw_observations, rollout.last_observations[None]])
    valid = rollout.valid
    # what follows an episode's end may be anything: it is not looked at
    followed = valid & ~rollout.terminated
    numbers = (rollout.raw_observations[valid], observations[1:][followed], rollout.raw_rewards[valid])
    if not valid.any() or not all(np.isfinite(x).all() for x in (*numbers, log_probs[valid])):
        return None
    observations[~np.isfinite(observations)] = 0.0
    return PastRollout(
        raw_observations=observations,
        actions=rollout.actions.copy(),
        raw_rewards=rollout.raw_rewards.copy(),
        terminated=rollout.terminated.copy(),
        truncated=rollout.truncated.copy(),
        valid=valid.copy(),
        episode_steps=rollout.episode_steps.copy(),
        log_probs=log_probs,
    )
