"""Environments that most projects never meet, as `env.id=odd_environments:NAME`."""

import gymnasium as gym
import numpy as np


class Endless(gym.Env):
    """A point that drifts for ever: no end, no time limit."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.position.copy(), {}

    def step(self, action):
        self.position = 0.9 * self.position + 0.1 * float(action[0])
        return self.position.copy(), -float(np.square(self.position).sum()), False, False, {}


def endless() -> gym.Env:
    return Endless()


class Breaking(Endless):
    """Raises in its 20th step."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 20:
            raise RuntimeError("the simulator [broke]")
        return super().step(action)


def breaking() -> gym.Env:
    return Breaking()
