"""One iteration's data, as collected and as the update takes it."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class Rollout:
    """Slots `[T, N]` of T steps in N environments, as arrays on the CPU.

    `observations` `[T + 1, N, *O]` are what the policy saw; row t + 1 is what step t returned, at an episode's end its
    last observation. `actions` `[T, N, A]` are as sampled, `log_probs` `[T, N]` theirs at collection, `rewards`
    `[T, N]` as the update sees them. In a slot with `valid` False
    the environment only reset: everything in it is to be ignored.
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    raw_observations: np.ndarray
    """`[T, N, *O]` before normalization, for the normalizer's statistics."""
    running_returns: np.ndarray
    """`[T, N]` discounted sums of raw rewards since the episode began, for the reward scale."""
    episode_returns: list[float] = field(default_factory=list)
    """Undiscounted sums of raw rewards of the episodes that this rollout reports (see `EpisodeLog`)."""
    episode_lengths: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def env_steps(self) -> int:
        """Real transitions."""
        return int(self.valid.sum())


@dataclass
class Batch:
    """The B valid transitions of a rollout on the policy's device: rows of `[B, ...]`."""

    observations: Tensor
    actions: Tensor
    advantages: Tensor

    def __len__(self) -> int:
        return len(self.observations)


def valid_rows(array: np.ndarray | Tensor, valid: np.ndarray, device: torch.device) -> Tensor:
    """The valid slots of `[T, N, ...]` as rows `[B, ...]`, time-major, on `device`."""
    mask = torch.from_numpy(valid)
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return tensor[: len(mask)][mask].to(device)
