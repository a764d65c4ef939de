"""Tasks whose steps are smooth contractions, so that rounding stays rounding from one step to the next."""

import os
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LIMIT = 25


class Falling(gym.Env):
    """x moves to 0.9 x + 0.2 tanh(a) + 0.05 sin(step); the episode ends in a fall beyond 1.2, or at its limit."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.normal(size=2), 0
        return self.x.copy(), {}

    def step(self, action):
        self.t += 1
        self.x = 0.9 * self.x + 0.2 * np.tanh(action) + 0.05 * np.sin(self.t)
        reward = 1.0 - float(self.x @ self.x)
        return self.x.copy(), reward, bool(np.abs(self.x).max() > 1.2), False, {}


gym.register("SmoothFalling-v0", lambda: Falling(), max_episode_steps=LIMIT)


def falling():
    return gym.make("SmoothFalling-v0")


def slow():
    """Takes so long to step that a rank dies while others collect."""
    return Slow(falling())


class Slow(gym.Wrapper):
    def step(self, action):
        time.sleep(0.005)
        return self.env.step(action)


def alone():
    """Cannot be built in the second rank of a run."""
    if os.environ.get("LOCAL_RANK") == "1":
        raise RuntimeError("not for two")
    return falling()
