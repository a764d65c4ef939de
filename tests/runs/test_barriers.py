"""Runs in directories: barriers, exact resume, damaged files, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from methods import on_top_of

from trpo_lightning import UserError, load
from trpo_lightning.__main__ import main
from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import train_run
from trpo_lightning.training.metrics import METRICS

BASE = [
    "env.id=Hopper-v5",
    "env.num_envs=4",
    "rollout.steps_per_iteration=256",
    "env.max_episode_steps=40",
    "checkpoint.every=2",
    "evaluation.every=3",
    "evaluation.episodes=2",
    "value.epochs=2",
    "policy.hidden_sizes=[16]",
    "tracking.wandb=disabled",
    "threads=1",
]
ITERATION = 256
"""Slots of an iteration; a few less are env steps."""


def settings(*overrides: str):
    return on_top_of(BASE, list(overrides))


def train(run_dir: Path, *overrides: str, resume: bool = False, iterations: int = 8):
    steps = iterations * ITERATION - 120
    return train_run(settings(f"total_env_steps={steps}", *overrides), run_dir, resume=resume, quiet=True)


def resume_in_a_new_process(run_dir: Path, steps: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "trpo_lightning", "train", "--quiet", "--resume", str(run_dir)]
    command.append(f"total_env_steps={steps}")
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_same_bits(first: object, second: object, where: str = "state") -> None:
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same_bits(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same_bits(a, b, f"{where}[{i}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def newest(run_dir: Path) -> dict:
    return checkpoint.read(checkpoint.checkpoint_files(run_dir / "checkpoints")[0])


def rows_without_times(run_dir: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(run_dir / "metrics.csv")]


@pytest.mark.parametrize(
    "variant",
    [
        ["env.backend=envpool"],
        ["env.backend=gymnasium"],
        ["env.backend=envpool", "rule.name=vanilla_policy_gradient"],
        ["env.id=CartPole-v1", "env.backend=gymnasium", "env.asynchronous=true"],
        ["env.backend=envpool", "rule.reuse=optimal"],
    ],
    ids=["envpool", "gymnasium", "vanilla", "asynchronous", "reuse"],
)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, variant):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    outcome = train(straight, *variant, iterations=8)
    assert outcome.iteration == 8
    first = train(broken, *variant, iterations=5)  # ends between the barriers 4 and 6
    assert first.iteration == 5
    done = resume_in_a_new_process(broken, 8 * ITERATION - 120)
    assert done.returncode == 0, done.stderr
    before, after = newest(straight), newest(broken)
    assert before["iteration"] == after["iteration"] == 8
    for state in (before, after):
        del state["random"], state["wandb_run_id"]
    before["settings"]["total_env_steps"] = after["settings"]["total_env_steps"]
    assert_same_bits(before, after)
    assert rows_without_times(straight) == rows_without_times(broken)
    assert [int(row["iteration"]) for row in rows_without_times(broken)] == list(range(1, 9))


@pytest.mark.parametrize(
    "keys",
    ["name=lbfgs value.iterations=3", "name=trust_region", "name=linear", "name=none", "features=policy"],
)
def test_other_value_functions_resume_bit_for_bit(tmp_path, keys):
    variant = [*f"value.{keys}".split(), "evaluation.every=0"]
    train(tmp_path / "straight", *variant, iterations=4)
    train(tmp_path / "broken", *variant, iterations=3)
    train(tmp_path / "broken", *variant, iterations=4, resume=True)
    for part in ("policy", "value_function", "value_optimizer"):
        assert_same_bits(newest(tmp_path / "straight")[part], newest(tmp_path / "broken")[part])
    assert rows_without_times(tmp_path / "straight") == rows_without_times(tmp_path / "broken")


REUSE = ["env.id=CartPole-v1", "env.backend=gymnasium", "rollout.whole_episodes=true", "evaluation.every=0"]


def test_past_batches_of_whole_episodes_are_in_the_barrier(tmp_path):
    variant = [*REUSE, "rule.reuse=uniform", "rule.reuse_batches=3"]
    train(tmp_path / "straight", *variant, "total_iterations=6", iterations=20)
    train(tmp_path / "broken", *variant, "total_iterations=3", iterations=20)
    train(tmp_path / "broken", *variant, "total_iterations=6", iterations=20, resume=True)
    states = [newest(tmp_path / name) for name in ("straight", "broken")]
    assert [len(state["past_rollouts"]) for state in states] == [
        2,
        2,
    ]  # one less than batches, whatever the run's length
    for part in ("past_rollouts", "policy", "value_function", "value_optimizer", "normalizer"):
        assert_same_bits(*(state[part] for state in states))
    assert rows_without_times(tmp_path / "straight") == rows_without_times(tmp_path / "broken")


def test_a_barrier_without_the_batches_it_needs_is_refused(tmp_path, capsys):
    train(tmp_path, *REUSE, "rule.reuse=uniform", "total_iterations=4", iterations=20)
    for path in checkpoint.checkpoint_files(tmp_path / "checkpoints"):
        state = checkpoint.read(path)
        del state["past_rollouts"]
        checkpoint.save(state, path)
    assert main(["train", "--resume", str(tmp_path), "total_iterations=6"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lacks past_rollouts, the batches that rule.reuse=uniform needs" in line


@pytest.mark.parametrize(
    ("policy", "value", "backend"),
    [("gru", "lstm", "gymnasium"), ("lstm", "adam", "envpool"), ("mlp", "gru", "envpool")],
)
def test_memories_resume_bit_for_bit(tmp_path, policy, value, backend):
    """Episodes of 100 steps in iterations of 64: each barrier cuts them, and with them what was remembered."""
    variant = [f"policy.name={policy}", f"value.name={value}", f"env.backend={backend}", "evaluation.every=0"]
    variant += ["env.id=Pendulum-v1", "env.max_episode_steps=100"]
    train(tmp_path / "straight", *variant, iterations=5)
    train(tmp_path / "broken", *variant, iterations=3)  # ends between the barriers 2 and 4
    train(tmp_path / "broken", *variant, iterations=5, resume=True)
    for part in ("policy", "value_function", "value_optimizer", "normalizer"):
        assert_same_bits(newest(tmp_path / "straight")[part], newest(tmp_path / "broken")[part])
    assert rows_without_times(tmp_path / "straight") == rows_without_times(tmp_path / "broken")


@pytest.mark.parametrize("env_id", ["Hopper-v5", "tiny_mdp:make"])
def test_vine_resumes_bit_for_bit(tmp_path, env_id):
    actions = "policy" if env_id == "Hopper-v5" else "uniform"
    sizes = ["rollout.rollout_set_size=12", "rollout.branches=3", "rollout.branch_length=6", "evaluation.every=0"]
    scheme = ["rollout.scheme=vine", f"rollout.branch_actions={actions}", "value.name=none"]
    variant = [f"env.id={env_id}", *scheme, *sizes]
    train(tmp_path / "straight", *variant, "total_iterations=4", iterations=20)
    train(tmp_path / "broken", *variant, "total_iterations=3", iterations=20)
    train(tmp_path / "broken", *variant, "total_iterations=4", iterations=20, resume=True)
    for part in ("policy", "normalizer", "env_steps"):
        assert_same_bits(newest(tmp_path / "straight")[part], newest(tmp_path / "broken")[part])
    rows = rows_without_times(tmp_path / "straight")
    assert rows == rows_without_times(tmp_path / "broken")
    assert len(rows) == 4 and rows[-1]["update/rejected"] == "0" and float(rows[-1]["episode/count"]) > 0


POPULATION = ["rollout.scheme=population", "rule.population=6", "rule.episodes_per_candidate=2"]


@pytest.mark.parametrize(
    "variant",
    [
        ["rule.name=cem", "rule.extra_std=0.5", *POPULATION, "env.backend=envpool"],
        ["rule.name=cem", *POPULATION, "env.backend=gymnasium", "normalize.observations=false"],
        ["rule.name=cma_es", *POPULATION, "env.backend=envpool"],
        ["rule.name=cma_es", *POPULATION, "env.backend=envpool", "rule.covariance=diagonal"],
        ["rule.name=reward_weighted_regression", "value.name=none", "rollout.whole_episodes=true"],
    ],
    ids=["cem envpool", "cem gymnasium", "cma_es", "sep cma_es", "rwr"],
)
def test_methods_without_a_surrogate_resume_bit_for_bit(tmp_path, variant):
    variant = [*variant, "evaluation.every=0"]
    train(tmp_path / "straight", *variant, "total_iterations=6", iterations=100)
    train(tmp_path / "broken", *variant, "total_iterations=5", iterations=100)  # a barrier at 4
    train(tmp_path / "broken", *variant, "total_iterations=6", iterations=100, resume=True)
    for part in ("policy", "rule", "normalizer", "env_steps"):
        assert_same_bits(newest(tmp_path / "straight")[part], newest(tmp_path / "broken")[part])
    rows = rows_without_times(tmp_path / "straight")
    assert rows == rows_without_times(tmp_path / "broken")
    assert len(rows) == 6 and rows[-1]["update/rejected"] == "0"
    population = variant[0] != "rule.name=reward_weighted_regression"
    assert not population or {row["episode/count"] for row in rows} == {"12"}
    assert all(bool(row["population/std"]) == population for row in rows)


def test_evaluation_and_console_do_not_change_a_run(tmp_path):
    train(tmp_path / "a", iterations=4)
    train(tmp_path / "b", "evaluation.every=0", iterations=4)
    steps = 4 * ITERATION - 120
    train_run(settings(f"total_env_steps={steps}"), tmp_path / "c", quiet=False)
    for name in ("policy", "value_function", "value_optimizer", "normalizer"):
        for other in ("b", "c"):
            assert_same_bits(newest(tmp_path / "a")[name], newest(tmp_path / other)[name], name)


def test_a_finished_run_is_left_and_can_be_extended(tmp_path):
    train(tmp_path, iterations=4)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "finished"
    again = train(tmp_path, iterations=4, resume=True)
    assert (again.state, again.iteration) == ("finished", 4)
    longer = train(tmp_path, iterations=6, resume=True)
    assert longer.iteration == 6 and len(read_rows(tmp_path / "metrics.csv")) == 6


def test_an_annealed_radius_resumes_bit_for_bit_and_its_budget_is_fixed(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    annealed = (
        "rule.delta=0.03",
        "rule.final_delta=0.01",
        "rule.annealing_steps=null",
        "env.id=CartPole-v1",
        "evaluation.every=0",
    )
    train(straight, *annealed, iterations=4)
    shutil.copytree(straight, broken)
    (broken / "checkpoints" / "barrier_00000004.ckpt").unlink()
    (broken / "status.json").write_text(json.dumps({"state": "interrupted"}))
    assert train(broken, *annealed, iterations=4, resume=True).iteration == 4
    assert_same_bits(newest(straight)["policy"], newest(broken)["policy"])
    rows = rows_without_times(broken)
    assert rows == rows_without_times(straight)
    done = [0.0, *(float(row["env_steps"]) for row in rows[:-1])]
    expected = [0.03 - 0.02 * steps / (4 * ITERATION - 120) for steps in done]
    assert [float(row["trust_region/delta"]) for row in rows] == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UserError, match=r"total_env_steps=1928: rule\.final_delta is approached over the 904"):
        train(straight, *annealed, iterations=8, resume=True)


def test_a_run_directory_holds_what_it_should(tmp_path):
    train(tmp_path, iterations=7)
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    barriers = {f"checkpoints/barrier_{i:08d}.ckpt" for i in (4, 6)}  # the last two
    assert names == barriers | {
        ".lock",
        "config.yaml",
        "metrics.csv",
        "provenance.json",
        "status.json",
        "checkpoints/best.pt",
        "checkpoints/last.pt",
    }
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header.split(",") == list(METRICS)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record[0]["packages"]["torch"] and record[0]["backend"] == "envpool" and record[0]["command"]


def test_a_barrier_file_holds_tensors_and_plain_values_only(tmp_path):
    train(tmp_path, iterations=2)

    def walk(value):
        if isinstance(value, dict):
            assert all(type(key) in (str, int) for key in value)
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        else:
            assert value is None or type(value) in (torch.Tensor, str, int, float, bool)

    walk(newest(tmp_path))


def test_the_run_does_not_mix_with_another_in_its_directory(tmp_path):
    train(tmp_path, iterations=1)
    with pytest.raises(UserError, match="already holds a run"):
        train(tmp_path, iterations=1)


def test_two_processes_never_share_a_run(tmp_path):
    import fcntl

    with open(tmp_path / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            train(tmp_path)


def damage_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "SHA-256"),
        (damage_bit, "SHA-256"),
        (lambda p: p.write_bytes(b""), "not a file of"),
        (lambda p: torch.save({"a": 1}, p), "not a file of"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"checkpoint 2 ", b"checkpoint 9 ", 1)), "format 9"),
        (lambda p: p.unlink(), "cannot be read"),
    ],
    ids=["truncated", "bit flipped", "empty", "foreign", "other version", "missing"],
)
def test_a_damaged_barrier_is_refused_with_its_name(tmp_path, damage, message):
    train(tmp_path, iterations=2)
    path = checkpoint.checkpoint_files(tmp_path / "checkpoints")[0]
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_resume_falls_back_to_the_barrier_before_and_says_so(tmp_path, capsys):
    train(tmp_path / "a", iterations=6)
    train(tmp_path / "b", iterations=4)
    damage_bit(checkpoint.checkpoint_files(tmp_path / "b" / "checkpoints")[0])
    train(tmp_path / "b", iterations=6, resume=True)
    assert "SHA-256" in capsys.readouterr().out
    for name in ("policy", "value_optimizer", "normalizer"):
        assert_same_bits(newest(tmp_path / "a")[name], newest(tmp_path / "b")[name], name)


def test_resume_with_no_barrier_left_to_read_is_refused(tmp_path):
    train(tmp_path, iterations=4)
    for path in checkpoint.checkpoint_files(tmp_path / "checkpoints"):
        damage_bit(path)
    with pytest.raises(UserError, match="none of its 2 barrier files"):
        train(tmp_path, iterations=6, resume=True)


def test_a_run_without_a_barrier_yet_starts_over(tmp_path, capsys):
    train(tmp_path, iterations=1)
    outcome = train(tmp_path, iterations=3, resume=True)
    assert outcome.iteration == 3 and len(read_rows(tmp_path / "metrics.csv")) == 3
    assert "no barrier yet" in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    from trpo_lightning.storage import files

    path = tmp_path / "file"
    files.write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="space"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_iteration_and_it_resumes(tmp_path, number):
    arguments = [a for a in BASE if not a.startswith("value.epochs")]
    command = [sys.executable, "-m", "trpo_lightning", "train", "--quiet", "--run-dir", str(tmp_path), *arguments]
    command.append("total_env_steps=100000000")
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while len(read_rows(tmp_path / "metrics.csv")) < 5 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(number)
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 128 + number, output
    assert "--resume" in output and "Traceback" not in output
    done = len(read_rows(tmp_path / "metrics.csv"))
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"
    overrides = [a for a in arguments if a.startswith("value.")]
    after = train_run(
        on_top_of(arguments, [*overrides, f"total_env_steps={(done + 2) * ITERATION}"]),
        tmp_path,
        resume=True,
        quiet=True,
    )
    iterations = [int(row["iteration"]) for row in read_rows(tmp_path / "metrics.csv")]
    assert after.state == "finished" and iterations == list(range(1, after.iteration + 1))


def test_the_trained_policy_acts_on_raw_observations(tmp_path):
    train(tmp_path, iterations=4)
    policy = load(tmp_path)
    batch = torch.randn(5, 11, dtype=torch.float64).numpy() * 3
    actions = policy.act(batch)
    assert actions.shape == (5, 3) and policy.act(batch[0]).shape == (3,)
    normalized = torch.from_numpy(policy.normalizer.normalize(batch))
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(actions), policy.policy(normalized).mean.clamp(-1.0, 1.0))
    state = newest(tmp_path)
    assert_same_bits(dict(policy.policy.state_dict()), state["policy"])
    assert float(policy.normalizer.observations.count) == float(state["normalizer"]["observations.count"]) > 0
    with pytest.raises(ValueError, match="11"):
        policy.act(batch[:, :3])


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_policy_that_is_not_there_is_named(tmp_path, which):
    with pytest.raises(UserError, match="is not a run directory"):
        load(tmp_path, which)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=which):
        load(tmp_path, which)
    (tmp_path / "x.pt").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"x\.pt"):
        load(tmp_path / "x.pt")


def test_an_environment_without_an_end_gets_a_warning(tmp_path, capsys):
    overrides = ["env.id=odd_environments:endless", "env.max_episode_steps=null", "evaluation.every=0"]
    base = [a for a in BASE if not a.startswith("env.max_episode_steps")]
    train_run(on_top_of(base, [*overrides, "total_env_steps=500"]), tmp_path, quiet=True)
    assert "no time limit" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="device=gpu"):
        train(tmp_path, "device=gpu", iterations=1)
