"""Programs of examples/ that extend the package from outside: on the command line they are as built-in parts are."""

import csv
import math
import re
import shlex
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from wandb_records import offline_config, offline_history

from trpo_lightning import load
from trpo_lightning.__main__ import main
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.experiment.runner import results_so_far
from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.config import load_settings, overridden, recorded_settings
from trpo_lightning.runs.run import train_run
from trpo_lightning.settings import get

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = """env.num_envs=2 env.backend=gymnasium rollout.steps_per_iteration=64 evaluation.every=0 threads=1
    checkpoint.every=2 tracking.wandb=offline total_iterations=3""".split()
OWN = {
    "kl_penalty_rule": ({"rule.kl_target": 0.02}, {"kl_penalty/beta", "kl_penalty/surrogate", "trust_region/kl"}),
    "state_dependent_std": ({"policy.log_std_range": 1.0}, {"policy/bias_log_std"}),
    "ensemble_value": ({"value.members": 3}, {"value/disagreement", "value/loss"}),
    "own_scheme": ({"rollout.fresh_every": 2}, set()),
    "own_environment": ({"env.kwargs": {"outside": -5}}, set()),
    "own_metric": ({}, {"step/cosine"}),
}
"""Keys that an example's command sets, and metrics that it adds."""


@pytest.fixture(autouse=True)
def in_examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(EXAMPLES)


def command_of(example):
    """The arguments of the `train` command in a file's docstring."""
    text = (EXAMPLES / f"{example}.py").read_text(encoding="utf-8").split('"""')[1].replace("\\\n", " ")
    return shlex.split(re.search(r"^\$ python -m trpo_lightning (train .*)$", text, flags=re.M)[1])


def recorded(run, rows):
    """W&B's offline history, once a process of its own has written so many rows of it."""
    end = time.monotonic() + 60
    while len(found := offline_history(run)) < rows:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("example", OWN)
def test_the_command_of_an_example_trains_and_all_records_have_its_keys_and_metrics(example, tmp_path, capsys):
    (keys, metrics), run = OWN[example], tmp_path / "run"
    assert main([*command_of(example), *SMALL, "--run-dir", str(run), "--quiet"]) == 0, capsys.readouterr()
    history = recorded(run, 3)[-1]
    config, sent = OmegaConf.load(run / "config.yaml"), OmegaConf.create(offline_config(run))
    for key, value in keys.items():
        assert OmegaConf.select(config, key) == OmegaConf.select(sent, key) == value
    with open(run / "metrics.csv", newline="") as file:
        row = list(csv.DictReader(file))[-1]
    for name in metrics:
        assert math.isfinite(float(row[name])) and history[name] == float(row[name])
    policy = load(run)
    assert all(get(policy.settings, key) == value for key, value in keys.items())
    action = policy.act([0.1] * policy.spec.observation_shape[0])
    assert policy.spec.actions is not None and action is not None


