"""TRPO in a user's own Trainer: standard callbacks, loggers and flags, each as Lightning's documentation has it."""

import copy
import csv
import importlib.util
import pickle
from contextlib import nullcontext
from datetime import timedelta

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    StochasticWeightAveraging,
    TQDMProgressBar,
    WeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.tuner import Tuner

from trpo_lightning import TRPO, UserError, load
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.settings import counting_keys
from trpo_lightning.training.evaluation import EvaluationCallback

TINY = {
    "num_envs": 4,
    "steps_per_iteration": 64,
    "policy": {"hidden_sizes": [8]},
    "value": {"hidden_sizes": [8], "epochs": 1},
    "threads": 1,
}


def module_of(**keywords) -> TRPO:
    return TRPO("CartPole-v1", **{**TINY, **keywords})


def trainer_of(iterations: int = 3, **arguments) -> pl.Trainer:
    defaults = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet = {"accelerator": "cpu", "enable_model_summary": False}
    return pl.Trainer(**{"max_epochs": iterations, **quiet, **defaults, **arguments})


def long_episodes() -> TRPO:
    """Episodes of 200 steps, and a slot to reset, of which an iteration has 100: those that end are in 2, 5 and 7."""
    return TRPO("Pendulum-v1", **{**TINY, "steps_per_iteration": 400, "checkpoint": {"every": 0}})


class Monitored(pl.Callback):
    """What callbacks that monitor a metric find."""

    def __init__(self, name: str) -> None:
        self.name, self.values = name, []

    def on_train_epoch_end(self, trainer, pl_module):
        value = trainer.callback_metrics.get(self.name)
        self.values.append(None if value is None else float(value))


def test_early_stopping_counts_returns_and_not_the_iterations_without_one():
    watch, stopping = Monitored("episode/return_mean"), EarlyStopping("episode/return_mean", mode="max", patience=2)
    stopping.min_delta = 1e9  # nothing improves on the first
    trainer = trainer_of(20, callbacks=[watch, stopping])
    trainer.fit(long_episodes())
    assert [value is None for value in watch.values] == [True, False, True, True, False, True, False]
    assert stopping.stopped_epoch == 6 and stopping.wait_count == 2
    assert np.isfinite(float(trainer.callback_metrics["episode/return_mean"]))


def test_a_name_that_is_mistyped_is_still_an_error_of_early_stopping():
    with pytest.raises(RuntimeError, match="episode/retrun_mean"):
        trainer_of(2, callbacks=[EarlyStopping("episode/retrun_mean")]).fit(module_of())


