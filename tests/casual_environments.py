"""Environments that draw from generators which all code of a process shares, as many that people write do."""

import random

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces


class Casual(gym.Env):
    """Five steps; observations, rewards and even its construction come from the global generators."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.offset = np.random.rand()

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        reward = self.offset + random.random() + float(torch.rand(()))
        return np.random.uniform(-1, 1, 2).astype(np.float32), reward, self.t >= 5, False, {}


class Forgetful(gym.Env):
    """Draws from `np_random`, and does not call gymnasium's reset, which would seed it."""

    observation_space, action_space = spaces.Box(0, 1, (2,), np.float64), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.np_random.random(2), {}

    def step(self, action):
        self.t += 1
        return self.np_random.random(2), self.np_random.random(), self.t >= 5, False, {}


class SpaceSampler(gym.Env):
    """Samples from its spaces, which it never seeds."""

    def __init__(self):
        self.observation_space, self.action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), float(self.action_space.sample()), self.t >= 5, False, {}
