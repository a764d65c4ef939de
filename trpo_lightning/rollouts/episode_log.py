"""Returns and lengths of training episodes, recorded without bias toward short ones."""

import numpy as np


class EpisodeLog:
    """Sums rewards until episodes end, and decides which of the ended ones to report.

    When all environments start at once, short episodes end first, so the mean over those that have ended is too low
    where surviving is rewarded. With `hold`, the first episode of each environment is held back until every environment
    has ended one; they are then reported together, and later episodes that ended in the meantime are left out. Without
    a time limit some environment may never end an episode, so nothing can be held. With `skip_first`, each
    environment's first episode is not reported at all, and the second one counts as its first.
    """

    def __init__(self, num_envs: int, hold: bool, skip_first: bool = False) -> None:
        self.returns, self.lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self._awaited = np.full(num_envs, hold)
        self._skipped = np.full(num_envs, skip_first)
        self._held: list[tuple[float, int]] = []

    def record(self, rewards: np.ndarray, valid: np.ndarray, ended: np.ndarray) -> list[tuple[float, int]]:
        """Record a step's rewards, validity and ends, each `[N]`; return (return, length) of the episodes to report."""
        self.returns += rewards
        self.lengths += valid
        if not ended.any():
            return []
        waiting = bool(self._awaited.any())
        complete = ended & ~self._skipped
        counted = complete & self._awaited if waiting else complete
        found = list(zip(self.returns[counted].tolist(), self.lengths[counted].tolist(), strict=True))
        self.returns[ended] = 0.0
        self.lengths[ended] = 0
        self._skipped &= ~ended
        if not waiting:
            return found
        self._awaited &= ~complete
        self._held += found
        if self._awaited.any():
            return []
        found, self._held = self._held, []
        return found
