"""Environments of the user's own: objects given to `TRPO`, and modules that are broken."""

import functools
import sys

import gymnasium as gym
import numpy as np
import pytest
from environments import OneStep
from gymnasium import spaces

from trpo_lightning import TRPO, UserError
from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.environments.user_code import OBJECTS, adopt
from trpo_lightning.settings import EnvSettings

SMALL = dict(num_envs=2, steps_per_iteration=8, policy={"hidden_sizes": [4]}, value={"hidden_sizes": [4]}, threads=1)


class Task(gym.Env):
    """Two steps; remembers what becomes of it."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)
    closed = False

    def __init__(self, bonus=0.0):
        self.bonus, self.resets = bonus, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets, self.count = self.resets + 1, 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(3, np.float32), self.bonus, self.count == 2, False, {}

    def close(self):
        self.closed = True


class Holder:
    class Inner(Task):
        pass

    @staticmethod
    def make():
        return Task()


def make_task(bonus=0.0):
    return Task(bonus)


def rewards_of(settings, seeds=(1, 2)):
    envs = make_environments(settings, "gymnasium", list(seeds), 1)
    envs.reset()
    rewards = envs.step(np.zeros((len(seeds), 1), dtype=np.int64))[1]
    envs.close()
    return rewards.tolist()


@pytest.mark.parametrize(
    ("thing", "env_id"),
    [
        (Task, f"{__name__}:Task"),
        (make_task, f"{__name__}:make_task"),
        (Holder.Inner, f"{__name__}:Holder.Inner"),
        (Holder.make, f"{__name__}:Holder.make"),
        ("CartPole-v1", "CartPole-v1"),
        (np.str_("CartPole-v1"), "CartPole-v1"),
        (gym.spec("CartPole-v1"), "CartPole-v1"),
    ],
)
def test_what_can_be_named_is_recorded_by_its_name(thing, env_id):
    settings = EnvSettings()
    adopt(thing, settings)
    assert settings.id == env_id and type(settings.id) in (str, np.str_) and env_id not in OBJECTS
    describe_environment(settings)


def test_a_spec_brings_its_arguments_and_its_time_limit():
    made = gym.make("FrozenLake-v1", is_slippery=False, max_episode_steps=7, render_mode="ansi")
    settings = EnvSettings()
    adopt(made.spec, settings)
    made.close()
    assert (settings.id, settings.kwargs, settings.max_episode_steps) == ("FrozenLake-v1", {"is_slippery": False}, 7)


def test_a_spec_with_wrappers_is_made_with_them():
    wrapped = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1))
    module = TRPO(wrapped.spec, **SMALL)
    assert module.spec.spaces[1] == spaces.Box(-1, 1, (1,), np.float32) and module.spec.max_episode_steps == 200


@pytest.mark.parametrize(
    "thing", [lambda: Task(2.0), functools.partial(make_task, bonus=2.0), functools.partial(Task, 2.0)]
)
def test_functions_without_a_name_stand_for_themselves_in_this_process(thing):
    settings = EnvSettings()
    adopt(thing, settings)
    assert rewards_of(settings) == [2.0, 2.0]
    again = EnvSettings()
    adopt(thing, again)
    assert again.id == settings.id
    settings.asynchronous = True
    envs = make_environments(settings, "gymnasium", [1, 2], 1)
    assert envs.reset().shape == (2, 3)
    envs.close()


def test_several_environments_are_copies_of_an_instance_and_leave_it_alone():
    instance = Task(3.0)
    module = TRPO(instance, **SMALL)
    assert module.spec.observation_shape == (3,)
    assert rewards_of(module.settings.env) == [3.0, 3.0]
    assert instance.resets == 0 and not instance.closed


def test_one_environment_is_the_instance_itself_which_is_not_closed():
    instance = Task(3.0)
    module = TRPO(instance, **{**SMALL, "num_envs": 1})
    assert rewards_of(module.settings.env, [1]) == rewards_of(module.settings.env, [2]) == [3.0]
    assert instance.resets == 2 and not instance.closed


def test_an_instance_that_cannot_be_copied_is_told_with_what_to_do():
    instance = Task()
    instance.handle = sys.stdout
    with pytest.raises(UserError, match=r"<Task instance \d+> cannot be copied for env.num_envs=2 .*num_envs=1"):
        TRPO(instance, **SMALL)


@pytest.mark.parametrize("thing", [None, "", " ", 3, object(), {"id": "CartPole-v1"}])
def test_what_is_no_environment_is_refused(thing):
    with pytest.raises(UserError, match=r"is not an environment: give the id"):
        TRPO(thing, **SMALL)


def test_so_is_a_vector_environment():
    envs = gym.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(UserError, match=r"a CartPoleVectorEnv is not an environment|give what makes one environment"):
        TRPO(envs, **SMALL)
    envs.close()


def test_an_environment_of_the_old_gym_and_a_vector_of_them_say_what_to_do(monkeypatch):
    old = type("Env", (), {"__module__": "gym.core", "step": None})
    monkeypatch.setattr(sys.modules[__name__], "old", old, raising=False)
    with pytest.raises(UserError, match=r"returned a gym\.core\.Env, not a gymnasium\.Env: .*shimmy"):
        describe_environment(EnvSettings(id=f"{__name__}:old"))
    vectors = type("DummyVecEnv", (), {"num_envs": 4})
    monkeypatch.setattr(sys.modules[__name__], "vectors", vectors, raising=False)
    with pytest.raises(UserError, match=r"one environment, env\.num_envs of them"):
        describe_environment(EnvSettings(id=f"{__name__}:vectors"))


def test_an_object_of_another_process_is_told_to_be_one():
    with pytest.raises(UserError, match="was an object of the process that trained the policy"):
        describe_environment(EnvSettings(id="<Task instance 99>"))
    with pytest.raises(UserError, match="a script or a notebook defines"):
        describe_environment(EnvSettings(id="__main__:NoSuchTask"))


BROKEN = {
    "syntax_error": ("def make(:\n", r"syntax_error\.py:1: SyntaxError: "),
    "undefined_name": ("\nx = no_such_name\n", r"undefined_name\.py:2: NameError: name 'no_such_name'"),
    "lacks_a_module": ("\n\nimport no_such_library\n", r"lacks_a_module\.py:3: ModuleNotFoundError: .*no_such_library"),
    "raises": (
        "def check():\n    raise RuntimeError('no licence')\n\ncheck()\n",
        r"raises\.py:2: RuntimeError: no licence",
    ),
    "leaves": ("import sys\nsys.exit('bye')\n", r"leaves\.py:2: SystemExit: bye"),
    "in_a_library": ("import json\n\njson.loads('{')\n", r"in_a_library\.py:3: JSONDecodeError"),
    "imports_another": ("import syntax_error\n", r"syntax_error\.py:1: SyntaxError: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_is_told_with_its_line(name, tmp_path, monkeypatch):
    for other, (text, _) in BROKEN.items():
        (tmp_path / f"{other}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"env\.id={name}:make: module {name} cannot be imported: .*{BROKEN[name][1]}"):
        describe_environment(EnvSettings(id=f"{name}:make"))


@pytest.mark.parametrize("env_id", [":make", ".x:make", "a..b:make", "my-module:make", "environments:", "a/b.py:make"])
def test_what_is_no_module_and_function_is_refused(env_id):
    with pytest.raises(UserError, match="is not module:function"):
        describe_environment(EnvSettings(id=env_id))


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("no_such.module:make", r"No module named 'no_such' \(it is looked for in the current folder"),
        ("environments:VECTOR", "VECTOR is a Box: name a class or a function"),
        ("PongNoFrameskip-v4", r"env\.id=ALE/Pong-v5 is that game"),
        ("dm_control/cartpole-balance-v0", r"pip install 'shimmy\[dm-control\]'"),
        ("MiniGrid-Empty-5x5-v0", "minigrid:MiniGrid-Empty-5x5-v0"),
        ("FetchReach-v9", "gymnasium_robotics:FetchReach-v9"),
        ("PandaReach-v3", "pip install 'panda-gym'"),
        ("Meta-World/MT1", "pip install 'metaworld'"),
        ("highway-fast-v0", "pip install 'highway-env'"),
        ("mine/Task-v0", "install the package that brings mine/"),
        ("Hoper-v5", r"did you mean .*Hopper-v5"),
    ],
)
def test_an_id_that_is_not_there_says_what_brings_it(env_id, said, monkeypatch):
    monkeypatch.delitem(gym.registry, env_id, raising=False)  # another test's import may have registered it
    with pytest.raises(UserError, match=said):
        describe_environment(EnvSettings(id=env_id, backend="gymnasium"))


def test_instances_of_other_spaces_are_told_with_both():
    made = []

    def growing():
        made.append(None)
        return OneStep(spaces.Box(-1, 1, (2 if len(made) < 3 else 3,), np.float32), spaces.Discrete(2))

    settings = EnvSettings()
    adopt(growing, settings)
    spec = describe_environment(settings)
    for asynchronous in (False, True):
        settings.asynchronous = asynchronous
        with pytest.raises(UserError, match=r"environment \d has the observation space Box.*\(3,\).*\(2,\)"):
            make_environments(settings, "gymnasium", [1, 2, 3], 1, spec.spaces)


def test_an_environment_without_spaces_is_told():
    class Bare(Task):
        observation_space = None

    with pytest.raises(UserError, match="its observation_space is not a gymnasium space"):
        TRPO(Bare, **SMALL)
