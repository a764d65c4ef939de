"""What an iteration collects, and the batches that update rules take."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.numerics.tabular import PolicyValues, TabularMDP
from trpo_lightning.policies.observations import ObservationRows
from trpo_lightning.policies.sequences import Observations, Sequences
from trpo_lightning.ranks import Share
from trpo_lightning.rollouts.frames import FrameStore


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

    `observations` `[T + 1, N, *O]`, in a `FrameStore` where they have images, are what the policy saw; row t + 1 is
    what step t returned, which at an episode's end is its last observation. `actions` `[T, N, A]` are as sampled,
    `rewards` `[T, N]` as the update sees them. Where `valid` is False, the environment only reset, or had finished its
    share of whole episodes: ignore the slot.
    """

    observations: np.ndarray | FrameStore
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    episode_steps: np.ndarray
    """`[T, N]`: steps since the episode began, 0 in the first."""
    raw_observations: np.ndarray
    """`[T, N, O]`: before normalization, for the normalizer's statistics; only the vectors, not images."""
    running_returns: np.ndarray
    """`[T, N]`: discounted sums of raw rewards since the episode began, for the reward scale."""
    life_lost: np.ndarray | None = None
    """`[T, N]`: where an episode ended only because a life was lost, and the game went on."""
    raw_rewards: np.ndarray | None = None
    """`[T, N]`: before scaling; with the next one, what a batch that is used again is normalized from."""
    last_observations: np.ndarray | None = None
    """`[N, *O]`: what follows the last row of `raw_observations`."""
    share: Share | None = None
    """Which of all ranks' valid slots these are; None for all."""
    states: np.ndarray | None = None
    """`[N, M]`: what a policy with a memory remembered before the first step; None without one."""

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the valid slots."""
        return self.raw_observations[self.valid], self.running_returns[self.valid]


@dataclass
class Batch:
    """The B valid transitions of a rollout on the policy's device: rows of `[B, ...]`.

    For a policy with a memory they are in the order of its `Sequences`. `share` says which of all ranks' transitions
    they are; by default they are all.
    """

    observations: Observations
    actions: Tensor
    advantages: Tensor
    advantage_std: float = 1.0
    """What the advantages were divided by to standardize them, in units of scaled rewards; 1 if they were not."""
    log_probs: Tensor | None = None
    """`[B]`: of the actions under the policies that collected them; None if the current policy collected all."""
    weights: Tensor | None = None
    """`[B]`: of the transitions in surrogate and mean KL, summing to B; None is 1 each."""
    share: Share = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.share = Share(len(self.observations))

    def __len__(self) -> int:
        return len(self.observations)


@dataclass
class VineBatch:
    """The S states of a rollout set, on the policy's device, each with K branches (TRPO 2015, section 5.2).

    `observations` `[S, *O]`, for a policy with a memory the ways to them; `actions` `[S, K, A]`, `q_values` `[S, K]`;
    `log_q` `[S, K]` are the log-probabilities of the actions under the distribution that chose them, or None if that
    was the policy. With `all_actions`, the K actions are all that exist, in order.
    """

    observations: Observations
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


def observation_rows(
    observations: np.ndarray | FrameStore, valid: np.ndarray | None, device: torch.device
) -> ObservationRows:
    """Observations of all slots `[T + 1, N, *O]`, or of the valid ones `[T, N]`, as rows `[B, *O]`, time-major."""
    if isinstance(observations, FrameStore):
        return observations.rows(valid, device)
    return (
        torch.from_numpy(observations).flatten(0, 1).to(device)
        if valid is None
        else valid_rows(observations, valid, device)
    )


def valid_rows(array: np.ndarray | Tensor, valid: np.ndarray, device: torch.device) -> Tensor:
    """The valid slots of an array `[T, N, ...]` as rows `[B, ...]`, time-major, on `device`."""
    mask = torch.from_numpy(valid)
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return tensor[: len(mask)][mask].to(device)


class SequenceSlots:
    """The valid slots `[T, N]` environment by environment, in sequences that begin and end with episodes.

    An environment's slot after an episode's end only resets, so it is not valid: valid slots without a gap are of one
    episode. The first sequence of an environment goes on with the episode of the last iteration if that had not ended.
    """

    def __init__(self, valid: np.ndarray) -> None:
        self.envs, self.steps = np.nonzero(valid.T)
        begins = np.ones(len(self.steps), dtype=bool)
        begins[1:] = (np.diff(self.envs) != 0) | (np.diff(self.steps) != 1)
        first = np.flatnonzero(begins)
        self.lengths = np.diff(np.append(first, len(self.steps)))
        self.first_steps, self.owners = self.steps[first], self.envs[first]
        """The first step and the environment of each sequence, `[S]`."""

    def rows(self, array: np.ndarray | Tensor, device: torch.device) -> Tensor:
        """The valid slots of `array` `[T or T + 1, N, ...]` as rows `[B, ...]`, sequence by sequence."""
        return torch.as_tensor(array[self.steps, self.envs]).to(device)

    def sequences(self, observations: np.ndarray | FrameStore, states: np.ndarray, device: torch.device) -> Sequences:
        """The sequences of `observations` `[T + 1, N, *O]`.

        Args:
            observations: What the policy saw.
            states: The memory `[N, M]` before the rollout's first step.
            device: Where the sequences are used.
        """
        going_on = (self.first_steps == 0)[:, None]
        initial = np.where(going_on, states[self.owners], 0.0).astype(np.float32)
        lengths = torch.from_numpy(self.lengths.astype(np.int64))
        rows = self._observations(observations, self.steps, self.envs, device)
        return Sequences(rows, lengths, torch.from_numpy(initial).to(device))

    def after(self, observations: np.ndarray | FrameStore, device: torch.device) -> ObservationRows:
        """The observations `[S, *O]` in the slot after each sequence's last."""
        return self._observations(observations, self.first_steps + self.lengths, self.owners, device)

    def _observations(
        self, observations: np.ndarray | FrameStore, steps: np.ndarray, envs: np.ndarray, device: torch.device
    ) -> ObservationRows:
        if isinstance(observations, FrameStore):
            return observations.rows_at(steps, envs, device)
        return torch.from_numpy(observations[steps, envs]).to(device)

    def row_of(self, steps: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """The row of each of these valid slots."""
        rows = np.zeros((self.steps.max(initial=0) + 1, self.envs.max(initial=0) + 1), dtype=np.int64)
        rows[self.steps, self.envs] = np.arange(len(self.steps))
        return rows[steps, envs]
