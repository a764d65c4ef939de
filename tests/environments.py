"""Environments and helpers of the tests; `env.id=environments:<function>` names one of the functions."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from methods import mlp_policy

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.single_path import SinglePathScheme
from trpo_lightning.settings import RunSettings

TERMINATED, TRUNCATED, BOTH = "terminated", "truncated", "both"


class Counting(gym.Env):
    """Observes (seed, episode, step, last action); its episodes' lengths and ends are given and repeat.

    The reward of step k (from 1) of episode e is 100 * (e + 1) + k: never 0, and different for each transition.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, lengths, ends):
        self.lengths, self.ends = lengths, ends
        self.seed, self.episode = -1, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.seed, self.episode = seed, -1
        self.episode += 1
        self.count = 0
        return self._observation(np.zeros(2)), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.count += 1
        length, end = counting_schedule(self.lengths, self.ends, self.episode)
        over = self.count == length
        assert self.count <= length
        reward = 100.0 * (self.episode + 1) + self.count
        flags = over and end in (TERMINATED, BOTH), over and end in (TRUNCATED, BOTH)
        return self._observation(action), reward, *flags, {}

    def _observation(self, action):
        return np.array([self.seed, self.episode, self.count, *action], dtype=np.float64)


def counting_schedule(lengths, ends, episode):
    return lengths[episode % len(lengths)], ends[episode % len(ends)]


def counting(lengths=(3, 1, 4), ends=(TERMINATED, TRUNCATED)):
    return Counting(lengths, ends)


class OneStep(gym.Env):
    """Any spaces: random observations from the seed, reward 1, never an end; remembers the actions it was given."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action)), action
        return self.observation_space.sample(), 1.0, False, False, {}


VECTOR = spaces.Box(-1.0, 1.0, (2,), np.float32)

OBSERVATION_SPACES = {
    "box_2d": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "box_scalar": spaces.Box(-1.0, 1.0, (), np.float64),
    "box_bytes": spaces.Box(0, 255, (4,), np.uint8),
    "discrete": spaces.Discrete(5),
    "discrete_start": spaces.Discrete(5, start=-2),
    "multi_binary": spaces.MultiBinary((2, 2)),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
    "tuple": spaces.Tuple((VECTOR, spaces.Discrete(3), spaces.MultiBinary(2))),
    "dict": spaces.Dict({"z": VECTOR, "a": spaces.Discrete(4), "m": spaces.Dict({"y": spaces.Box(0.0, 1.0, (1, 2))})}),
}

ACTION_SPACES = {
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "box_2d": spaces.Box(np.array([[-1.0, 0.0], [2.0, -3.0]]), np.array([[0.0, 1.0], [3.0, 3.0]]), dtype=np.float64),
    "box_scalar": spaces.Box(-0.5, 0.5, (), np.float32),
    "box_unbounded": spaces.Box(-np.inf, np.inf, (1,), np.float32),
    "discrete": spaces.Discrete(4),
    "discrete_start": spaces.Discrete(3, start=-1),
    "multi_discrete": spaces.MultiDiscrete([2, 5, 3]),
    "multi_discrete_start": spaces.MultiDiscrete([2, 3], start=[10, -1]),
    "multi_discrete_2d": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    "multi_binary": spaces.MultiBinary(3),
    "multi_binary_2d": spaces.MultiBinary((2, 3)),
}

UNSUPPORTED_OBSERVATIONS = {
    "own_kind": spaces.Dict({"mission": spaces.Space(dtype=str), "direction": spaces.Discrete(4)}),
    "graph": spaces.Graph(spaces.Box(0.0, 1.0, (2,)), None),
    "sequence": spaces.Dict({"a": VECTOR, "b": spaces.Sequence(spaces.Discrete(2))}),
    "film": spaces.Tuple((VECTOR, spaces.Box(0, 255, (4, 8, 8, 3), np.uint8))),
}

UNSUPPORTED_ACTIONS = {
    "box_of_integers": spaces.Box(0, 5, (2,), np.int64),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))),
    "dict": spaces.Dict({"a": spaces.Discrete(2)}),
    "text": spaces.Text(5),
}


def with_observations(name):
    return OneStep({**OBSERVATION_SPACES, **UNSUPPORTED_OBSERVATIONS}[name], spaces.Discrete(2))


def with_actions(name):
    return OneStep(VECTOR, {**ACTION_SPACES, **UNSUPPORTED_ACTIONS}[name])


class Echo(gym.Env):
    """Three steps from one state whatever the seed; the reward is the action: returns show the policy's noise."""

    observation_space = VECTOR
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(2, dtype=np.float32), float(action[0]), self.count == 3, False, {}


def echo():
    return Echo()


class Walk(gym.Env):
    """A walk by a fifth of the action until it is beyond +-1: episodes' lengths and returns are the policy's alone."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.count = 0.0
        return np.zeros(2), {}

    def step(self, action):
        self.count += 1.0
        self.x += 0.2 * float(action[0])
        return np.array([self.x, self.count]), 1.0 + self.x, abs(self.x) > 1.0, False, {}


def walk():
    return Walk()


def no_environment():
    return "not an environment"


def broken():
    raise RuntimeError("two\nlines")


def policy_for(settings: RunSettings, spec: EnvironmentSpec, seed: int = 0) -> Policy:
    return mlp_policy(
        spec.observation_shape,
        spec.actions,
        hidden_sizes=settings.policy.hidden_sizes,
        activation=settings.policy.activation,
        initial_log_std=settings.policy.initial_log_std,
        generator=torch.Generator().manual_seed(seed),
    )


def no_proposals(policy, iteration):
    raise AssertionError("single path asks for no candidates")


def collector_for(settings: RunSettings) -> tuple[SinglePathScheme, Policy, Normalizer]:
    spec = describe_environment(settings.env)
    normalizer = Normalizer(spec.observation_shape, settings.normalize)
    return SinglePathScheme(settings, spec, 1, no_proposals), policy_for(settings, spec), normalizer
