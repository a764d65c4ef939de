"""Runs of several processes: files, resuming, signals, deaths, torchrun."""

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

from trpo_lightning import load
from trpo_lightning.errors import UserError
from trpo_lightning.ranks import RankError
from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.records import read_status
from trpo_lightning.runs.run import train_run

TESTS = Path(__file__).parents[1]
TWO = """env.id=smooth_tasks:falling env.backend=gymnasium env.num_envs=4 rollout.steps_per_iteration=80
    policy.hidden_sizes=[4] value.hidden_sizes=[4] value.epochs=1 checkpoint.every=2 evaluation.every=2
    evaluation.episodes=2 tracking.wandb=disabled threads=2 devices=2""".split()


def train(run_dir, *overrides, resume=False):
    return train_run(on_top_of(TWO, list(overrides)), run_dir, resume=resume, quiet=True)


def started(run_dir, *overrides, command=("-m",)):
    """A run in a process of its own, which prints to files in `run_dir`'s parent."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    with open(run_dir.parent / "out", "w") as out, open(run_dir.parent / "err", "w") as err:
        return subprocess.Popen(
            [sys.executable, *command, "trpo_lightning", "train", *TWO, *overrides, "--run-dir", str(run_dir)],
            env={**kept, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )


def wait_for_rows(process, run_dir, number):
    latest = time.monotonic() + 120.0
    while len(read_rows(run_dir / "metrics.csv")) < number:
        assert process.poll() is None and time.monotonic() < latest, (run_dir.parent / "err").read_text()
        time.sleep(0.05)


def followers(process):
    """Process ids of the ranks that a run has started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"follow" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def rows_without_times(run_dir):
    rows = read_rows(run_dir / "metrics.csv")
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "ranks/"))} for row in rows]


def parameters(run_dir):
    state = checkpoint.read(checkpoint.checkpoint_files(run_dir / "checkpoints")[0])
    return torch.cat([x.reshape(-1) for x in state["policy"].values()])


def test_a_run_of_two_ranks_leaves_the_files_of_one_run(tmp_path, capfd):
    outcome = train(tmp_path / "run", "total_iterations=3")
    assert (outcome.state, outcome.iteration) == ("finished", 3)
    found = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    files = {"config.yaml", "metrics.csv", "provenance.json", "status.json", ".lock"}
    assert found == files | {f"checkpoints/{name}" for name in ("barrier_00000002.ckpt", "best.pt", "last.pt")}
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    assert int(rows[0]["ranks/exchanges"]) > 10 and float(rows[0]["ranks/megabytes"]) > 0.0
    assert rows[1]["evaluation/return_mean"]
    assert load(tmp_path / "run").act(torch.zeros(2).numpy()).shape == (2,)
    assert not torch.distributed.is_initialized()


def test_more_gpus_than_there_are_is_one_line(tmp_path):
    if torch.cuda.device_count() > 1:
        pytest.skip("this machine has as many")
    with pytest.raises(UserError, match=r"device=gpu: 2 ranks on this machine need a GPU each"):
        train(tmp_path / "run", "device=gpu")


def test_torchrun_with_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    for name, value in {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="devices=2, but torchrun has started 4 processes: say devices=4"):
        train(tmp_path / "run")


def test_what_another_rank_says_at_its_end_is_the_error(tmp_path):
    with pytest.raises(RankError, match=r"^rank 1 of 2: env\.id=smooth_tasks:alone could not be built: .*not for two"):
        train(tmp_path / "run", "env.id=smooth_tasks:alone")
    assert read_status(tmp_path / "run")["state"] == "failed"


@pytest.mark.faults
@pytest.mark.parametrize("name", ["adam", "trust_region"])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, name):
    value = f"value.name={name}"
    train(tmp_path / "whole", value, "total_iterations=6")
    train(tmp_path / "parts", value, "total_iterations=3")
    train(tmp_path / "parts", value, "total_iterations=6", resume=True)
    assert torch.equal(parameters(tmp_path / "whole"), parameters(tmp_path / "parts"))
    assert rows_without_times(tmp_path / "whole") == rows_without_times(tmp_path / "parts")


