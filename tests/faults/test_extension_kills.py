"""Methods from outside, those of examples/, are killed and resumed as exactly as built-in ones."""

import random
import signal
import sys
from pathlib import Path

import pytest
import torch
from processes import fork_server, has_rows, send_when
from test_kills import BASE, Run, assert_nothing_is_lost, newest, rows, straight_run

EXAMPLES = Path(__file__).parents[2] / "examples"
METHODS = {
    "kl_penalty_rule": "rule.name=kl_penalty_rule:KLPenalty rule.kl_target=0.001 rule.epochs=2 env.id=CartPole-v1",
    "state_dependent_std": "policy.name=state_dependent_std:StateDependentStd env.id=Pendulum-v1",
    "ensemble_value": "value.name=ensemble_value:Ensemble value.members=2 env.id=CartPole-v1",
    "memory": "policy.name=own_methods:MinimalPolicy value.name=gru value.epochs=2 env.id=Pendulum-v1",
    "own_scheme": "rollout.scheme=own_scheme:FreshStarts rollout.fresh_every=3 env.id=Pendulum-v1",
    "own_metric": "rule.name=own_metric:MeasuredTrustRegion env.id=CartPole-v1",
}
SMALL = """env.backend=gymnasium env.num_envs=2 rollout.steps_per_iteration=64 total_iterations=8
    tracking.wandb=disabled""".split()


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        patch.setenv("PYTHONPATH", str(EXAMPLES), prepend=":")
        with fork_server(tmp_path_factory.mktemp("fork_server")) as process:
            yield process


@pytest.mark.parametrize("method", METHODS)
def test_a_run_with_a_method_from_outside_that_is_killed_loses_nothing(children, tmp_path, method):
    arguments = [*BASE, *SMALL, *METHODS[method].split()]
    straight_run(children, tmp_path / "straight", arguments)
    run = Run(children, tmp_path / "killed", arguments, seed=0)
    moment = random.Random(method).randrange(3, 6)  # after the first barrier, before the last one
    assert send_when(run.start(), has_rows(run.run_dir, moment)) == -signal.SIGKILL
    assert 2 <= run.iteration() < 8
    assert run.start().code() == 0, children.said()
    assert_nothing_is_lost(run.run_dir, tmp_path / "straight", 8)


def test_what_methods_remember_is_part_of_what_was_compared(children, tmp_path):
    states = {}
    for method in ("kl_penalty_rule", "ensemble_value", "own_metric"):
        straight_run(children, tmp_path / method, [*BASE, *SMALL, *METHODS[method].split(), "total_iterations=2"])
        states[method] = newest(tmp_path / method)
    assert states["kl_penalty_rule"]["rule"]["beta"] != 1.0
    assert float(states["kl_penalty_rule"]["rule"]["adam"]["state"][0]["exp_avg_sq"].sum()) > 0.0
    assert len(states["ensemble_value"]["value_optimizer"]["adams"]) == 2
    assert torch.is_tensor(states["own_metric"]["rule"]["last"])
    assert [row["step/cosine"] != "" for row in rows(tmp_path / "own_metric")] == [False, True]
