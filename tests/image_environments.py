"""Environments that are seen: a light that the agent must answer, as pictures, stacks and mixtures."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SIDE, LIMIT = 20, 16


class Light(gym.Env):
    """A lamp is lit on the left or on the right; the action that names its side earns 1. Frames are noisy."""

    def __init__(self, form="stack", side=SIDE):
        self.form, self.side = form, side
        self.frame_shape = (side, side)
        picture = {
            "stack": spaces.Box(0, 255, (3, side, side), np.uint8),
            "picture": spaces.Box(0, 255, (side, side, 3), np.uint8),
        }
        mixed = {
            "camera": picture["picture"],
            "noise": spaces.Box(-np.inf, np.inf, (2,)),
            "step": spaces.Discrete(LIMIT + 1),
        }
        self.observation_space = {**picture, "mixture": spaces.Dict(mixed)}[form]
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        first = self._frame()
        self.frames = [first] * 3
        return self._seen(), {}

    def step(self, action):
        reward = float(action == self.lit)
        self.steps += 1
        self.frames = [*self.frames[1:], self._frame()]
        return self._seen(), reward, False, self.steps == LIMIT, {}

    def snapshot(self):
        return self.steps, self.lit, self.frames

    def restore(self, snapshot):
        self.steps, self.lit, self.frames = snapshot

    def _frame(self):
        self.lit = int(self.np_random.integers(2))
        frame = self.np_random.integers(0, 60, self.frame_shape, dtype=np.uint8)
        half = self.side // 2
        frame[:, half * self.lit : half * (self.lit + 1)] += 180
        return frame

    def _seen(self):
        if self.form == "stack":
            return np.stack(self.frames)
        picture = np.stack([self.frames[-1]] * 3, axis=-1)
        if self.form == "picture":
            return picture
        noise = self.np_random.normal(5.0, 100.0, 2).astype(np.float32)
        return {"camera": picture, "noise": noise, "step": self.steps}


class Remembered(Light):
    """The lamp is lit in the first frame alone; whichever side it was is the answer to all that follow."""

    def _frame(self):
        if self.steps == 0:
            return super()._frame()
        return self.np_random.integers(0, 60, self.frame_shape, dtype=np.uint8)
