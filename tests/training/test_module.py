"""The LightningModule as Lightning users meet it."""

import copy
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from collected_log_probs import collected_log_probs
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from trpo_lightning import TRPO, UserError
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.rollouts.episodes import Episodes
from trpo_lightning.rollouts.rollout import valid_rows
from trpo_lightning.settings import RunSettings, keys, to_dict
from trpo_lightning.training.batches import make_batch
from trpo_lightning.training.evaluation import EvaluationCallback

TINY = {"num_envs": 4, "steps_per_iteration": 64, "epochs": 1}


def fit(module: TRPO, iterations: int, **arguments) -> pl.Trainer:
    defaults = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=iterations, enable_model_summary=False, **(defaults | arguments))
    trainer.fit(module)
    return trainer


class LagProbe(TRPO):
    """Compares the log-probabilities at collection with those of the policy at the start of each update."""

    def collect(self):
        then, rollout = copy.deepcopy(self.policy), super().collect()
        self.collected[id(rollout)] = collected_log_probs(then, rollout)
        return rollout

    def training_step(self, rollout, batch_idx=0):
        with torch.no_grad():
            rows = [valid_rows(x, rollout.valid, self.device) for x in (rollout.observations, rollout.actions)]
            now = self.policy(rows[0]).log_prob(rows[1])
            stored = valid_rows(self.collected[id(rollout)], rollout.valid, self.device)
            self.lags.append(float((now - stored).abs().max()))
        self.steps_before.append(self.trainer.global_step)
        super().training_step(rollout, batch_idx)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v5"])
@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_each_update_uses_a_rollout_of_the_policy_as_it_is(env_id, backend):
    module = LagProbe(env_id, backend=backend, delta=0.05, **TINY)
    module.lags, module.steps_before, module.collected = [], [], {}
    fit(module, 4)
    assert max(module.lags) <= 1e-5
    assert module.steps_before == [0, 1, 2, 3]


def test_a_stale_rollout_would_be_noticed():
    module = LagProbe("CartPole-v1", delta=0.05, **TINY)
    module.lags, module.steps_before, module.collected = [], [], {}
    stale = module.collect()
    fit(module, 3)
    module.training_step(stale)
    assert module.lags[-1] > 1e-3


def test_global_step_counts_iterations_and_rejected_ones_too():
    module = TRPO("CartPole-v1", delta=0.02, **TINY)
    collect = module.collect

    def collect_with_nan():
        rollout = collect()
        if module.iteration == 1:
            rollout.rewards[0] = np.nan
        return rollout

    module.collect = collect_with_nan
    thetas = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            thetas.append(parameter_vector(pl_module.policy))

    trainer = fit(module, 3, callbacks=[Watch()])
    assert trainer.global_step == module.iteration == 3
    assert torch.equal(thetas[0], thetas[1]) and not torch.equal(thetas[1], thetas[2])
    assert module.rejected == 1
    assert trainer.callback_metrics["update/rejected"] == 1


def test_a_rejected_iteration_leaves_the_value_function_and_its_optimizer_alone():
    module = TRPO("CartPole-v1", **TINY)
    fit(module, 1)
    before = parameter_vector(module.value_function)
    steps = module.value_function.optimizer_state()["state"][0]["step"].clone()
    rollout = module.collect()
    rollout.rewards[:] = np.inf
    module.training_step(rollout)
    assert torch.equal(before, parameter_vector(module.value_function))
    assert module.value_function.optimizer_state()["state"][0]["step"] == steps
    assert math.isnan(module.row["value/loss"]) and module.row["update/rejection_reason"]


def test_settings_by_keyword_have_the_defaults_of_the_command_line():
    module = TRPO("Hopper-v5", delta=0.02)
    expected = RunSettings()
    expected.rule.delta = 0.02
    assert to_dict(module.settings) == to_dict(expected)
    assert "rule.delta" in keys()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dleta": 0.1}, "dleta"),
        ({"delta": -1.0}, "rule.delta"),
        ({"hidden_sizes": [3]}, "ambiguous"),
        ({"policy": {"hidden": [3]}}, "policy.hidden"),
    ],
)
def test_bad_keywords_are_refused_by_name(keywords, message):
    with pytest.raises(UserError, match=message):
        TRPO("CartPole-v1", **keywords)


def test_total_env_steps_ends_training():
    module = TRPO("CartPole-v1", total_env_steps=150, **TINY)
    trainer = fit(module, 100)
    assert module.env_steps >= 150 > module.env_steps - 64
    assert trainer.global_step == module.iteration == 3


def test_total_iterations_end_training_if_the_env_steps_have_not():
    for iterations, steps, expected in ((2, 150, 2), (4, 150, 3)):
        module = TRPO("CartPole-v1", total_env_steps=steps, total_iterations=iterations, **TINY)
        assert fit(module, 100).global_step == module.iteration == expected


def test_fast_dev_run_does_one_iteration():
    module = TRPO("CartPole-v1", **TINY)
    pl.Trainer(fast_dev_run=True, enable_progress_bar=False, enable_model_summary=False, logger=False).fit(module)
    assert module.iteration == 1


