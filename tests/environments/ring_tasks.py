"""Environments as people write them, from tutorials that everybody starts with, and as they wrap those of packages."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

TASKS = ("grid_world", "grid_world_relative", "trading", "navigation")
"""Functions of this module that need no package."""
OF_PACKAGES = {
    "dm_control_by_hand": "dm_control",
    "dm_control_unwrapped": "dm_control",
    "multiwalker": "pettingzoo",
    "pursuit": "pettingzoo",
    "pettingzoo_parallel": "pettingzoo",
    "pettingzoo_turns": "pettingzoo",
    "supersuit_vector": "supersuit",
    "supersuit_on_gymnasium": "supersuit",
}
"""Functions of this module, each with the package that it needs."""
MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


class GridWorld(gym.Env):
    """An agent looks for a target in a grid, both seen as pairs of integers in a Dict."""

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, render_mode=None, size=5):
        self.size, self.render_mode = size, render_mode
        corner = spaces.Box(0, size - 1, shape=(2,), dtype=int)
        self.observation_space = spaces.Dict({"agent": corner, "target": spaces.Box(0, size - 1, (2,), dtype=int)})
        self.action_space = spaces.Discrete(4)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.agent = self.target = self.np_random.integers(0, self.size, size=2, dtype=int)
        while np.array_equal(self.agent, self.target):
            self.target = self.np_random.integers(0, self.size, size=2, dtype=int)
        return self._observation(), self._info()

    def step(self, action):
        self.agent = np.clip(self.agent + MOVES[action], 0, self.size - 1)
        found = np.array_equal(self.agent, self.target)
        return self._observation(), 1 if found else 0, found, False, self._info()

    def _observation(self):
        return {"agent": self.agent, "target": self.target}

    def _info(self):
        return {"distance": np.linalg.norm(self.agent - self.target, ord=1)}


class RelativePosition(gym.ObservationWrapper):
    """Where the target is from here."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(shape=(2,), low=-np.inf, high=np.inf)

    def observation(self, observation):
        return observation["target"] - observation["agent"]


def grid_world(size=5):
    return GridWorld(size=size)


def grid_world_relative(size=5):
    return RelativePosition(gym.wrappers.TimeLimit(GridWorld(size=size), 50))


class Trading(gym.Env):
    """Buy, hold or sell one stock: a Dict of a window of prices, the position, and plain numbers."""

    observation_space = spaces.Dict(
        {
            "prices": spaces.Box(0, np.inf, (8, 2), np.float32),
            "position": spaces.Discrete(3, start=-1),
            "balance": spaces.Box(-np.inf, np.inf, (), np.float64),
            "open": spaces.MultiBinary(2),
        }
    )
    action_space = spaces.Discrete(3)

    def __init__(self, fee=0.001):
        self.fee = fee

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        steps = self.np_random.normal(0, 0.01, (80, 2))
        self.prices = 100 * np.exp(np.cumsum(steps, axis=0))  # float64, as NumPy makes it
        self.time, self.position, self.balance = 8, 0, 0.0
        return self._observation(), {}

    def step(self, action):
        wanted = int(action) - 1
        change = self.prices[self.time, 0] / self.prices[self.time - 1, 0] - 1
        reward = np.float32(wanted * change - self.fee * abs(wanted - self.position))
        self.position, self.balance, self.time = wanted, self.balance + reward, self.time + 1
        ruined = self.balance < -0.5
        return self._observation(), reward, ruined, self.time == len(self.prices), {"balance": self.balance}

    def _observation(self):
        return {
            "prices": self.prices[self.time - 8 : self.time],
            "position": self.position,
            "balance": self.balance,
            "open": [self.time % 2, 1],
        }


def trading(fee=0.001):
    return Trading(fee)


class Navigation(gym.Env):
    """A point that is pushed to a goal between obstacles; what it sees is a float64 of its own shape."""

    observation_space = spaces.Box(-10, 10, (3, 2), np.float32)
    action_space = spaces.Box(-2, 2, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-5, 5, (2, 2))
        return np.stack([self.place, self.goal, self.goal - self.place]), {}

    def step(self, action):
        self.place = np.clip(self.place + 0.2 * action, -10, 10)
        distance = np.linalg.norm(self.goal - self.place)
        observation = np.stack([self.place, self.goal, self.goal - self.place])
        return observation, -distance, bool(distance < 0.3), False, {"distance": distance}


def navigation():
    """As stacks of wrappers grow."""
    env = gym.wrappers.TimeLimit(Navigation(), 100)
    env = gym.wrappers.RecordEpisodeStatistics(env)
    env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    env = gym.wrappers.ClipAction(env)
    env = gym.wrappers.FlattenObservation(env)
    env = gym.wrappers.FrameStackObservation(env, 3)
    env = gym.wrappers.RescaleObservation(env, np.float32(-1), np.float32(1))
    return gym.wrappers.TransformReward(env, lambda reward: 0.1 * reward)


def dm_control_unwrapped():
    from dm_control import suite

    return suite.load("cartpole", "swingup")


def dm_control_by_hand():
    from shimmy import DmControlCompatibilityV0

    return gym.wrappers.FlattenObservation(DmControlCompatibilityV0(dm_control_unwrapped()))


def pettingzoo_parallel():
    from pettingzoo.sisl import multiwalker_v9

    return multiwalker_v9.parallel_env()


def pettingzoo_turns():
    from pettingzoo.sisl import multiwalker_v9

    return multiwalker_v9.env()


def multiwalker():
    """Agents with Boxes of actions, through SuperSuit and as one environment."""
    from several_agents import Joint
    from supersuit import clip_actions_v0, frame_stack_v1

    return Joint(frame_stack_v1(clip_actions_v0(pettingzoo_parallel()), 2))


def pursuit():
    """Agents with Discrete actions."""
    from pettingzoo.sisl import pursuit_v5
    from several_agents import Joint

    return Joint(pursuit_v5.parallel_env(n_pursuers=3, max_cycles=60))


def supersuit_vector():
    from supersuit import concat_vec_envs_v1, pettingzoo_env_to_vec_env_v1

    return concat_vec_envs_v1(
        pettingzoo_env_to_vec_env_v1(pettingzoo_parallel()), 2, num_cpus=0, base_class="gymnasium"
    )


def supersuit_on_gymnasium():
    from supersuit import clip_actions_v0, frame_stack_v1

    return clip_actions_v0(frame_stack_v1(gym.make("Pendulum-v1"), 3))
