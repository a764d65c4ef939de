"""Environments that draw from global generators or from their spaces: the same seed, the same run, also resumed."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from trpo_lightning.environments.backends import make_environments
from trpo_lightning.randomness import Stream, global_generators, seed_global_generators
from trpo_lightning.settings import EnvSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from small_runs import assert_same_run, rows_without_times, train

CASUAL = ["env.id=casual_environments:Casual", "env.max_episode_steps=null", "rollout.steps_per_iteration=32"]


def spoil() -> None:
    """What another program would have drawn before."""
    random.random(), np.random.rand(), torch.rand(3)


def state() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("env_id", [f"casual_environments:{name}" for name in ("Casual", "SpaceSampler", "Forgetful")])
def test_the_same_seed_gives_the_same_run_whatever_was_drawn_before(tmp_path, env_id):
    for run in "ab":
        train(tmp_path / run, *CASUAL, f"env.id={env_id}", "seed=3")
        spoil()
    train(tmp_path / "c", *CASUAL, f"env.id={env_id}", "seed=4")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert rows_without_times(tmp_path / "a") != rows_without_times(tmp_path / "c")


def test_a_resumed_run_is_the_uninterrupted_one_and_evaluation_changes_nothing(tmp_path):
    train(tmp_path / "whole", *CASUAL)
    train(tmp_path / "parts", *CASUAL, "total_iterations=2", "evaluation.every=1", "evaluation.episodes=2")
    spoil()
    train(tmp_path / "parts", *CASUAL, "evaluation.every=1", resume=True)
    whole, parts = (rows_without_times(tmp_path / run) for run in ("whole", "parts"))
    names = ["episode/return_mean", "trust_region/kl", "value/loss"]
    assert [[row[name] for name in names] for row in whole] == [[row[name] for name in names] for row in parts]
    assert all(row["evaluation/return_mean"] for row in parts)


class Drawing(pl.Callback):
    """A callback that draws, as third-party ones may."""

    def on_train_epoch_end(self, trainer, pl_module):
        spoil()


def test_other_code_that_draws_between_iterations_changes_nothing(tmp_path):
    from trpo_lightning import TRPO

    seen = []
    for callbacks in ([], [Drawing()]):
        module = TRPO(
            "casual_environments:Casual",
            num_envs=2,
            steps_per_iteration=32,
            policy={"hidden_sizes": [4]},
            value={"name": "none"},
            threads=1,
        )
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        pl.Trainer(max_epochs=3, logger=False, callbacks=callbacks, accelerator="cpu", **quiet).fit(module)
        seen.append([module.row["episode/return_mean"], *module.policy.parameters()])
    assert seen[0][0] == seen[1][0]
    assert all(torch.equal(a, b) for a, b in zip(seen[0][1:], seen[1][1:], strict=True))


def test_processes_of_environments_have_numbers_of_their_own_and_the_same_each_time():
    settings = EnvSettings(id="casual_environments:Casual", asynchronous=True)
    seen = []
    for _ in range(2):
        envs = make_environments(settings, "gymnasium", [1, 2], 1)
        try:
            seen.append([envs.reset(), *envs.step(np.zeros((2, 1), dtype=np.int64))[:2]])
        finally:
            envs.close()
        spoil()
    for first, second in zip(*seen, strict=True):
        assert (first == second).all()
        assert (first[0] != first[1]).any()


def test_global_generators_go_on_afterwards_as_if_nothing_was():
    before = state()
    with global_generators(0, Stream.GLOBAL, 3):
        inside = random.random(), np.random.rand(), float(torch.rand(()))
    assert state() == before
    with pytest.raises(ZeroDivisionError), global_generators(0, Stream.GLOBAL, 3):
        assert (random.random(), np.random.rand(), float(torch.rand(()))) == inside
        1 / 0  # noqa: B018
    assert state() == before


def test_each_part_of_the_key_seeds_other_numbers():
    seen = set()
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for key in [(0, Stream.GLOBAL), (1, Stream.GLOBAL), (0, Stream.EVALUATION_GLOBAL), (0, Stream.GLOBAL, 1, 1)]:
        seed_global_generators(*key)
        seen |= {random.random(), np.random.rand(), float(torch.rand(()))}
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])
    assert len(seen) == 12
