"""Snapshots: futures after a restore are the same, bit for bit, in the same and in another instance."""

from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from environments import OBSERVATION_SPACES, OneStep

from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.environments.snapshots import Restorable
from trpo_lightning.errors import UserError
from trpo_lightning.settings import EnvSettings

IDS = [
    *("Hopper-v5", "Walker2d-v5", "Swimmer-v5", "Ant-v5", "Humanoid-v5", "Reacher-v5"),
    *("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"),
    *("FrozenLake-v1", "Taxi-v4", "Blackjack-v1"),
    *("CartPole1983-v0", "Walker2015-v0"),
]


def make(env_id):
    return make_one(EnvSettings(id=env_id))


def actions_of(env, count, seed=0):
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(count)]


def future(env, actions):
    """What these actions lead to, through the ends of episodes; numbers in order."""
    found, over = [], False
    for action in actions:
        if over:
            observation, over = env.reset()[0], False
            found.append(gym.spaces.flatten(env.observation_space, observation))
            continue
        observation, reward, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
        found += [gym.spaces.flatten(env.observation_space, observation), [reward, terminated, truncated]]
    return np.concatenate(found)


def assert_restores(env, other, env_id, before=7, steps=45):
    """Snapshot after `before` steps; compare futures of the original, of itself restored, and of another instance."""
    env.reset(seed=3)
    other.reset(seed=4)
    future(other, actions_of(env, 11, seed=5))  # in the middle of something else
    future(env, actions_of(env, before, seed=1))
    actions = actions_of(env, steps, seed=2)
    mine, others = Restorable(env, env_id), Restorable(other, env_id)
    snapshot = mine.snapshot()
    expected = future(env, actions)
    for restorable in (mine, others, mine, others):
        restorable.restore(snapshot)
        np.testing.assert_array_equal(future(restorable.env, actions), expected)


@pytest.mark.parametrize("env_id", IDS)
def test_futures_after_a_restore_are_bit_identical_also_after_the_episode_s_end(env_id):
    env, other = (make_one(EnvSettings(id=env_id, max_episode_steps=23)) for _ in range(2))
    assert_restores(env, other, env_id)


def test_the_time_limit_counts_on_from_where_the_snapshot_was_taken():
    env, other = (make_one(EnvSettings(id="Pendulum-v1", max_episode_steps=10)) for _ in range(2))
    env.reset(seed=0)
    other.reset(seed=0)
    future(env, actions_of(env, 6))
    Restorable(other, "Pendulum-v1").restore(Restorable(env, "Pendulum-v1").snapshot())
    ends = [other.step(action)[3] for action in actions_of(env, 4)]
    assert ends == [False, False, False, True]


def test_a_snapshot_does_not_change_with_the_environment_it_was_taken_from():
    env = make("Humanoid-v5")
    env.reset(seed=0)
    restorable = Restorable(env, "Humanoid-v5")
    snapshot = restorable.snapshot()
    actions = actions_of(env, 20)
    first = future(env, actions)
    env.reset(seed=9)
    restorable.restore(snapshot)
    np.testing.assert_array_equal(future(env, actions), first)


class Sticky(gym.Wrapper):
    """Repeats the last action at times: state and random numbers of its own, and a reference past its own layer."""

    def __init__(self, env):
        super().__init__(env)
        self.generator, self.core, self.last = np.random.default_rng(0), env.unwrapped, None

    def step(self, action):
        if self.last is None or self.generator.random() < 0.5:
            self.last = action
        observation, reward, *rest = self.env.step(self.last)
        return observation, reward + float(self.core.state[0]), *rest


def test_state_and_random_numbers_of_wrappers_are_restored():
    def make_wrapped():
        env = gym.wrappers.FrameStackObservation(make("CartPole-v1"), 3)
        return gym.wrappers.NormalizeObservation(Sticky(env))

    assert_restores(make_wrapped(), make_wrapped(), "wrapped")


class WithMethods(gym.Env):
    """A walk with noise whose position is where no copy of attributes can find it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    positions: ClassVar[dict] = {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.positions[id(self)] = self.np_random.normal()
        return np.array([self.positions[id(self)]]), {}

    def step(self, action):
        self.positions[id(self)] += float(action[0]) + self.np_random.normal()
        position = self.positions[id(self)]
        return np.array([position]), position, abs(position) > 5.0, False, {}

    def snapshot(self):
        return self.positions[id(self)]

    def restore(self, snapshot):
        self.positions[id(self)] = snapshot


def test_an_environment_s_own_methods_are_used_and_its_generator_is_seen_to():
    env, other = gym.wrappers.TimeLimit(WithMethods(), 9), gym.wrappers.TimeLimit(WithMethods(), 9)
    assert_restores(env, other, "own")


def test_an_environment_that_cannot_be_restored_is_named():
    env = OneStep(OBSERVATION_SPACES["discrete"], gym.spaces.Discrete(2))
    with pytest.raises(UserError, match=r"env\.id=mine:env cannot be restored .* give OneStep methods snapshot\(\)"):
        Restorable(env, "mine:env")


def test_an_attribute_that_cannot_be_copied_is_an_error_that_names_the_environment():
    env = make("CartPole-v1")
    env.reset(seed=0)
    env.unwrapped.handle = (number for number in range(3))
    with pytest.raises(UserError, match=r"env\.id=CartPole-v1 cannot be copied .*generator"):
        Restorable(env, "CartPole-v1").snapshot()