@pytest.mark.faults
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    train(tmp_path / "two", "total_iterations=2")
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    train(tmp_path / "two", "total_iterations=4", resume=True)
    train(tmp_path / "one", "total_iterations=4", "devices=1", resume=True)
    torch.testing.assert_close(parameters(tmp_path / "one"), parameters(tmp_path / "two"), rtol=0, atol=1e-3)
    assert not torch.equal(parameters(tmp_path / "one"), torch.zeros_like(parameters(tmp_path / "one")))


@pytest.mark.faults
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
@pytest.mark.parametrize("victim", ["follower", "first"])
def test_a_killed_rank_ends_the_run_within_seconds_and_it_resumes(tmp_path, victim):
    run_dir = tmp_path / "run"
    process = started(run_dir, "env.id=smooth_tasks:slow", "total_iterations=1000000")
    wait_for_rows(process, run_dir, 3)
    (other,) = followers(process)
    killed, began = (other if victim == "follower" else process.pid), time.monotonic()
    os.kill(killed, signal.SIGKILL)
    code = process.wait(timeout=60)
    while Path(f"/proc/{other}").exists():
        assert time.monotonic() - began < 15.0
        time.sleep(0.05)
    assert time.monotonic() - began < 15.0
    if victim == "follower":
        assert code == 1
        assert (tmp_path / "err").read_text().splitlines()[-1] == "error: rank 1 of 2 was killed by SIGKILL"
        assert read_status(run_dir)["state"] == "failed"
    done = len(read_rows(run_dir / "metrics.csv"))
    outcome = train(run_dir, "env.id=smooth_tasks:slow", f"total_iterations={done + 2}", resume=True)
    assert outcome.iteration == done + 2


@pytest.mark.faults
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
@pytest.mark.parametrize("to", ["first", "follower"])
def test_a_signal_to_any_rank_ends_the_run_after_its_iteration(tmp_path, to):
    run_dir = tmp_path / "run"
    process = started(run_dir, "total_iterations=1000000")
    wait_for_rows(process, run_dir, 2)
    os.kill(process.pid if to == "first" else followers(process)[0], signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert "stopped at iteration" in (tmp_path / "out").read_text()


@pytest.mark.faults
def test_torchrun_starts_the_ranks_of_one_run(tmp_path):
    train(tmp_path / "own", "total_iterations=2")
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    process = started(tmp_path / "run", "total_iterations=2", command=command)
    assert process.wait(timeout=200) == 0, (tmp_path / "err").read_text()
    assert torch.equal(parameters(tmp_path / "own"), parameters(tmp_path / "run"))
    assert (tmp_path / "out").read_text().count("finished: ") == 1


@pytest.mark.faults
def test_a_trainer_of_two_devices_trains_one_module(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import pytorch_lightning as pl, sys\n"
        "from pytorch_lightning.callbacks import EarlyStopping\n"
        "from trpo_lightning import TRPO\n"
        "module = TRPO('Pendulum-v1', num_envs=4, steps_per_iteration=400, evaluation={'every': 2, 'episodes': 1})\n"
        "stop = EarlyStopping('evaluation/return_mean', mode='max')\n"
        "quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)\n"
        "trainer = pl.Trainer(accelerator='cpu', devices=2, strategy='ddp', max_epochs=3, callbacks=[stop], **quiet)\n"
        "trainer.fit(module)\n"
        "total = sum(float(p.detach().double().sum()) for p in module.parameters())\n"
        "print(module.ranks.index, module.iteration, total)\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(TESTS.parent), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = sorted(line.split() for line in done.stdout.splitlines() if line[:1] in ("0", "1"))
    assert first[:2] == ["0", "3"] and second[:2] == ["1", "3"] and first[2] == second[2]
