"""Returns and lengths of training episodes, recorded without bias toward short ones."""

from typing import NamedTuple

import numpy as np


class EndedEpisode(NamedTuple):
    """An episode that ended in step `t` of a rollout, in an environment by its global index."""

    t: int
    environment: int
    total: float
    length: int


class EpisodeSums:
    """Sums the rewards of environments, by their global `indices`, until episodes end."""

    def __init__(self, indices: range) -> None:
        self.indices = indices
        self.returns, self.lengths = np.zeros(len(indices)), np.zeros(len(indices), dtype=np.int64)

    def add(self, t: int, rewards: np.ndarray, valid: np.ndarray, ended: np.ndarray) -> list[EndedEpisode]:
        """Add step t's rewards, validity and ends, each `[N]`; return the episodes that ended."""
        self.returns += rewards
        self.lengths += valid
        if not ended.any():
            return []
        found = [
            EndedEpisode(t, self.indices[i], float(self.returns[i]), int(self.lengths[i]))
            for i in np.flatnonzero(ended)
        ]
        self.returns[ended] = 0.0
        self.lengths[ended] = 0
        return found


class EpisodeLog:
    """Decides which of the ended episodes of all environments to report.

    When all environments start at once, short episodes end first, so the mean over those that have ended is too low
    where surviving is rewarded. With `hold`, the first episode of each environment is held back until every environment
    has ended one; they are then reported together, and later episodes that ended in the meantime are left out. Without
    a time limit some environment may never end an episode, so nothing can be held. With `skip_first`, each
    environment's first episode is not reported at all, and the second one counts as its first.
    """

    def __init__(self, num_envs: int, hold: bool, skip_first: bool = False) -> None:
        self._awaited = np.full(num_envs, hold)
        self._skipped = np.full(num_envs, skip_first)
        self._held: list[EndedEpisode] = []

    def report(self, ended: list[EndedEpisode]) -> list[EndedEpisode]:
        """The episodes to report, given all that ended in one step."""
        waiting = bool(self._awaited.any())
        complete = [episode for episode in ended if not self._skipped[episode.environment]]
        found = [episode for episode in complete if not waiting or self._awaited[episode.environment]]
        self._skipped[[episode.environment for episode in ended]] = False
        if not waiting:
            return found
        self._awaited[[episode.environment for episode in complete]] = False
        self._held += found
        if self._awaited.any():
            return []
        found, self._held = self._held, []
        return found
