"""An environment whose steps take as long as `SECONDS_PER_STEP` says, with the same numbers whatever that is."""

import os
import time

import gymnasium as gym


class SlowCartPole(gym.Wrapper):
    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.seconds = float(os.environ.get("SECONDS_PER_STEP", "0"))

    def step(self, action):
        time.sleep(self.seconds)
        return self.env.step(action)
