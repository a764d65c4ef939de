"""To be done is no failure: a run without a signal goes on, says why it did not step, and finishes."""

import pytest
import pytorch_lightning as pl
import torch
from methods import mlp_policy, rule_settings

from trpo_lightning.policies.spaces import ContinuousActions
from trpo_lightning.rollouts.rollout import Batch, VineBatch
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.rejections import Rejection, recorded
from trpo_lightning.rules.rule import RuleResult, UpdateRule, apply_rule
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import train_run
from trpo_lightning.settings import from_keywords
from trpo_lightning.training.module import TRPO

SOLVED = {
    "env": {"id": "odd_environments:Bandit", "num_envs": 4},
    "rollout": {"steps_per_iteration": 128},
    "policy": {"hidden_sizes": [8]},
    "value": {"hidden_sizes": [8], "epochs": 1},
    "evaluation": {"every": 0},
    "tracking": {"wandb": "disabled"},
    "threads": 1,
}


def test_a_task_that_is_solved_for_good_is_a_finished_run(tmp_path):
    rule = {"delta": 0.5, "max_rejections": 3}
    settings = from_keywords(**SOLVED, rule=rule, total_iterations=50)
    outcome = train_run(settings, tmp_path / "run", quiet=True)
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert outcome.state == "finished" and float(rows[-1]["episode/return_mean"]) == 5.0
    assert int(rows[-1]["update/rejected"]) > 3
    assert sum(bool(row["update/rejection_reason"]) for row in rows) == int(rows[-1]["update/rejected"])
    assert not list((tmp_path / "run").glob("failed_update*"))


def policy():
    return mlp_policy(
        (3,),
        ContinuousActions(2),
        hidden_sizes=[8],
        activation="tanh",
        initial_log_std=0.0,
        generator=torch.Generator().manual_seed(0),
    )


def batch(advantages) -> Batch:
    generator = torch.Generator().manual_seed(1)
    observations, actions = (torch.randn(40, size, generator=generator) for size in (3, 2))
    return Batch(observations, actions, advantages)


def result_of(advantages, **settings) -> RuleResult:
    rule = build_rule(rule_settings(**settings))
    return apply_rule(rule, policy(), batch(advantages), torch.Generator().manual_seed(0))


def test_advantages_that_are_all_zero_hold_nothing():
    found = result_of(torch.zeros(40))
    assert found.rejection_reason is Rejection.NO_ASCENT_DIRECTION and found.nothing_to_gain


def test_a_vine_whose_branches_are_all_worth_the_same_holds_nothing():
    generator = torch.Generator().manual_seed(1)
    vine = VineBatch(
        *(torch.randn(10, *shape, generator=generator) for shape in ((3,), (4, 2))), torch.full((10, 4), 7.0)
    )
    found = apply_rule(build_rule(rule_settings()), policy(), vine, torch.Generator())
    assert found.rejection_reason and found.nothing_to_gain


def test_a_search_that_fails_although_there_is_a_signal_is_a_failure():
    advantages = torch.randn(40, generator=torch.Generator().manual_seed(2))
    for scale in (1e-6, 1.0, 1e6):  # whatever the rewards are measured in
        found = result_of(scale * advantages, kl_slack=1e-9)
        assert found.rejection_reason is Rejection.CONSTRAINT_EXCEEDED and not found.nothing_to_gain


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_failures(value):
    found = result_of(torch.full((40,), value))
    assert found.rejection_reason is Rejection.GRADIENT_NOT_FINITE and not found.nothing_to_gain


class Alternating(UpdateRule):
    """Rejects all updates; every third one finds nothing to gain. It names a metric and a phase of its own."""

    calls = 0

    def update(self, policy, batch, generator):
        self.calls += 1
        theta = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
        numbers = {"mine/calls": float(self.calls)}
        return RuleResult(theta, "mine: no step", numbers, {"mine": 0.25}, nothing_to_gain=self.calls % 3 == 0)


def test_a_rule_of_ones_own_says_so_itself_and_its_numbers_and_seconds_are_logged():
    module = TRPO(**SOLVED, max_rejections=3)
    module.rule = Alternating(module.settings.rule)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=7, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(module)
    assert module.iteration == module.rejected == 7 and module.rejected_in_a_row == 1
    assert module.row["mine/calls"] == 7 and module.row["time/mine"] == 0.25
    assert module.row["update/rejection_reason"] == "mine: no step"
    assert module.row["time/overhead"] < 0  # the quarter of a second was no more than claimed


def test_reasons_of_older_records_are_read_and_those_of_others_stay_texts():
    for reason in Rejection:
        assert recorded(str(reason)) is reason and type(str(reason)) is str
    assert recorded("mine: no step") == "mine: no step"
