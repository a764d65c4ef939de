"""Returns and lengths of training episodes, as an unbiased record."""

import numpy as np


class EpisodeLog:
    """Sums rewards until episodes end, and tells which ended ones to report.

    Where all environments start at once, short episodes end first: a mean over those that have ended is too low for
    rewards of survival. With `hold` the first episode of each environment is held back until every environment has
    ended one; they are then reported together, and what ended second in the meantime is left out. Without a time limit
    some environment may never end one, so that nothing can be held for it.
    """

    def __init__(self, num_envs: int, hold: bool) -> None:
        self.returns, self.lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self._awaited = np.full(num_envs, hold)
        self._held: list[tuple[float, int]] = []

    def record(self, rewards: np.ndarray, valid: np.ndarray, ended: np.ndarray) -> list[tuple[float, int]]:
        """Take in a step's rewards, validity and ends, each `[N]`; (return, length) of the episodes to report."""
        self.returns += rewards
        self.lengths += valid
        if not ended.any():
            return []
        waiting = bool(self._awaited.any())
        counted = ended & self._awaited if waiting else ended
        found = list(zip(self.returns[counted].tolist(), self.lengths[counted].tolist(), strict=True))
        self.returns[ended] = 0.0
        self.lengths[ended] = 0
        if not waiting:
            return found
        self._awaited &= ~ended
        self._held += found
        if self._awaited.any():
            return []
        found, self._held = self._held, []
        return found
