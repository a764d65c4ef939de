"""An environment with numbers that are not finite, or always the same; `env.id=faulty_numbers:faulty`."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Faulty(gym.Env):
    """A walk. In steps [after, until) of its life, `where` ("reward" or "observation") is `value`.

    Where it is "constant_reward" or "constant_observation", that never changes. Episodes end after `length` steps.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, where, value, after, until, length, discrete):
        self.where, self.value, self.window, self.length = where, value, range(after, until), length
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.life = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.count = self.np_random.normal(size=3), 0
        return self._observation(), {}

    def step(self, action):
        self.life += 1
        self.count += 1
        push = float(np.nan_to_num(np.asarray(action, dtype=np.float64)).sum())
        self.state = 0.9 * self.state + 0.1 * push
        reward = 1.0 if self.where == "constant_reward" else float(self.state[0])
        if self.where == "reward" and self.life in self.window:
            reward = self.value
        return self._observation(), reward, self.count >= self.length, False, {}

    def snapshot(self):
        return self.state.copy(), self.count, self.life

    def restore(self, snapshot):
        self.state, self.count, self.life = snapshot

    def _observation(self):
        if self.where == "constant_observation":
            return np.ones(3)
        seen = self.state.copy()
        if self.where == "observation" and self.life in self.window:
            seen[1] = self.value
        return seen


def faulty(where="nothing", value="nan", after=0, until=10**9, length=7, discrete=False):
    return Faulty(where, float(value), after, until, length, discrete)
