"""`env.wrappers`: wrappers that settings name."""

import re

import gymnasium as gym
import numpy as np
import pytest
from environments import UNSUPPORTED_OBSERVATIONS, OneStep
from gymnasium import spaces

from trpo_lightning import UserError, load
from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.environments.spaces import check_observations
from trpo_lightning.environments.supervised.workers import make_worker
from trpo_lightning.environments.user_code import adopt
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.evaluate import evaluate_run
from trpo_lightning.runs.run import train_run
from trpo_lightning.settings import EnvSettings

FLATTEN, TIME = "gymnasium.wrappers:FlattenObservation", "gymnasium.wrappers:TimeAwareObservation"


class WithoutMission(gym.ObservationWrapper):
    """Leaves out the part that is no vector."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Dict({"direction": env.observation_space["direction"]})

    def observation(self, observation):
        return {"direction": observation["direction"]}


class Mission(OneStep):
    """Like a grid world whose agent gets a sentence."""

    def __init__(self):
        super().__init__(UNSUPPORTED_OBSERVATIONS["own_kind"], spaces.Discrete(2))

    def reset(self, *, seed=None, options=None):
        gym.Env.reset(self, seed=seed)
        return {"mission": "go", "direction": 1}, {}

    def step(self, action):
        return {"mission": "go", "direction": 2}, float(action), True, False, {}


def loses_it(env):
    return "an environment"


def settings(*wrappers, **more):
    return EnvSettings(**{"id": "CartPole-v1", "max_episode_steps": 7, **more}, wrappers=list(wrappers))


def test_the_first_is_innermost_and_all_are_outside_of_the_time_limit():
    env = make_one(settings(TIME, FLATTEN))
    layers = [type(env).__name__, type(env.env).__name__]
    assert layers == ["FlattenObservation", "TimeAwareObservation"] and env.observation_space.shape == (5,)
    env.reset(seed=0)
    assert any(env.step(0)[3] for _ in range(7))
    env.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_every_environment_has_them_and_so_has_the_policys_space(asynchronous):
    mine = settings(f"{__name__}:WithoutMission", id=f"{__name__}:Mission", asynchronous=asynchronous)
    assert describe_environment(mine).observation_shape == (4,)
    envs = make_environments(mine, "gymnasium", [1, 2], 1)
    assert envs.reset().tolist() == [[0, 1, 0, 0]] * 2
    assert envs.step(np.ones((2, 1), dtype=np.int64))[1].tolist() == [1.0, 1.0]
    envs.close()


def test_a_run_with_them_is_resumed_evaluated_and_loaded(tmp_path):
    small = """env.num_envs=2 rollout.steps_per_iteration=16 policy.hidden_sizes=[4] value.hidden_sizes=[4] threads=1
        checkpoint.every=1 evaluation.episodes=2 tracking.wandb=disabled env.id=FrozenLake-v1""".split()
    arguments = [*small, f"env.wrappers=[{FLATTEN},{TIME}]"]
    train_run(load_settings([*arguments, "total_iterations=1"]), tmp_path, quiet=True)
    train_run(load_settings([*arguments, "total_iterations=2"]), tmp_path, resume=True, quiet=True)
    evaluate_run(tmp_path, "last", 1, 0, False)
    policy = load(tmp_path)
    env = make_one(policy.settings.env)
    assert env.observation_space.shape == (17,) and env.action_space.contains(policy.act(env.reset(seed=0)[0]))
    env.close()


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        ("FlattenObservation", "is not module:Class, such as gymnasium.wrappers:FlattenObservation"),
        ("gymnasium.wrappers:", "is not module:Class"),
        ("no_such_package.wrappers:Flat", "module no_such_package.wrappers cannot be imported"),
        ("gymnasium.wrappers:FrameStack", "has no FrameStack .*renamed with `wrappers.FrameStackObservation`"),
        (
            "gymnasium.wrappers:FrameStackObservation",
            "does not take env.id=CartPole-v1: TypeError: .*stack_size",
        ),
        (f"{__name__}:loses_it", "returned a str, not a gymnasium.Env"),
        (f"{__name__}:FLATTEN", "FLATTEN is a str: name a class or a function"),
        ("gymnasium.wrappers:NormalizeObservation", "normalize.observations=true does the same"),
    ],
)
def test_what_does_not_wrap_is_told_in_one_line(wrapper, said):
    with pytest.raises(UserError, match=said) as error:
        describe_environment(settings(wrapper))
    assert "\n" not in str(error.value)


def test_envpool_takes_none():
    pytest.importorskip("envpool")
    assert describe_environment(EnvSettings(id="CartPole-v1")).backend == "envpool"
    assert describe_environment(settings(TIME)).backend == "gymnasium"
    with pytest.raises(UserError, match=r"env\.wrappers=.* need env\.backend=gymnasium"):
        describe_environment(settings(TIME, backend="envpool"))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (UNSUPPORTED_OBSERVATIONS["own_kind"], "the part mission of its observation is a Space, .*returns vectors"),
        (UNSUPPORTED_OBSERVATIONS["film"], r"the part 1 of its observation has 4 axes .*\(channels, height, width\)"),
        (UNSUPPORTED_OBSERVATIONS["graph"], "its observation is a Graph"),
    ],
)
def test_observations_that_are_no_vectors_are_told_with_the_part_and_what_to_write(space, said):
    with pytest.raises(UserError, match=said):
        check_observations(space, "x")


def test_the_wrapper_that_the_message_names_mends_it():
    class Image(OneStep):
        def __init__(self):
            super().__init__(spaces.Box(0, 255, (7, 7, 3), np.uint8), spaces.Discrete(2))

    mine = EnvSettings(wrappers=[FLATTEN])
    adopt(Image, mine)
    assert describe_environment(mine).observation_shape == (147,)


class Breaks(gym.Wrapper):
    """Fails in a line of the user's file, where and when `FAILS` says."""

    def __init__(self, env):
        super().__init__(env)
        if FAILS["in"] == "__init__":
            raise KeyError("mass")

    def snapshot(self):
        return {}["a"] if FAILS["in"] == "snapshot" else 1

    def restore(self, snapshot):
        if FAILS["in"] == "restore":
            raise ValueError("no such state")

    def close(self):
        super().close()
        if FAILS["in"] == "close":
            raise OSError("gone")


FAILS = {"in": ""}


@pytest.mark.parametrize("method", ["__init__", "snapshot", "restore", "close"])
def test_a_failing_method_of_a_wrapper_is_one_line_that_names_file_and_line(method, monkeypatch, capsys):
    mine = settings(f"{__name__}:Breaks")
    monkeypatch.setitem(FAILS, "in", method)
    if method == "close":
        describe_environment(mine)
        said = capsys.readouterr().out
    else:
        with pytest.raises(UserError) as failure:
            worker = make_worker(mine)
            worker.env.reset(seed=0)
            worker.restore(worker.snapshot())
        said = str(failure.value) + "\n"
    assert "CartPole-v1" in said and re.search(r"test_wrappers\.py:\d+\)", said) and said.count("\n") == 1
