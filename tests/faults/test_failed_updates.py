"""After too many rejections in a row a run stops and leaves a failed, and `replay` says what was wrong."""

import json
import math
import re

import pytest
import pytorch_lightning as pl
import torch

from trpo_lightning import TRPO, UserError
from trpo_lightning.__main__ import main
from trpo_lightning.errors import DiskError, StuckError
from trpo_lightning.runs.checkpoint import read, save
from trpo_lightning.runs.config import write_config
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.replay import replay
from trpo_lightning.runs.run import train_run
from trpo_lightning.settings import RunSettings, updated
from trpo_lightning.training import failed_update
from trpo_lightning.training.failed_update import failed_update_path, read_failed_update

SMALL = {
    "env.id": "faulty_numbers:faulty",
    "env.backend": "gymnasium",
    "env.num_envs": 4,
    "env.max_episode_steps": 50,
    "rollout.steps_per_iteration": 64,
    "policy.hidden_sizes": [8],
    "value.hidden_sizes": [8],
    "evaluation.every": 0,
    "checkpoint.every": 2,
    "rule.max_rejections": 3,
    "total_iterations": 9,
    "threads": 1,
    "tracking.wandb": "disabled",
}
NAN_REWARDS = {"env.kwargs": {"where": "reward", "after": 24}, "checkpoint.every": 0}
NAN_RETURNS = {"env.kwargs": {"where": "reward"}, "rollout.scheme": "population", "rule.population": 6}
NEVER = {"rule.kl_slack": 1e-9}
"""Refuses every candidate, with the whole update behind it."""


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # `main` sets them; this puts them back


def settings(**values):
    values = {key.replace("__", "."): value for key, value in values.items()}
    return updated(RunSettings(), {**SMALL, **values}, lenient=SMALL)


def train(run_dir, values, resume=False):
    return train_run(settings(**values), run_dir, resume=resume, quiet=True)


def stuck(run_dir, values, resume=False) -> str:
    with pytest.raises(StuckError) as raised:
        train(run_dir, values, resume)
    return str(raised.value)


def status(run_dir) -> dict:
    return json.loads((run_dir / "status.json").read_text())


def test_a_run_stops_after_so_many_rejections_in_a_row_and_leaves_a_file(tmp_path):
    message = stuck(tmp_path / "run", NAN_REWARDS)
    path = failed_update_path(tmp_path / "run", 4)  # steps 24 on are in the second of 16 steps an environment
    assert str(path) in message and "replay" in message and "the gradient is not finite" in message
    assert status(tmp_path / "run")["state"] == "failed" and status(tmp_path / "run")["iteration"] == 4
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [bool(row["update/rejection_reason"]) for row in rows] == [False, True, True, True]
    failed = read_failed_update(path)
    assert failed.iteration == 4 and failed.reason == rows[-1]["update/rejection_reason"]
    assert failed.settings == settings(**NAN_REWARDS)


def test_rejections_that_are_not_in_a_row_stop_nothing(tmp_path):
    values = {**NAN_REWARDS, "checkpoint.every": 2, "rule.max_rejections": 2}  # barriers heal the environments
    outcome = train(tmp_path / "run", values)
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert outcome.state == "finished" and rows[-1]["update/rejected"] == "4"
    assert not list((tmp_path / "run").glob("failed_update*"))


def test_null_never_stops(tmp_path):
    outcome = train(tmp_path / "run", {**NAN_REWARDS, "rule.max_rejections": None, "total_iterations": 6})
    assert outcome.state == "finished"


def test_a_plain_trainer_raises_and_leaves_the_failed_update_in_its_folder(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=9, default_root_dir=tmp_path, accelerator="cpu", enable_model_summary=False, **quiet
    )
    with pytest.raises(StuckError) as raised:
        trainer.fit(module := TRPO(settings=settings(**NEVER)))
    path = failed_update_path(tmp_path, 3)
    assert str(raised.value) == (
        "the last 3 updates were rejected (the line search found no step: the KL is beyond delta): "
        f"see why with python -m trpo_lightning replay {path}"
    )
    assert module.scheme._envs is None and trainer.current_epoch == 3
    failed = read_failed_update(path)
    assert replay(failed, failed.settings)[1]


def test_a_resumed_run_stops_at_the_same_iteration(tmp_path):
    stuck(tmp_path / "whole", {**NEVER, "rule.max_rejections": 5})
    train(tmp_path / "parts", {**NEVER, "rule.max_rejections": 5, "total_iterations": 4})
    stuck(tmp_path / "parts", {**NEVER, "rule.max_rejections": 5}, resume=True)
    whole, parts = (read_failed_update(failed_update_path(tmp_path / name, 5)) for name in ("whole", "parts"))
    assert whole.metrics == parts.metrics and torch.equal(whole.batch.observations, parts.batch.observations)


