"""What is refused or said before training, because it would spoil it in silence."""

import gymnasium as gym
import numpy as np
import pytest
from environments import VECTOR, OneStep
from gymnasium import spaces

from trpo_lightning import TRPO, UserError
from trpo_lightning.environments.cautions import cautions
from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.policies.spaces import ContinuousActions
from trpo_lightning.settings import RunSettings, from_keywords

SMALL = dict(num_envs=2, steps_per_iteration=8, policy={"hidden_sizes": [4]}, value={"hidden_sizes": [4]}, threads=1)


def one_step():
    return OneStep(VECTOR, spaces.Discrete(2))


@pytest.mark.parametrize(
    ("wrapper", "setting"),
    [
        (gym.wrappers.NormalizeObservation, "normalize.observations=true"),
        (gym.wrappers.NormalizeReward, "normalize.rewards=true"),
        (lambda env: gym.wrappers.ClipReward(gym.wrappers.NormalizeReward(env), -10, 10), "normalize.rewards=true"),
    ],
)
def test_running_statistics_of_gymnasiums_wrappers_are_refused_with_the_setting_that_does_the_same(wrapper, setting):
    with pytest.raises(UserError, match=rf"its wrapper Normalize\w+ keeps running statistics.*{setting}"):
        TRPO(lambda: wrapper(one_step()), **SMALL)


class RunningMeanStd:
    mean, var, count = 0.0, 1.0, 1e-4


class RunningStat:
    """Of Schulman's code, and of many that began with it."""

    def __init__(self):
        self._n, self._mean, self._squares = 0, np.zeros(2), np.zeros(2)

    n = property(lambda self: self._n)
    mean = property(lambda self: self._mean)
    std = property(lambda self: np.sqrt(self._squares / max(self._n - 1, 1)))


class ZFilter:
    def __init__(self):
        self.rs = RunningStat()


class Moody:
    """Cannot be asked."""

    @property
    def mean(self):
        raise ValueError("not yet")


class Holding(gym.Wrapper):
    def __init__(self, env, held):
        super().__init__(env)
        self.held = held


@pytest.mark.parametrize(("held", "said"), [(RunningMeanStd(), 1), (ZFilter(), 1), (Moody(), 0), (np.zeros(3), 0)])
def test_running_statistics_of_someone_elses_are_said(held, said):
    module = TRPO(lambda: Holding(one_step(), held), **SMALL)
    lines = cautions(module.settings, module.spec)
    assert len(lines) == said and all("Holding keeps running statistics" in line for line in lines)


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda env: gym.wrappers.FrameStackObservation(env, 3),
        gym.wrappers.RecordEpisodeStatistics,
        gym.wrappers.TimeAwareObservation,
        lambda env: gym.wrappers.DelayObservation(env, 2),
        gym.wrappers.Autoreset,
        gym.wrappers.FlattenObservation,
    ],
)
def test_wrappers_whose_state_ends_with_the_episode_pass(wrapper):
    module = TRPO(lambda: wrapper(gym.wrappers.TimeLimit(one_step(), 5)), **SMALL)
    assert cautions(module.settings, module.spec) == []


def said_of(low, high, std=1.0):
    low, high = np.atleast_1d(low), np.atleast_1d(high)
    box = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    spec = EnvironmentSpec((2,), ContinuousActions(len(low)), None, "gymnasium", (VECTOR, box))
    policy = {"initial_log_std": float(np.log(std))}
    assert cautions(from_keywords(policy=policy), spec) == []  # scaled actions are the same everywhere
    return cautions(from_keywords(policy=policy, scale_actions=False), spec)


@pytest.mark.parametrize(
    ("low", "high"), [(-1, 1), (-0.4, 0.4), (-3, 3), (-10, 10), (0, 1), (-np.inf, np.inf), (0, np.inf), (1, 1)]
)
def test_usual_ranges_of_actions_pass(low, high):
    assert said_of(low, high) == []


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, 1000, r"\[0, 1000\].*within 0% of them"),
        (100, 101, r"\[100, 101\].*within 0% of them"),
        (-0.01, 0.01, r"\[-0.01, 0.01\].*nearly always at a bound"),
        ([-1, 0], [1, 255], r"\[0, 255\]"),
    ],
)
def test_ranges_far_from_the_first_policys_are_said_with_the_setting_that_helps(low, high, said):
    import re

    (line,) = said_of(low, high)
    assert re.search(said, line) and "set env.scale_actions=true" in line


def test_a_wider_policy_reaches_a_wider_range():
    assert said_of(-20, 20) and said_of(-20, 20, std=3.0) == []


def test_discrete_actions_and_unknown_spaces_have_no_range():
    spec = EnvironmentSpec((2,), ContinuousActions(1), None, "gymnasium")
    assert cautions(RunSettings(), spec) == []
