"""A data loader that collects rollouts: Lightning's data step."""

from collections.abc import Callable, Iterator

from trpo_lightning.rollouts.rollout import Rollout


class RolloutLoader:
    """A training data loader of length 1: one rollout per epoch, collected on demand.

    The length matters: Lightning prefetches a batch from a loader without one, and every update would then use a
    rollout from the policy before last.
    """

    def __init__(self, collect: Callable[[], Rollout]) -> None:
        self._collect = collect

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Rollout]:
        yield self._collect()