@pytest.mark.parametrize("example", [name for name, (keys, _) in OWN.items() if keys and "env.kwargs" not in keys])
def test_help_shows_its_keys_with_their_meaning_and_a_bad_value_is_one_line(example, capsys):
    (key,), command = OWN[example][0], command_of(example)
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith(f"{key}="))
    assert len(line.split()) > 4
    assert main([*command, f"{key}=-1"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {key}=-1")


def test_the_penalty_keeps_the_kl_near_its_target_and_learns(tmp_path):
    small = """rollout.steps_per_iteration=1024 env.num_envs=8 env.backend=gymnasium threads=1 evaluation.every=0
        rule.minibatch_size=128 rule.learning_rate=1e-3 tracking.wandb=disabled total_iterations=14""".split()
    assert main([*command_of("kl_penalty_rule"), *small, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    late = sorted(float(row["trust_region/kl"]) for row in rows[4:])
    assert 0.02 / 2 < late[len(late) // 2] < 0.02 * 2
    assert float(rows[-1]["episode/return_mean"]) > 3 * float(rows[0]["episode/return_mean"])


def test_a_policy_that_cannot_act_in_a_space_says_so(tmp_path, capsys):
    command = ["train", "policy.name=state_dependent_std:StateDependentStd", "env.id=CartPole-v1", *SMALL]
    assert main([*command, "--run-dir", str(tmp_path / "run")]) == 2
    assert "policy.name=state_dependent_std:StateDependentStd: needs continuous actions" in capsys.readouterr().err


def trained(folder, *keys, iterations=3):
    """The policy's and the value function's parameters after a few iterations, and the rows of metrics."""
    small = """env.id=Pendulum-v1 env.num_envs=2 env.backend=gymnasium rollout.steps_per_iteration=64 evaluation.every=0
        threads=1 checkpoint.every=1 tracking.wandb=disabled total_env_steps=10000""".split()
    train_run(load_settings([*small, f"total_iterations={iterations}", *keys]), folder, quiet=True)
    with open(folder / "metrics.csv", newline="") as file:
        return parameters(folder), list(csv.DictReader(file))


def parameters(folder):
    state = checkpoint.read(checkpoint.checkpoint_files(folder / "checkpoints")[0])
    return [*state["policy"].values(), *state["value_function"].values()]


@pytest.mark.parametrize(
    "keys",
    [
        ["rule.name=cheaper_reuse:SeveralSteps", "rule.steps=1"],
        ["rule.name=cheaper_reuse:SeveralSteps", "rule.steps=1", "rule.refresh_curvature=false"],
        ["rule.name=cheaper_reuse:FisherOverBatches", "rule.fisher_batches=1"],
        ["rule.name=cheaper_reuse:WarmStart"],
        ["value.name=cheaper_reuse:ValuesOverBatches", "value.batches=1"],
    ],
)
def test_cheaper_reuse_without_reuse_is_trpo_bit_for_bit(tmp_path, keys):
    (ours, _), (plain, _) = trained(tmp_path / "ours", *keys), trained(tmp_path / "plain")
    assert all(torch.equal(x, y) for x, y in zip(ours, plain, strict=True))


@pytest.mark.parametrize(
    "keys",
    [
        ["rule.name=cheaper_reuse:SeveralSteps"],
        ["rule.name=cheaper_reuse:FisherOverBatches"],
        ["rule.name=cheaper_reuse:WarmStart"],
        ["value.name=cheaper_reuse:ValuesOverBatches"],
    ],
)
def test_cheaper_reuse_differs_from_trpo_and_resumes_bit_for_bit(tmp_path, keys):
    straight, rows = trained(tmp_path / "straight", *keys, iterations=6)
    if "rule.name=cheaper_reuse:WarmStart" not in keys:
        plain, _ = trained(tmp_path / "plain", iterations=6)
        assert not all(torch.equal(x, y) for x, y in zip(straight, plain, strict=True))
    else:
        assert float(rows[-1]["warm_start/cold"]) > float(rows[-1]["cg/residual"])  # after half of the products
    trained(tmp_path / "broken", *keys, iterations=4)
    settings = overridden(recorded_settings(tmp_path / "broken"), "here", ["total_iterations=6"])
    train_run(settings, tmp_path / "broken", resume=True, quiet=True)
    assert all(torch.equal(x, y) for x, y in zip(parameters(tmp_path / "broken"), straight, strict=True))


def test_several_steps_together_go_as_far_as_one(tmp_path):
    """Along a straight line K steps of radius delta / K^2 have the KL delta."""
    for steps in (2, 4):
        keys = [
            "rule.name=cheaper_reuse:SeveralSteps",
            f"rule.steps={steps}",
            "rule.damping=1e-4",
            "rule.final_delta=null",
        ]
        _, rows = trained(tmp_path / str(steps), *keys, "rollout.steps_per_iteration=512", "rule.max_step_size=null")
        assert all(float(row["several_steps/taken"]) == steps for row in rows)
        assert all(0.3 * 0.01 < float(row["several_steps/kl"]) < 1.5 * 0.01 for row in rows)
        assert all(float(row["trust_region/delta"]) == pytest.approx(0.01 / steps**2) for row in rows)


@pytest.mark.slow
def test_the_experiment_runs_from_its_folder(tmp_path):
    few = ["--scale", "quick", "--root", str(tmp_path), "total_env_steps=2048"]
    assert main(["experiment", "kl_penalty", *few]) == 0
    states = [done.state for done in results_so_far(load_experiment("kl_penalty", "quick").cells(few[4:]), tmp_path)]
    assert states == ["finished", "finished"]


@pytest.mark.parametrize("rule", ["SeveralSteps", "FisherOverBatches", "WarmStart"])
def test_rejected_updates_of_cheaper_reuse_are_replayed(tmp_path, capsys, rule):
    impossible = """rule.max_rejections=2 rule.max_backtracks=0 rule.improvement_ratio=0.99 rule.delta=50
        rule.final_delta=null rule.max_step_size=null""".split()
    small = [item for item in SMALL if not item.startswith("tracking")]
    command = ["train", f"rule.name=cheaper_reuse:{rule}", *small, *impossible, "tracking.wandb=disabled"]
    command += ["env.id=Pendulum-v1", "total_iterations=20", "--quiet", "--run-dir", str(tmp_path / "run")]
    assert main(command) == 3  # stuck
    (failed,) = (tmp_path / "run").glob("failed_update_*.pt")
    capsys.readouterr()
    assert main(["replay", str(failed)]) == 0, capsys.readouterr()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("devices=2", "does not go with devices=2"),
        ("rule.curvature=empirical_fisher", "needs actions"),
    ],
)
def test_what_cheaper_reuse_cannot_do_is_one_line(tmp_path, capsys, override, said):
    command = [
        "train",
        "rule.name=cheaper_reuse:FisherOverBatches",
        *SMALL,
        override,
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert main(command) == 2
    assert said in capsys.readouterr().err
