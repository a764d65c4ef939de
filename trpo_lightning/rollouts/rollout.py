"""What an iteration collects, and the batches that update rules take."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.numerics.tabular import PolicyValues, TabularMDP
from trpo_lightning.ranks import Share


@dataclass(kw_only=True)
class Rollout:
    """What one iteration collects, with any sampling scheme; subclasses add the data."""

    env_steps: int = 0
    """Real transitions, without the fake ones after episodes."""
    episode_returns: list[float] = field(default_factory=list)
    """Undiscounted sums of raw rewards of the episodes that this rollout reports (see `EpisodeLog`)."""
    episode_lengths: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def measure(self) -> dict[str, float]:
        """Metrics of the rollout: means over the episodes that ended, and no return if none did."""
        count = len(self.episode_returns)
        if not count:
            return {"episode/count": 0}
        return {
            "episode/return_mean": sum(self.episode_returns) / count,
            "episode/length_mean": sum(self.episode_lengths) / count,
            "episode/count": count,
        }

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """What normalizers merge: raw observations `[B, *O]` and running discounted returns `[B]`."""
        raise NotImplementedError(f"{type(self).__name__} has no statistics")


@dataclass(kw_only=True)
class SinglePathRollout(Rollout):
    """Slots `[T, N]` of T steps in N environments, as arrays on the CPU.

    `observations` `[T + 1, N, *O]` are what the policy saw; row t + 1 is what step t returned, which at an episode's
    end is its last observation. `actions` `[T, N, A]` are as sampled, `rewards` `[T, N]` as the update sees them. Where
    `valid` is False, the environment only reset, or had finished its share of whole episodes: ignore the slot.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    episode_steps: np.ndarray
    """`[T, N]`: steps since the episode began, 0 in the first."""
    raw_observations: np.ndarray
    """`[T, N, *O]`: before normalization, for the normalizer's statistics."""
    running_returns: np.ndarray
    """`[T, N]`: discounted sums of raw rewards since the episode began, for the reward scale."""
    share: Share | None = None
    """Which of all ranks' valid slots these are; None for all."""

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the valid slots."""
        return self.raw_observations[self.valid], self.running_returns[self.valid]


@dataclass
class Batch:
    """The B valid transitions of a rollout on the policy's device: rows of `[B, ...]`.

    `share` says which of all ranks' transitions they are; by default they are all.
    """

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    advantage_std: float = 1.0
    """What the advantages were divided by to standardize them, in units of scaled rewards; 1 if they were not."""
    share: Share = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.share = Share(len(self.observations))

    def __len__(self) -> int:
        return len(self.observations)


@dataclass
class VineBatch:
    """The S states of a rollout set, on the policy's device, each with K branches (TRPO 2015, section 5.2).

    `observations` `[S, *O]`, `actions` `[S, K, A]`, `q_values` `[S, K]`; `log_q` `[S, K]` are the log-probabilities of
    the actions under the distribution that chose them, or None if that was the policy. With `all_actions`, the K
    actions are all that exist, in order.
    """

    observations: Tensor
    actions: Tensor
    q_values: Tensor
    log_q: Tensor | None = None
    all_actions: bool = False

    def __len__(self) -> int:
        return len(self.observations)


@dataclass
class PopulationBatch:
    """K candidate parameter vectors `[K, P]` and their mean undiscounted returns `[K]` (float64)."""

    candidates: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.candidates)


@dataclass
class TabularBatch:
    """A known MDP, its states' `observations` `[S, O]` on the policy's device, and the policy's exact values."""

    mdp: TabularMDP
    observations: Tensor
    values: PolicyValues

    def __len__(self) -> int:
        return len(self.observations)


AnyBatch = Batch | VineBatch | PopulationBatch | TabularBatch


def valid_rows(array: np.ndarray | Tensor, valid: np.ndarray, device: torch.device) -> Tensor:
    """The valid slots of an array `[T, N, ...]` as rows `[B, ...]`, time-major, on `device`."""
    mask = torch.from_numpy(valid)
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return tensor[: len(mask)][mask].to(device)
