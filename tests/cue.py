"""A task that only a memory solves; `env.id=cue:make`."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Cue(gym.Env):
    """A cue of +1 or -1 is seen in the first step only; the last action of the episode is right if it is the cue.

    All other observations are 0, but the last is marked. Without a memory the mean return is 0.5, whatever the policy.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.cue = 0, int(self.np_random.integers(2))
        return self._observation(2.0 * self.cue - 1.0), {}

    def step(self, action):
        self.count += 1
        over = self.count == self.steps
        return self._observation(0.0), float(over and action == self.cue), over, False, {}

    def _observation(self, cue):
        return np.array([cue, self.count == self.steps - 1], dtype=np.float32)


def make(steps: int = 20) -> gym.Env:
    return Cue(steps)
