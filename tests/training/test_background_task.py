"""The value function's fit beside the next rollout: same numbers, rows complete, nothing left behind."""

import copy
import csv
import threading

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from trpo_lightning.errors import UserError
from trpo_lightning.runs.run import train_run
from trpo_lightning.settings import from_keywords
from trpo_lightning.training.background_task import BackgroundTask
from trpo_lightning.training.module import TRPO


def settings_of(**keywords):
    groups = dict(
        env=dict(id="Pendulum-v1", num_envs=4),
        steps_per_iteration=256,
        value=dict(hidden_sizes=[8], epochs=3, minibatch_size=32),
        policy=dict(hidden_sizes=[8]),
        checkpoint=dict(every=4),
        evaluation=dict(every=3, episodes=1),
        tracking=dict(wandb="disabled"),
        total_iterations=7,
        threads=2,
    )
    return from_keywords(**(groups | keywords))


def train(run_dir, **keywords):
    outcome = train_run(settings_of(**keywords), run_dir, quiet=True)
    assert outcome.state == "finished"
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def test_rows_and_barriers_equal_those_of_a_fit_in_turn(tmp_path, monkeypatch):
    began = []
    start = BackgroundTask.__init__
    monkeypatch.setattr(BackgroundTask, "__init__", lambda self, task: (began.append(1), start(self, task))[1])
    beside = train(tmp_path / "beside")
    assert len(began) == 7 and not [thread for thread in threading.enumerate() if thread.name == "beside"]
    monkeypatch.setattr(TRPO, "fits_beside", False)
    assert beside == train(tmp_path / "in_turn")
    assert len(began) == 7 and [row["iteration"] for row in beside] == [str(i) for i in range(1, 8)]
    assert all(float(row["value/loss"]) > 0 for row in beside)
    states = []
    for name in ("beside", "in_turn"):
        data = (tmp_path / name / "checkpoints" / "barrier_00000004.ckpt").read_bytes()
        states.append(data[data.index(b"\n") :])
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("keywords", "beside"),
    [
        ({}, True),
        ({"threads": 1}, False),
        ({"value": dict(hidden_sizes=[4096, 4096], minibatch_size=256)}, False),
        ({"value": dict(name="lbfgs")}, False),
        ({"value": dict(name="none")}, False),
    ],
)
def test_only_a_small_fit_with_a_core_to_spare_is_beside(keywords, beside):
    module = TRPO(settings=settings_of(**keywords))
    assert not module.fits_beside
    module.rows_may_wait = True
    torch.set_num_threads(2)
    assert module.fits_beside is beside


@pytest.mark.parametrize("late", [False, True])
def test_a_lightning_user_gets_whole_rows_and_whole_states(tmp_path, late):
    module = TRPO(settings=settings_of())
    module.rows_may_wait = late
    states = []

    class Reader(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            states.append((copy.deepcopy(pl_module.state_dict()), dict(trainer.callback_metrics)))

    logger = CSVLogger(tmp_path, name=None, version="")
    trainer = pl.Trainer(
        max_epochs=3, logger=logger, callbacks=[Reader()], enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    assert [float(metrics["iteration"]) for _, metrics in states] == [1, 2, 3]
    assert all("value/loss" in metrics for _, metrics in states)
    fitted = [torch.cat([v.flatten() for k, v in state.items() if "value_function" in k]) for state, _ in states]
    assert not torch.equal(fitted[0], fitted[1]) and not torch.equal(fitted[1], fitted[2])


def test_the_last_row_is_not_lost_where_environments_fail(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    kwargs = dict(fault="raise", at=120, flag=str(flag), spared=0)
    env = dict(id="odd_environments:faulty", num_envs=1, kwargs=kwargs)
    settings = settings_of(env=env, steps_per_iteration=50, evaluation=dict(every=0))
    with pytest.raises(UserError, match="the simulator"):
        train_run(settings, tmp_path / "run", quiet=True)
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "2"]


def test_an_error_beside_is_raised_where_it_is_waited_for():
    def fail():
        raise ZeroDivisionError("beside")

    task = BackgroundTask(fail)
    with pytest.raises(ZeroDivisionError, match="beside"):
        task.wait()


def test_a_task_beside_has_one_thread():
    before = torch.get_num_threads()
    assert BackgroundTask(torch.get_num_threads).wait() == 1 and torch.get_num_threads() == before
