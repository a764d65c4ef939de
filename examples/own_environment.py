"""A custom environment: a function that returns a `gymnasium.Env`, named as `module:function`.

In this folder:

$ python -m trpo_lightning train env.id=own_environment:make env.kwargs.outside=-5 total_env_steps=40_000 \
    name=thermostat
$ python -m trpo_lightning evaluate runs/train/own_environment_make/thermostat/seed_0 --video

A heater keeps a room at the wanted temperature, at little cost.
"""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit


class Thermostat(gym.Env):
    """Observes by how much the room is too cold, and its last change, in degrees. The action is the heater's power."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = Box(-np.inf, np.inf, shape=(2,), dtype=np.float64)
    action_space = Box(0.0, 5.0, shape=(1,), dtype=np.float32)

    def __init__(self, outside: float, wanted: float, render_mode: str | None = None) -> None:
        self.outside, self.wanted, self.render_mode = outside, wanted, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode in a room that is too cold or too warm."""
        super().reset(seed=seed)  # all randomness comes from self.np_random, which makes runs reproducible
        self.room = self.wanted + self.np_random.uniform(-8.0, 8.0)
        return np.array([self.wanted - self.room, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Heat for a minute."""
        power = float(action[0])  # within the action space: actions are clipped to it before they get here
        change = 0.05 * (self.outside - self.room) + power + self.np_random.normal(0.0, 0.1)
        self.room += change
        cold = self.wanted - self.room
        frozen = self.room < 0.0  # terminated: nothing follows, so the value is 0
        return np.array([cold, change]), -abs(cold) - 0.1 * power, frozen, False, {}

    def render(self) -> np.ndarray:
        """Draw a thermometer of 40 degrees, with a white line at the wanted temperature."""
        picture = np.full((160, 64, 3), 40, np.uint8)
        height, wanted = (int(np.clip(4 * degrees, 2, 158)) for degrees in (self.room, self.wanted))
        picture[160 - height :, 20:44] = 220, 60, 40
        picture[158 - wanted : 160 - wanted, 10:54] = 255
        return picture


def make(outside: float = 5.0, wanted: float = 20.0, render_mode: str | None = None) -> gym.Env:
    """Make the room, for 100 steps; the keys of `env.kwargs` are the arguments."""
    return TimeLimit(Thermostat(outside, wanted, render_mode), max_episode_steps=100)