def test_a_run_that_stopped_at_a_barrier_stays_stopped_until_it_may_go_on(tmp_path):
    values = {**NEVER, "rule.max_rejections": 4}
    stuck(tmp_path / "run", values)
    path = failed_update_path(tmp_path / "run", 4)
    before = path.read_bytes()
    assert str(path) in stuck(tmp_path / "run", values, resume=True)
    assert path.read_bytes() == before and len(read_rows(tmp_path / "run" / "metrics.csv")) == 4
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet", "rule.max_rejections=null"]) == 0
    assert status(tmp_path / "run")["state"] == "finished"


KINDS = {
    "trust_region": NEVER,
    "final_delta": {**NEVER, "rule.final_delta": 0.001},
    "max_kl": {**NEVER, "rule.kl_over_states": "max"},
    "vanilla": {**NAN_REWARDS, "rule.name": "vanilla_policy_gradient"},
    "rwr": {**NAN_REWARDS, "rule.name": "reward_weighted_regression", "value.name": "none", "gae_lambda": 1.0},
    "cem": {**NAN_RETURNS, "rule.name": "cem"},
    "cma_es": {**NAN_RETURNS, "rule.name": "cma_es"},
    "discrete": {**NEVER, "env.kwargs": {"discrete": True}},
    "vine": {
        **NEVER,
        "env.id": "CartPole-v1",
        "rollout.scheme": "vine",
        "value.name": "none",
        "rollout.rollout_set_size": 5,
        "rollout.branch_length": 40,  # some branches fall: where all are worth the same there is nothing to gain
    },
    "exact": {
        **NEVER,
        "env.id": "FrozenLake-v1",
        "env.backend": "gymnasium",
        "rollout.scheme": "exact",
        "value.name": "none",
        "rule.fisher_fraction": 1.0,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_repeats_the_rejection_number_for_number(kind, tmp_path):
    run_dir = tmp_path / "run"
    stuck(run_dir, KINDS[kind])
    (path,) = run_dir.glob("failed_update_*.pt")
    failed = read_failed_update(path)
    report, reproduced = replay(failed, failed.settings)
    assert reproduced and "the same, number for number" in report and failed.reason in report
    recorded = read(path)["rule"]
    assert str(failed.rule(failed.settings).state_dict()) == str(recorded)
    assert bool(recorded) == (kind in ("vanilla", "cem", "cma_es"))
    rows = read_rows(run_dir / "metrics.csv")
    for name, value in failed.metrics.items():
        assert float(rows[-1][name]) == value


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The file of an update that every candidate of failed, in a folder of its own."""
    folder = tmp_path_factory.mktemp("failed")
    stuck(folder / "run", {**NEVER, "rule.fisher_fraction": 0.2})  # which rows: random numbers that count
    return failed_update_path(folder / "run", 3)


def test_other_random_numbers_or_parameters_are_noticed(path):
    state = read(path)
    for changed in ({"generator_seed": 5}, {"policy": {n: t * 1.001 for n, t in state["policy"].items()}}):
        save({**state, **changed}, path.with_name("changed.pt"))
        failed = read_failed_update(path.with_name("changed.pt"))
        report, reproduced = replay(failed, failed.settings)
        assert not reproduced and "other numbers (" in report
    save({**state, "reason": "something else"}, path.with_name("changed.pt"))
    report, reproduced = replay(read_failed_update(path.with_name("changed.pt")), failed.settings)
    assert not reproduced and "DIFFERENTLY" in report


def test_the_diagnosis_shows_the_search_candidate_by_candidate(path):
    failed = read_failed_update(path)
    report, _ = replay(failed, failed.settings)
    table = re.findall(r"^ +(\d+) +([\d.e-]+) +(\S+) +(\S+)$", report, flags=re.MULTILINE)
    assert [int(row[0]) for row in table] == list(range(11))
    assert [float(row[1]) for row in table] == [float(f"{0.8**k:.4g}") for k in range(11)]
    kls = [float(row[3]) for row in table]
    assert all(float(row[2]) > 0.0 for row in table[-3:])
    assert kls == sorted(kls, reverse=True) and 0.005 < kls[0] < 0.05
    assert f"relative residual {failed.metrics['cg/residual']:.4g}" in report
    curvature = float(re.search(r"s'As ([\d.e+-]+)", report)[1])
    damped = float(re.search(r"damping s's ([\d.e+-]+)", report)[1])
    # the first candidate is at the boundary of the damped quadratic model of the KL, near which the KL is
    assert kls[0] == pytest.approx(failed.settings.rule.delta * curvature / (curvature + damped), rel=0.3)


def test_the_diagnosis_shows_the_limited_step(path):
    """A limit a thousandth as large makes the first candidate's KL about a millionth as large."""
    failed = read_failed_update(path)

    def first_kl(**changes):
        report, _ = replay(failed, updated(failed.settings, {f"rule.{name}": value for name, value in changes.items()}))
        return float(re.search(r"^ +0 +1 +\S+ +(\S+)$", report, flags=re.MULTILINE)[1])

    assert first_kl(max_step_size=None) > 1e-4
    assert first_kl(max_step_size=1e-5) < 1e-3 * first_kl(max_step_size=1e-2) < first_kl(max_step_size=None)


def test_the_diagnosis_finds_the_number_that_began_it(tmp_path):
    kwargs = {"where": "reward", "after": 24, "value": "inf"}
    stuck(tmp_path / "run", {**NAN_REWARDS, "env.kwargs": kwargs})
    report, _ = replay(failed := read_failed_update(failed_update_path(tmp_path / "run", 4)), failed.settings)
    rewards = failed.collected["rewards"]
    line = next(line for line in report.splitlines() if line.startswith("collected.rewards"))
    assert (
        f"{int(torch.isinf(rewards).sum())} inf of {rewards.numel()}, at {rewards.isinf().nonzero()[0].tolist()}"
        in line
    )
    assert re.search(r"^batch.observations .* none$", report, flags=re.MULTILINE)
    assert re.search(r"^batch.advantages .* nan of ", report, flags=re.MULTILINE)
    assert re.search(r"^log_std +0 to 0$|^log_std +-?[\d.e-]+ to -?[\d.e-]+$", report, flags=re.MULTILINE)
    assert "gradient     norm nan, not finite:" in report


def test_settings_of_the_rule_can_be_tried_on_the_same_batch(path, capsys):
    assert main(["replay", str(path), "rule.kl_slack=1.5", "rule.damping=0.5"]) == 0
    report = capsys.readouterr().out
    assert "rule.damping=0.5" in report and "accepted: " in report and "the same, number for number" in report
    assert main(["replay", str(path), "rule.name=vanilla_policy_gradient"]) == 0
    assert "accepted: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("gamma=0.5", "gamma"),
        ("rule.standardize_advantages=false", "rule.standardize_advantages"),
        ("rule.dleta=1", "rule.dleta"),
        ("rule.delta=-1", "rule.delta"),
        ("policy.hidden_sizes=[3]", "policy.hidden_sizes"),
        ("delta", "delta"),
    ],
)
def test_what_a_replay_cannot_change_is_refused(path, capsys, override, named):
    assert main(["replay", str(path), override]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and named in line


def test_files_that_are_no_failed_updates_are_refused_in_one_line(path, tmp_path, capsys):
    data = path.read_bytes()
    state = read(path)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    files = {"truncated": data[:-20], "flipped": bytes(flipped), "empty": b"", "foreign": b"PK\x03\x04"}
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
    save({**state, "kind": "barrier"}, tmp_path / "barrier")
    save({name: value for name, value in state.items() if name != "batch"}, tmp_path / "lacking")
    save({**state, "settings": {**state["settings"], "colour": 1}}, tmp_path / "later")
    save({**state, "batch": {"class": "Later", "fields": {}}}, tmp_path / "unknown_batch")
    for name in (*files, "barrier", "lacking", "later", "unknown_batch", "missing"):
        assert main(["replay", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and str(tmp_path / name) in line
    with pytest.raises(UserError):
        read_failed_update(next((path.parent / "checkpoints").glob("barrier_*")))


def test_the_command_line_tells_a_stopped_run_by_its_exit_code(tmp_path, capsys):
    write_config(settings(**NAN_REWARDS), tmp_path / "config.yaml")
    assert (
        main(["train", "--config", str(tmp_path / "config.yaml"), "--run-dir", str(tmp_path / "run"), "--quiet"]) == 3
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "failed_update_00000004.pt" in line


def test_a_failed_update_that_cannot_be_written_is_no_reason_for_a_traceback(tmp_path, monkeypatch):
    def full(*_):
        raise DiskError("failed_update.pt: cannot be written: No space left on device")

    monkeypatch.setattr(failed_update, "save", full)
    assert "cannot be written: No space left on device" in stuck(tmp_path / "run", NEVER)


def test_a_rollout_without_a_transition_has_a_failed_update_too(tmp_path):
    reasons = []

    class OnlyResets(TRPO):
        def training_step(self, rollout, batch_idx=0):
            rollout.valid[:] = False
            super().training_step(rollout, batch_idx)
            reasons.append(self.row["update/rejection_reason"])

    module = OnlyResets(settings=settings(**{"rollout.steps_per_iteration": 4, "env.kwargs": {"length": 1}}))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=8, default_root_dir=tmp_path, accelerator="cpu", enable_model_summary=False, **quiet
    )
    with pytest.raises(StuckError):
        trainer.fit(module)
    assert reasons == ["the rollout has no transition"] * 3
    module.failed_update.write(tmp_path / "failed_update.pt")
    failed = read_failed_update(tmp_path / "failed_update.pt")
    report, reproduced = replay(failed, failed.settings)
    assert reproduced and not math.isnan(len(report))
