"""Every level of every experiment trains: two iterations of each, with a tiny budget."""

import pytest
import pytorch_lightning as pl

from trpo_lightning import TRPO
from trpo_lightning.experiment.declaration import experiment_names, load_experiment
from trpo_lightning.settings import updated

TINY = {
    "env.num_envs": 4,
    "env.backend": "gymnasium",
    "env.max_episode_steps": 20,
    "value.minibatch_size": 64,
    "evaluation.every": 0,
    "total_env_steps": 5000,
}


def cells():
    for name in experiment_names():
        experiment = (
            load_experiment(name, "quick") if "quick" in load_experiment(name).scales else load_experiment(name)
        )
        for cell in {cell.settings.name: cell for cell in experiment.cells()}.values():
            yield pytest.param(cell, id=f"{name} {cell.settings.name}")


@pytest.mark.parametrize("cell", list(cells()))
def test_a_level_trains(cell):
    steps = max(128, cell.settings.rollout.steps_per_iteration // 32)  # levels of the batch size stay different
    module = TRPO(settings=updated(cell.settings, {**TINY, "rollout.steps_per_iteration": steps}))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(max_epochs=2, enable_model_summary=False, accelerator="cpu", **quiet).fit(module)
    assert module.iteration == 2
    if cell.settings.rule.max_backtracks:  # without backtracking a full step may be refused
        assert module.rejected == 0 and module.row["trust_region/surrogate_improvement"] > 0
