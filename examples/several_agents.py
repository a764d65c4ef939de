"""Agents that share a world, as one environment: one policy sees what all of them see and acts for all.

In this folder:

$ python -m trpo_lightning train env.id=several_agents:make total_env_steps=40_000 name=meeting

`Joint` takes any environment with PettingZoo's parallel interface:

    def make():
        return Joint(multiwalker_v9.parallel_env())
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Joint(gym.Env):
    """Observes a Dict of the agents' observations; the reward is the sum of theirs.

    Actions are one MultiDiscrete, where all agents' are Discrete, or one Box, where all are Boxes. An agent that is
    gone keeps its last observation, and what is done for it has no effect. The episode ends when all of them are gone.
    """

    def __init__(self, world: Any) -> None:
        self.world, self.agents = world, list(world.possible_agents)
        self.observation_space = spaces.Dict([(agent, world.observation_space(agent)) for agent in self.agents])
        parts = [world.action_space(agent) for agent in self.agents]
        if all(isinstance(part, spaces.Discrete) for part in parts):
            numbers, starts = ([int(getattr(part, name)) for part in parts] for name in ("n", "start"))
            self.action_space = spaces.MultiDiscrete(numbers, start=starts)
            self._sizes = [1] * len(parts)
        elif all(isinstance(part, spaces.Box) for part in parts):
            low, high = (np.concatenate([getattr(part, name).ravel() for part in parts]) for name in ("low", "high"))
            self.action_space = spaces.Box(low, high, dtype=low.dtype)
            self._sizes = [int(np.prod(part.shape)) for part in parts]
        else:
            raise ValueError(f"actions of all agents must be Discrete, or all Boxes, not {parts}")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begin an episode in which every agent is there."""
        super().reset(seed=seed)
        observations, _ = self.world.reset(seed=seed, options=options)
        self._seen = dict(observations)
        return dict(self._seen), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """All agents that are still there act at once."""
        chosen = dict(zip(self.agents, np.split(action, np.cumsum(self._sizes)[:-1]), strict=True))
        actions = {agent: self._of_one(agent, chosen[agent]) for agent in self.world.agents}
        observations, rewards, _, truncations, _ = self.world.step(actions)
        self._seen |= observations
        over, cut = not self.world.agents, any(truncations.values())
        return dict(self._seen), float(sum(rewards.values())), over and not cut, over and cut, {}

    def close(self) -> None:
        """Close the world."""
        self.world.close()

    def _of_one(self, agent: str, part: np.ndarray) -> Any:
        space = self.world.action_space(agent)
        return int(part[0]) if isinstance(space, spaces.Discrete) else part.reshape(space.shape)


class Meeting:
    """Two agents on a line, which see where both are and step left or right; they gain by being close.

    It has the parallel interface of PettingZoo, and needs no package.
    """

    possible_agents = ("left", "right")

    def observation_space(self, agent: str) -> spaces.Space:
        """Where this one is, and by how much the other is further right."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def action_space(self, agent: str) -> spaces.Space:
        """A step to the left, none, or one to the right."""
        return spaces.Discrete(3, start=-1)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begin apart from each other."""
        if seed is not None or not hasattr(self, "random"):
            self.random = np.random.default_rng(seed)
        self.place = {"left": self.random.uniform(-2, -1), "right": self.random.uniform(1, 2)}
        self.agents, self.time = list(self.possible_agents), 0
        return self._look(), {}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Move both; 20 steps are an episode."""
        for agent, action in actions.items():
            self.place[agent] += 0.2 * action
        self.time += 1
        distance, over = abs(self.place["left"] - self.place["right"]), self.time == 20
        rewards = dict.fromkeys(self.agents, -distance)
        ends = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, over)
        observations = self._look()
        self.agents = [] if over else self.agents
        return observations, rewards, *ends, {}

    def close(self) -> None:
        """Nothing is open."""

    def _look(self) -> dict[str, np.ndarray]:
        left, right = self.place["left"], self.place["right"]
        return {"left": np.array([left, right - left]), "right": np.array([right, left - right])}


def make() -> gym.Env:
    """Both agents as one environment."""
    return Joint(Meeting())
