"""A cue is remembered: with a memory the task is solved, without one returns stay at chance, 0.5."""

from pathlib import Path

import pytest

from trpo_lightning import load
from trpo_lightning.rollouts.episodes import run_episodes
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.run import train_run

BASE = """env.id=cue:make env.num_envs=16 env.backend=gymnasium policy.hidden_sizes=[16] value.name=none gae_lambda=1
    normalize.observations=false normalize.rewards=false evaluation.every=0 tracking.wandb=disabled threads=1""".split()


def trained_return(run_dir: Path, *keys: str) -> float:
    """The mean return of the trained policy, as loaded from its file, over 200 episodes."""
    train_run(load_settings([*BASE, *keys]), run_dir, quiet=True)
    trained = load(run_dir)
    arguments = trained.policy, trained.normalizer, trained.settings.env, trained.spec
    return float(run_episodes(*arguments, episodes=200, deterministic=True, seed=1).returns.mean())


SHORT = ["env.kwargs.steps=4", "env.max_episode_steps=5", "rollout.steps_per_iteration=480", "total_iterations=30"]
LONG = ["env.kwargs.steps=20", "env.max_episode_steps=21", "rollout.steps_per_iteration=1600", "total_iterations=80"]


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_cue_is_remembered_for_4_steps(tmp_path, name):
    assert trained_return(tmp_path, *SHORT, f"policy.name={name}") > 0.95


def test_without_a_memory_4_steps_are_too_long(tmp_path):
    assert trained_return(tmp_path, *SHORT) < 0.65


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_cue_is_remembered_for_20_steps(tmp_path, name, seed):
    assert trained_return(tmp_path, *LONG, f"policy.name={name}", f"seed={seed}") > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_without_a_memory_20_steps_are_too_long(tmp_path, seed):
    assert trained_return(tmp_path, *LONG, f"seed={seed}") < 0.65
