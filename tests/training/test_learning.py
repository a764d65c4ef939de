"""Slow checks that it learns: `make test-all`."""

import pytest

from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import train_run
from trpo_lightning.settings import updated

pytestmark = pytest.mark.slow


def last_episodes(run_dir, episodes=100):
    total = count = 0.0
    for row in reversed(read_rows(run_dir / "metrics.csv")):
        if row["episode/return_mean"]:
            total += float(row["episode/return_mean"]) * float(row["episode/count"])
            count += float(row["episode/count"])
        if count >= episodes:
            return total / count
    raise AssertionError(f"only {count} episodes")


OFF = {"tracking.wandb": "disabled", "evaluation.every": 0}


def train(run_dir, settings):
    train_run(updated(settings, OFF), run_dir, quiet=True)
    return last_episodes(run_dir)


@pytest.mark.parametrize("seed", range(5))
def test_cart_pole_is_solved_within_100k_steps(tmp_path, seed):
    cell = load_experiment("quickstart").cells(["name=cartpole", f"seed={seed}"])[0]
    assert train(tmp_path, cell.settings) >= 475


@pytest.mark.parametrize("seed", range(3))
def test_hopper_runs_after_300k_steps(tmp_path, seed):
    cell = load_experiment("quickstart").cells(["name=hopper", f"seed={seed}"])[0]
    assert train(tmp_path, cell.settings) >= 1000


@pytest.mark.parametrize("seed", range(2))
def test_the_vanilla_policy_gradient_learns_cart_pole(tmp_path, seed):
    keys = ["env.id=CartPole-v1", "total_env_steps=150000", "env.num_envs=16", "rollout.steps_per_iteration=1024"]
    assert train(tmp_path, load_settings(["rule.name=vanilla_policy_gradient", f"seed={seed}", *keys])) >= 300