@pytest.mark.parametrize("when", [{}, {"every_n_train_steps": 1}])
def test_model_checkpoint_saves_iterations_with_a_return(tmp_path, when):
    checkpoint = ModelCheckpoint(tmp_path, monitor="episode/return_mean", mode="max", save_top_k=-1, **when)
    with pytest.warns(UserWarning, match="manual optimization") if when else nullcontext():
        trainer_of(6, callbacks=[checkpoint], enable_checkpointing=True).fit(long_episodes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch=1-step=2.ckpt", "epoch=4-step=5.ckpt"]
    assert torch.isfinite(checkpoint.best_model_score)


def test_checkpoints_load_with_weights_only_and_bring_the_policy_back(tmp_path):
    module = module_of(delta=0.0137)
    trainer = trainer_of(2, callbacks=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    trainer.fit(module)
    path = trainer.checkpoint_callback.best_model_path
    state = torch.load(path, weights_only=True)
    assert (
        state["hyper_parameters"]["rule.delta"] == 0.0137
        and state["hyper_parameters"].keys() == counting_keys(module.settings).keys()
    )
    again = TRPO.load_from_checkpoint(path)
    assert again.settings == module.settings and (again.iteration, again.env_steps) == (2, module.env_steps)
    observations = np.random.default_rng(0).normal(size=(20, 4))
    assert np.array_equal(again.act(observations), module.act(observations))


def test_a_module_acts_and_saves_itself(tmp_path):
    module = module_of()
    trainer_of(2).fit(module)
    module.save(tmp_path / "policy.pt", note="mine")
    observations = np.random.default_rng(0).normal(size=(20, 4))
    assert np.array_equal(load(tmp_path / "policy.pt").act(observations), module.act(observations))


def test_a_module_goes_to_another_process_and_is_copied_before_and_after_it_trained():
    module, observation = module_of(), np.zeros(4, dtype=np.float32)
    for trained in (False, True):
        if trained:
            trainer_of(2).fit(module)
        for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
            assert torch.equal(parameter_vector(other.policy), parameter_vector(module.policy))
            assert other.act(observation, deterministic=True) == module.act(observation, deterministic=True)
            trainer_of(1).fit(other)
            assert other.iteration == module.iteration + 1


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_progress_bars_show_return_and_kl(bar, capsys):
    trainer = trainer_of(2, callbacks=[bar()], enable_progress_bar=True)
    trainer.fit(long_episodes())
    capsys.readouterr()
    assert {"return", "KL"} <= trainer.progress_bar_metrics.keys()


def test_the_learning_rate_monitor_sees_the_rules_whole_step(tmp_path):
    trainer_of(2, callbacks=[watch := LearningRateMonitor()], logger=CSVLogger(tmp_path)).fit(module_of())
    assert watch.lrs == {"lr-ParameterUpdate": [1.0, 1.0]}


REFUSED = [
    StochasticWeightAveraging(swa_lrs=0.1),
    WeightAveraging(),
    GradientAccumulationScheduler({0: 2}),
    LearningRateFinder(),
    BatchSizeFinder(),
]


@pytest.mark.parametrize("callback", REFUSED, ids=lambda callback: type(callback).__name__)
def test_callbacks_that_would_change_the_algorithm_or_nothing_are_refused_in_one_line(callback):
    module = module_of()
    with pytest.raises(UserError, match=f"^{type(callback).__name__}: "):
        trainer_of(3, callbacks=[copy.deepcopy(callback)]).fit(module)
    assert module.iteration == 0


@pytest.mark.parametrize(("find", "name"), [("lr_find", "LearningRateFinder"), ("scale_batch_size", "BatchSizeFinder")])
def test_the_tuner_is_told_that_there_is_nothing_to_find(find, name, tmp_path):
    with pytest.raises(UserError, match=name):
        getattr(Tuner(trainer_of(1, default_root_dir=tmp_path)), find)(module_of())


@pytest.mark.parametrize("function", ["validate", "test", "predict"])
def test_a_trainer_only_fits(function):
    with pytest.raises(UserError, match=f"^Trainer.{function}: .*act"):
        getattr(trainer_of(), function)(module_of())


@pytest.mark.parametrize(
    ("arguments", "iterations"),
    [
        ({"fast_dev_run": True}, 1),
        ({"max_epochs": -1, "max_steps": 2}, 2),
        ({"limit_train_batches": 1}, 3),
        ({"limit_train_batches": 0}, 0),
    ],
)
def test_flags_that_limit_training_count_iterations(arguments, iterations):
    module = module_of()
    trainer = trainer_of(**arguments)
    trainer.fit(module)
    assert module.iteration == trainer.global_step == iterations


def test_max_time_ends_training_between_two_iterations():
    module = module_of()
    trainer = trainer_of(max_epochs=-1, max_time=timedelta(seconds=0.3))
    trainer.fit(module)
    assert module.iteration == trainer.global_step > 0 and module.scheme._envs is None


def test_a_module_goes_on_where_it_was_in_a_second_fit():
    module, other = module_of(checkpoint={"every": 2}), module_of(checkpoint={"every": 2})
    for _ in range(2):  # a barrier lies between them, so that nothing but the module carries over
        trainer_of(2).fit(module)
    trainer_of(4).fit(other)
    assert module.iteration == 4
    assert torch.equal(parameter_vector(module.policy), parameter_vector(other.policy))


def test_modules_train_one_after_the_other_in_one_process():
    thetas = []
    for seed in (0, 1, 0):
        module = module_of(seed=seed)
        trainer_of(2).fit(module)
        thetas.append(parameter_vector(module.policy))
    assert torch.equal(thetas[0], thetas[2]) and not torch.equal(thetas[0], thetas[1])


class Logs(pl.Callback):
    """Logs in every hook that a callback may log in."""

    def on_train_start(self, trainer, pl_module):
        pl_module.log("my/early", 1)

    def on_train_batch_end(self, trainer, pl_module, *_):
        pl_module.log("my/iteration", torch.tensor(pl_module.iteration), on_step=True)

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log_dict({"my/late": 10.0 * pl_module.iteration, "time/mine": 0.0})
        pl_module.log("my/text", f"iteration {pl_module.iteration}")
        pl_module.log("my/bar", 2.0, prog_bar=True, logger=False)


class LogsItself(TRPO):
    """Users override hooks without `super`."""

    def training_step(self, rollout, batch_idx=0):
        super().training_step(rollout, batch_idx)
        self.log("my/theta", float(parameter_vector(self.policy).norm()))

    def on_train_epoch_end(self):
        self.log("my/unheard", 1.0)


def csv_rows(folder) -> list[dict[str, str]]:
    (path,) = folder.rglob("metrics.csv")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_callback_logs_lands_in_the_row_of_its_iteration(tmp_path):
    stopping = EarlyStopping("my/late", mode="max")
    trainer = trainer_of(3, callbacks=[Logs(), stopping], logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trainer.fit(module_of())
    rows = csv_rows(tmp_path)
    assert [float(row["iteration"]) for row in rows] == [1, 2, 3]
    assert [float(row["my/iteration"]) for row in rows] == [1, 2, 3]
    assert [float(row["my/late"]) for row in rows] == [10, 20, 30]
    assert [row["my/early"] for row in rows] == ["1", "", ""]
    assert "my/text" not in rows[0] and "my/bar" not in rows[0]
    assert trainer.progress_bar_metrics["my/bar"] == 2.0 and float(trainer.callback_metrics["my/bar"]) == 2.0
    assert float(stopping.best_score) == 30


def test_texts_go_to_loggers_that_take_them(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.accepts_text = True
    trainer_of(2, callbacks=[Logs()], logger=logger).fit(module_of())
    assert [row["my/text"] for row in csv_rows(tmp_path)] == ["iteration 1", "iteration 2"]


def test_no_row_is_lost_where_a_subclass_overrides_a_hook(tmp_path):
    module = LogsItself("CartPole-v1", **TINY)
    trainer_of(3, logger=CSVLogger(tmp_path)).fit(module)
    rows = csv_rows(tmp_path)
    assert [float(row["iteration"]) for row in rows] == [1, 2, 3]
    assert all(float(row["my/theta"]) > 0 and float(row["my/unheard"]) == 1 for row in rows)


@pytest.mark.parametrize("value", [torch.zeros(2), None, [1.0]])
def test_what_is_no_number_is_refused_by_its_name(value):
    with pytest.raises(UserError, match=r"log\('my/metric'\)"):
        module_of().log("my/metric", value)


@pytest.mark.parametrize("name", ["iteration", "env_steps", "update/rejected", "time/overhead"])
def test_the_books_of_the_loop_are_its_own(name):
    with pytest.raises(UserError, match="choose another name"):
        module_of().log(name, 1.0)


def test_csv_loggers_get_every_setting(tmp_path):
    module = module_of(delta=0.0137)
    trainer_of(1, logger=CSVLogger(tmp_path)).fit(module)
    (path,) = tmp_path.rglob("hparams.yaml")
    recorded = yaml.safe_load(path.read_text())
    assert recorded == dict(module.hparams) and recorded["rule.delta"] == 0.0137
    assert recorded.keys() == counting_keys(module.settings).keys()


def test_tensorboard_gets_settings_and_one_row_an_iteration(tmp_path):
    pytest.importorskip("tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    trainer_of(3, logger=logger).fit(module_of())
    events = EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in events.Scalars("trust_region/kl")] == [1, 2, 3]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow's models
def test_mlflow_gets_settings_and_one_row_an_iteration(tmp_path):
    from pytorch_lightning.loggers import MLFlowLogger

    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=str(tmp_path))
    trainer_of(3, logger=logger).fit(module_of(delta=0.0137))
    history = logger.experiment.get_metric_history(logger.run_id, "trust_region/kl")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert logger.experiment.get_run(logger.run_id).data.params["rule.delta"] == "0.0137"


@pytest.mark.parametrize("own", [[], [EvaluationCallback()]])
def test_evaluation_happens_as_the_settings_say_and_once(own):
    watch = Monitored("evaluation/return_mean")
    module = module_of(evaluation={"every": 2, "episodes": 1})
    trainer = trainer_of(4, callbacks=[watch, *own])
    trainer.fit(module)
    assert [value is None for value in watch.values] == [True, False, True, False]
    assert sum(isinstance(callback, EvaluationCallback) for callback in trainer.callbacks) == 1


def test_evaluation_every_0_is_none():
    trainer = trainer_of(1)
    trainer.fit(module_of(evaluation={"every": 0}))
    assert not any(isinstance(callback, EvaluationCallback) for callback in trainer.callbacks)
