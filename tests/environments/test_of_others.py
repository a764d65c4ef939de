"""Environments as others write them and hand them over; what packages bring that are not here is in `ring.py`."""

import sys
from pathlib import Path
from typing import Generic, TypeVar

import gymnasium as gym
import numpy as np
import pytest
import ring_tasks
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from ring import Case, tried

from trpo_lightning import TRPO, UserError
from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.settings import EnvSettings

sys.path.append(str(Path(__file__).parents[2] / "examples"))
SMALL = dict(num_envs=2, steps_per_iteration=8, policy={"hidden_sizes": [4]}, value={"hidden_sizes": [4]}, threads=1)
FEW = "rollout.steps_per_iteration=32 checkpoint.every=1 evaluation.every=2 evaluation.episodes=1".split()

T = TypeVar("T")


class Scalars(gym.Env):
    """A Dict of numbers without a dimension among vectors, in float64, as shimmy makes it of dm_control's."""

    observation_space = spaces.Dict(
        {
            "height": spaces.Box(-np.inf, np.inf, (), np.float64),
            "touch": spaces.Box(0, 1, (1,), np.float64),
            "velocity": spaces.Box(-np.inf, np.inf, (3,), np.float64),
        }
    )
    action_space = spaces.Box(-1, 1, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observation(), {}

    def step(self, action):
        self.time += 1
        return self._observation(), np.float64(action.sum()), False, self.time == 5, {}

    def _observation(self):
        numbers = self.np_random.normal(size=5)
        return {"height": numbers[0], "touch": abs(numbers[1:2]) % 1, "velocity": numbers[2:]}


def scalars():
    return Scalars()


@pytest.mark.parametrize("env_id", [f"{__name__}:scalars", *(f"ring_tasks:{name}" for name in ring_tasks.TASKS)])
def test_environments_as_people_write_them_are_trained_resumed_evaluated_and_acted_in(env_id, tmp_path):
    assert tried(Case(env_id, "", tuple(FEW)), tmp_path / "run") == "works"


def test_agents_in_one_world_are_one_environment(tmp_path):
    assert tried(Case("several_agents:make", "", tuple(FEW)), tmp_path / "run") == "works"


def test_joint_actions_reach_the_agent_that_they_are_for():
    from several_agents import Joint, Meeting

    world = Meeting()
    env = Joint(world)
    env.reset(seed=3)
    before = dict(world.place)
    _, reward, terminated, truncated, _ = env.step(np.array([1, -1]))
    assert world.place["left"] == before["left"] + 0.2 and world.place["right"] == before["right"] - 0.2
    assert reward == pytest.approx(-2 * abs(world.place["left"] - world.place["right"]))
    ends = [env.step(np.array([0, 0]))[2:4] for _ in range(19)]
    assert not (terminated or truncated) and ends == [(False, False)] * 18 + [(False, True)]


class Turns:
    """PettingZoo's other interface, in which agents act one after another."""

    possible_agents = ("a", "b")

    def step(self, action):
        pass


class Agents(gym.vector.VectorEnv):
    """Agents of one world as a vector environment, as SuperSuit makes it."""

    num_envs = 2
    observation_space = single_observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = single_action_space = spaces.Discrete(2)


class Stacked:
    """Stable-Baselines3's kind of vector environment, which is none of gymnasium's."""

    num_envs = 4

    def step_async(self, actions):
        pass


class Spec:
    """dm_env's interface."""

    def observation_spec(self):
        return {}

    def step(self, action):
        pass


class Env(Generic[T]):
    __module__ = "gym.core"

    def step(self, action):
        pass


class OldTask(Env[int]):
    """An environment of gym 0.26, whose base is generic."""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Turns, r"it has several agents, .*Joint in examples/several_agents\.py"),
        (Agents, r"env\.num_envs of them are stepped together.*agents in one world, .*Joint"),
        (Stacked, r"env\.num_envs of them are stepped together"),
        (Spec, r"shimmy\.DmControlCompatibilityV0\(env\)"),
        (OldTask, r"GymV26Environment of shimmy"),
    ],
)
def test_what_has_another_interface_is_told_how_it_gets_gymnasiums(kind, said):
    for given in (kind(), lambda: kind()):
        with pytest.raises(UserError, match=said) as error:
            TRPO(given, **SMALL)
        assert "\n" not in str(error.value)


def test_an_id_of_a_vector_environment_alone_says_so(monkeypatch):
    spec = EnvSpec("mine/Many-v0", vector_entry_point=lambda num_envs=1: Agents())
    monkeypatch.setitem(gym.registry, spec.id, spec)
    with pytest.raises(UserError, match=r"env\.id=mine/Many-v0 is registered as a vector environment only"):
        describe_environment(EnvSettings(id="mine/Many-v0"))


class OldReset(Scalars):
    """As gym had it before 0.26."""

    def reset(self):
        return super().reset()


def test_a_reset_without_gymnasiums_keywords_is_told_with_them():
    envs = make_environments(EnvSettings(id=f"{__name__}:OldReset"), "gymnasium", [1], 1)
    with pytest.raises(UserError, match=r"environment 0 .*keyword argument 'seed' \(give it .*seed=None, options=None"):
        envs.reset()
    envs.close()


def needy(task, *, size):
    return Scalars()


def test_arguments_that_are_lacking_are_told_as_keys():
    with pytest.raises(UserError, match=r"\(give env\.kwargs\.task=\.\.\.\)"):
        describe_environment(EnvSettings(id=f"{__name__}:needy"))
    with pytest.raises(UserError, match=r"\(give env\.kwargs\.size=\.\.\.\)"):
        describe_environment(EnvSettings(id=f"{__name__}:needy", kwargs={"task": 1}))