def test_any_logger_gets_each_iteration_once(tmp_path):
    logger = CSVLogger(tmp_path)
    fit(TRPO("CartPole-v1", **TINY), 3, logger=logger)
    logger.save()
    lines = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("iteration")
    assert [float(line.split(",")[column]) for line in lines[1:]] == [1, 2, 3]


def test_callbacks_can_monitor_metrics_and_model_checkpoint_saves(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="trust_region/kl", mode="min", save_top_k=1)
    stopping = EarlyStopping("policy/entropy", mode="max", patience=1, check_on_train_epoch_end=True)
    module = TRPO("CartPole-v1", **TINY)
    fit(module, 30, callbacks=[checkpoint, stopping], enable_checkpointing=True)
    assert checkpoint.best_model_path and module.iteration < 30


def test_resuming_from_a_lightning_checkpoint_is_refused(tmp_path):
    trainer = fit(TRPO("CartPole-v1", **TINY), 1)
    trainer.save_checkpoint(tmp_path / "export.ckpt")
    with pytest.raises(UserError, match="--resume"):
        pl.Trainer(max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False).fit(
            TRPO("CartPole-v1", **TINY), ckpt_path=tmp_path / "export.ckpt", weights_only=False
        )


@pytest.mark.parametrize(
    "arguments", [{"precision": "bf16-mixed"}, {"precision": "64-true"}, {"devices": 2, "strategy": "ddp_spawn"}]
)
def test_trainers_that_would_change_the_algorithm_are_refused(arguments):
    module = TRPO("CartPole-v1", **TINY)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **quiet, **arguments)
    module.trainer = trainer
    with pytest.raises(UserError):
        module.setup("fit")


def test_global_random_numbers_are_not_drawn():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(TRPO("Hopper-v5", **TINY), 2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("name", ["trust_region", "vanilla_policy_gradient"])
def test_same_seed_same_bits_and_another_seed_other_bits(name):
    def run(seed):
        module = TRPO("CartPole-v1", rule={"name": name}, seed=seed, **TINY)
        fit(module, 3)
        return parameter_vector(module.policy), parameter_vector(module.value_function)

    first, second, other = run(1), run(1), run(2)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_every_row_accounts_for_its_seconds():
    rows = []

    class Rows(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            rows.append(dict(pl_module.row))

    fit(TRPO("CartPole-v1", num_envs=16, steps_per_iteration=2048), 3, callbacks=[Rows()])
    parts = ("collect", "advantages", "gradient", "cg", "line_search", "value_fit", "evaluation", "overhead")
    for row in rows[1:]:
        seconds = [row.get(f"time/{name}", 0.0) for name in parts]
        total = row["env_steps"] - rows[rows.index(row) - 1]["env_steps"]
        assert min(seconds) >= 0.0
        assert sum(seconds) == pytest.approx(total / row["time/steps_per_second"], rel=1e-6)
        assert row["time/simulator"] + row["time/inference"] <= row["time/collect"]


def test_batch_holds_the_valid_transitions_only():
    module = TRPO("CartPole-v1", num_envs=8, steps_per_iteration=8 * 200)
    rollout = module.collect()
    assert rollout.valid.sum() < rollout.valid.size
    estimated = make_batch(rollout, module.value_function, module.settings, module.device)
    batch, data = estimated.batch, estimated.value_data
    assert len(batch) == len(data.observations) == len(data.targets) == len(data.values) == rollout.env_steps
    assert abs(float(batch.advantages.mean())) < 1e-5 and float(batch.advantages.std()) == pytest.approx(1.0, abs=1e-3)


def test_value_targets_are_returns_or_lambda_returns():
    def targets(kind):
        module = TRPO("CartPole-v1", value={"targets": kind}, **TINY)
        estimated = make_batch(module.collect(), module.value_function, module.settings, module.device)
        return estimated.value_data.targets

    assert not torch.equal(targets("returns"), targets("lambda_returns"))


def test_each_interval_between_barriers_holds_five_full_episodes():
    module = TRPO("Hopper-v5")
    assert module.barrier_interval * 4096 / 32 >= 5 * 1000 > (module.barrier_interval - 1) * 4096 / 32


def test_a_rollout_in_which_every_environment_only_resets_is_survived():
    kwargs = {"lengths": [1]}
    module = TRPO("environments:counting", num_envs=2, steps_per_iteration=2, env={"kwargs": kwargs}, epochs=1)
    fit(module, 4)
    assert module.iteration == 4 and module.env_steps == 4 and module.rejected >= 2
    assert module.row["update/rejection_reason"] == "the rollout has no transition"


def test_an_evaluation_that_is_no_number_never_stays_the_best(monkeypatch):
    means = iter([math.nan, math.nan, 3.0, 3.0, math.nan, math.nan, 2.0, 2.0, 5.0, 5.0])
    monkeypatch.setattr(
        "trpo_lightning.training.evaluation.evaluate",
        lambda module, episodes, deterministic: Episodes(np.array([next(means)]), np.array([1])),
    )
    module, callback, found = TRPO("CartPole-v1", **{**TINY, "evaluation": {"every": 1}}), EvaluationCallback(), []
    for iteration in range(1, 6):
        module.iteration = iteration
        callback.on_train_batch_end(None, module, None, None, 0)
        found.append(module.best_evaluation)
    assert math.isnan(found[0]) and found[1:] == [3.0, 3.0, 3.0, 5.0]
