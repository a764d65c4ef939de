"""The programs that measure, on sizes too small to mean anything."""

import json

import numpy as np
import pytest
import torch

from trpo_lightning.benchmark import update_costs
from trpo_lightning.benchmark.environment_alone import WARMUP, random_actions, rate
from trpo_lightning.policies.spaces import BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.settings import RunSettings, updated
from trpo_lightning.training.module import TRPO


class Clockwork:
    """Environments whose episodes last 1, 2, 3 ... steps; counts real steps itself and takes a second for each step."""

    def __init__(self, lengths):
        self.num_envs, self.lengths = len(lengths), lengths
        self.left = list(lengths)
        self.resetting = [False] * self.num_envs
        self.calls, self.real = 0, []

    def reset(self):
        return np.zeros((self.num_envs, 1))

    def step(self, actions):
        assert len(actions) == self.num_envs
        self.calls += 1
        ended, real = np.zeros(self.num_envs, dtype=bool), 0
        for i in range(self.num_envs):
            if self.resetting[i]:
                self.resetting[i], self.left[i] = False, self.lengths[i]
                ended[i] = i == 0  # whatever a fake transition says does not count
                continue
            self.left[i] -= 1
            real += 1
            ended[i] = self.resetting[i] = self.left[i] == 0
        self.real.append(real)
        return np.zeros((self.num_envs, 1)), np.zeros(self.num_envs), ended, np.zeros(self.num_envs, dtype=bool)


@pytest.mark.parametrize("lengths", [(3, 100, 2), (1, 1), (1000,)])
def test_only_real_transitions_after_the_warm_up_count(lengths, monkeypatch):
    envs = Clockwork(lengths)
    monkeypatch.setattr("trpo_lightning.benchmark.environment_alone.time.perf_counter", lambda: float(envs.calls))
    found = rate(envs, [np.zeros((len(lengths), 1))], steps=40)
    counted = envs.real[WARMUP:]
    assert found == sum(counted) / len(counted)
    assert sum(counted) >= 40 and sum(counted[:-1]) < 40


@pytest.mark.parametrize("spec", [ContinuousActions(3), DiscreteActions((2, 5)), BinaryActions(4)])
def test_random_actions_have_the_form_of_a_policys(spec):
    batches = random_actions(spec, 50, np.random.default_rng(0))
    size = len(spec.choices) if isinstance(spec, DiscreteActions) else spec.size
    actions = np.concatenate(batches)
    assert all(batch.shape == (50, size) for batch in batches)
    if isinstance(spec, ContinuousActions):
        assert actions.dtype == np.float32 and abs(actions.std() - 1) < 0.05
    elif isinstance(spec, DiscreteActions):
        assert [set(np.unique(column)) for column in actions.T] == [set(range(n)) for n in spec.choices]
    else:
        assert set(np.unique(actions)) == {0, 1}


@pytest.fixture
def module():
    return TRPO(settings=updated(RunSettings(), {"env.id": "CartPole-v1", "env.num_envs": 4, "value.epochs": 1}))


def test_parts_of_the_update_are_timed_and_change_nothing(module):
    before = [p.detach().clone() for p in module.policy.parameters()]
    found = update_costs.parts(module, rows=200, calls=2)
    assert found["parameters"] == sum(p.numel() for p in before)
    for name in ("gradient", "fisher_vector_product", "update"):
        assert len(found[name]) == 2 and all(seconds > 0 for seconds in found[name])
    assert all(torch.equal(a, b) for a, b in zip(before, module.policy.parameters(), strict=True))


def test_the_invented_rollout_has_the_asked_size_and_ends_episodes(module):
    rollout = update_costs.invented_rollout(module, rows=1000 * 4)
    assert rollout.valid.shape == (1000, 4) and rollout.env_steps == 4000
    assert rollout.truncated[update_costs.EPISODE - 1].all() and not rollout.truncated[0].any()
    assert rollout.truncated.sum(axis=0).tolist() == [1000 // update_costs.EPISODE] * 4
    assert all(len(item) == 4000 for item in rollout.statistics())


def test_learning_from_it_moves_the_value_function_and_the_normalizer(module):
    before = [p.detach().clone() for p in module.value_function.parameters()]
    update_costs.learn(module, update_costs.invented_rollout(module, rows=400), torch.device("cpu"))
    assert not all(torch.equal(a, b) for a, b in zip(before, module.value_function.parameters(), strict=True))
    assert float(module.normalizer.observations.count) == 400


@pytest.mark.parametrize(("task", "keys"), [("memory", {"peak_gib"}), ("devices", {"cpu"})])
def test_the_program_prints_json(task, keys, monkeypatch, capsys):
    if task == "devices" and torch.cuda.is_available():
        keys = {"cpu", "cuda", "gpu"}
    arguments = ["x", "--task", task, "--env", "CartPole-v1", "--rows", "320", "--threads", "1", "--hidden", "8"]
    monkeypatch.setattr("sys.argv", arguments)
    update_costs.main()
    found = json.loads(capsys.readouterr().out)
    assert set(found) == keys and all(value > 0 for key, value in found.items() if key != "gpu")
    if task == "memory":
        assert 0.05 < found["peak_gib"] < 20
