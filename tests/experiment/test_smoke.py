"""Every level of every experiment trains: two iterations of each, with a tiny budget; equal ones are run once."""

from dataclasses import replace

import pytest
import pytorch_lightning as pl

from trpo_lightning import TRPO
from trpo_lightning.experiment.declaration import experiment_names, load_experiment
from trpo_lightning.settings import RunSettings, TrackingSettings, is_atari, updated

TINY = {
    "env.num_envs": 4,
    "env.backend": "gymnasium",
    "env.max_episode_steps": 20,
    "rollout.rollout_set_size": 8,
    "rollout.branch_length": 8,
    "value.minibatch_size": 64,
    "evaluation.every": 0,
    "total_env_steps": 5000,
}


def tiny(settings: RunSettings) -> RunSettings:
    """The settings at a budget of seconds, without what names a run."""
    steps = getattr(settings.rollout, "steps_per_iteration", 0)
    game = {"env.max_episode_steps": 80} if is_atari(settings.env.id) else {}  # until a point is lost
    steps = 32 * 320 if game else steps
    small = {**TINY, **game, "rollout.steps_per_iteration": max(128, steps // 32), "rule.population": 8}
    return replace(updated(settings, small, lenient=small), name="tiny", seed=0, threads=1, tracking=TrackingSettings())


def cells():
    found: dict[str, tuple[str, RunSettings]] = {}
    for name in experiment_names():
        quick = "quick" if "quick" in load_experiment(name).scales else "full"
        for cell in load_experiment(name, quick).cells():
            settings = tiny(cell.settings)
            found.setdefault(repr(settings), (f"{name} {cell.settings.name}", settings))
    return [pytest.param(settings, id=name) for name, settings in found.values()]


@pytest.mark.parametrize("settings", cells())
def test_a_level_trains(settings):
    if is_atari(settings.env.id):
        pytest.importorskip("ale_py")
    module = TRPO(settings=settings)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(max_epochs=2, enable_model_summary=False, accelerator="cpu", **quiet).fit(module)
    assert module.iteration == 2
    searches = settings.rule.name == "trust_region" and settings.rule.max_backtracks  # without, a step may be refused
    if searches and settings.rollout.scheme == "single_path":  # short branches of a vine may all return the same
        assert module.rejected == 0 and module.row["trust_region/surrogate_improvement"] > 0
