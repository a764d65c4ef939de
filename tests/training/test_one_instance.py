"""Simulators of which only so many can be open: evaluation makes do with them."""

import numpy as np
import pytest
import pytorch_lightning as pl
from environments import VECTOR, OneStep
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from trpo_lightning import TRPO, UserError
from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.environments.user_code import adopt
from trpo_lightning.settings import EnvSettings
from trpo_lightning.training.evaluation import EvaluationCallback, evaluate

SMALL = dict(steps_per_iteration=16, policy={"hidden_sizes": [4]}, value={"hidden_sizes": [4]}, threads=1)


class Port(OneStep):
    """At most `limit` at a time; the reward is drawn from the seed."""

    open, most, limit = 0, 0, 1

    def __init__(self):
        if Port.open >= Port.limit:
            raise OSError("port 5005 is in use")
        Port.open += 1
        Port.most = max(Port.most, Port.open)
        super().__init__(VECTOR, spaces.Discrete(2))

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(self.np_random.random()), *rest

    def close(self):
        Port.open -= 1


def make():
    return TimeLimit(Port(), 5)


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    monkeypatch.setattr(Port, "open", 0)
    monkeypatch.setattr(Port, "most", 0)
    monkeypatch.setattr(Port, "limit", 1)


def fit(module, epochs=3):
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    pl.Trainer(max_epochs=epochs, callbacks=[EvaluationCallback()], **quiet).fit(module)


def module_of(environment, num_envs=1, instances=None, every=1):
    env = {"num_envs": num_envs, "instances": instances}
    return TRPO(environment, env=env, evaluation={"every": every, "episodes": 3}, **SMALL)


@pytest.mark.parametrize(("num_envs", "limit"), [(1, 1), (2, 2), (2, 3)])
def test_evaluation_closes_training_where_it_finds_no_room_and_says_so(monkeypatch, capsys, num_envs, limit):
    monkeypatch.setattr(Port, "limit", limit)
    module = module_of(make, num_envs)
    fit(module)
    assert module.row["evaluation/return_mean"] > 0 and Port.open == 0
    assert f"env.instances={num_envs} says so in advance" in capsys.readouterr().out


def test_where_there_is_room_for_some_they_share_the_episodes(monkeypatch, capsys):
    monkeypatch.setattr(Port, "limit", 4)
    module = module_of(make, 2)
    fit(module)
    assert module.row["evaluation/return_mean"] > 0 and "warning" not in capsys.readouterr().out


def test_said_in_advance_it_is_no_surprise_and_opens_no_more(monkeypatch, capsys):
    monkeypatch.setattr(Port, "limit", 10)
    module = module_of(make, 2, instances=2)
    fit(module)
    assert Port.most == 2 and "warning" not in capsys.readouterr().out


def test_the_returns_are_those_of_environments_that_are_open_together(monkeypatch):
    alone = module_of(make, 1, instances=1)
    returns = evaluate(alone, 3, deterministic=False).returns
    monkeypatch.setattr(Port, "limit", 10)
    together = module_of(make, 1)
    np.testing.assert_array_equal(evaluate(together, 3, deterministic=False).returns, returns)
    assert len(set(returns)) == 3


def test_the_users_only_instance_is_trained_and_evaluated():
    instance = make()
    module = module_of(instance)
    fit(module)
    assert module.row["evaluation/return_mean"] > 0 and Port.open == Port.most == 1


def test_an_environment_that_cannot_be_built_at_all_is_told_and_leaves_none_open(monkeypatch):
    settings = EnvSettings(num_envs=3)
    adopt(make, settings)
    spec = describe_environment(settings)
    monkeypatch.setattr(Port, "limit", 2)
    with pytest.raises(UserError, match="port 5005 is in use"):
        make_environments(settings, "gymnasium", [1, 2, 3], 1, spec.spaces)
    assert Port.open == 0


def test_fewer_instances_than_environments_are_refused():
    with pytest.raises(UserError, match=r"env\.instances=1 is smaller than env\.num_envs=2"):
        module_of(make, 2, instances=1)


def test_an_instance_is_too_few_for_vine():
    with pytest.raises(UserError, match=r"rollout\.scheme=vine makes many environments"):
        rollout = {"scheme": "vine", "rollout_set_size": 2, "steps_per_iteration": 16}
        TRPO(make(), num_envs=1, rollout=rollout, value={"name": "none"})
