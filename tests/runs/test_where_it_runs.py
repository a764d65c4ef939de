"""Threads, notebooks, tasks of a job, systems without POSIX's parts, consoles without UTF-8: a run is a run.

The real Windows and macOS are not here: what they lack is hidden in a process of its own.
"""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import train_run
from trpo_lightning.stopping import StopRequest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from small_runs import SMALL, command_line, selected

WITHOUT_POSIX = """
import os, signal, sys
import torch  # which asks for the system's name, not for its parts
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "fcntl":
            raise ModuleNotFoundError("No module named 'fcntl'", name=name)
sys.meta_path.insert(0, Missing())
sys.modules.pop("fcntl", None)
parts = {os: ("register_at_fork", "sched_getaffinity", "O_DIRECTORY"), signal: ("SIGALRM", "SIGHUP", "pthread_kill")}
for owner, names in parts.items():
    for name in names:
        delattr(owner, name)
"""
HERE = """
import gymnasium
def make():
    return gymnasium.make("CartPole-v1").unwrapped
"""


def settings(*overrides: str):
    return load_settings([*SMALL, "total_iterations=2", *overrides])


def test_a_run_in_a_thread_is_a_run(tmp_path):
    seen = []

    def work():
        try:
            seen.append(train_run(settings(), tmp_path / "run", quiet=True).state)
        except BaseException as error:
            seen.append(repr(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["finished"]


def test_a_run_inside_of_a_notebooks_event_loop_is_a_run(tmp_path):
    async def cell():
        return train_run(settings(), tmp_path / "run", quiet=False).state

    assert asyncio.run(cell()) == "finished"


def test_a_stop_request_outside_of_the_main_thread_changes_no_handler():
    import signal

    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with StopRequest() as stop:
            stop.listen_again()
            seen.append(signal.getsignal(signal.SIGTERM))
            seen.append(stop.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, 0] and signal.getsignal(signal.SIGTERM) == before


TASKS = {
    "slurm": lambda rank: (
        {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "4", "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        | {"SLURM_JOB_NAME": "job", "SLURM_NODEID": "0", "SLURM_CPUS_PER_TASK": "1"}
    ),
    "torchrun": lambda rank: (
        {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "4", "GROUP_RANK": "0"}
        | {"LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x"}
    ),
}


@pytest.mark.parametrize("launcher", selected("slurm", rest=["torchrun"]))
def test_each_task_of_a_job_is_a_run_of_its_own(tmp_path, launcher):
    done = command_line("train", *SMALL, "seed=2", "--run-dir", "run", cwd=tmp_path, **TASKS[launcher]("2"))
    assert done.returncode == 0, done.stderr
    assert len(read_rows(tmp_path / "run" / "metrics.csv")) == 4
    assert "iteration" in done.stdout  # and not only rank 0 speaks


@pytest.fixture
def without_posix(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX)
    tests = Path(__file__).parents[1]
    return {"PYTHONPATH": f"{tmp_path}:{tests}:{tests.parent}"}


def test_a_run_stops_resumes_and_is_listed_without_posix(tmp_path, without_posix):
    arguments = [*SMALL, "env.timeout=60", "total_iterations=2", "--run-dir", "run"]
    first = command_line("train", *arguments, cwd=tmp_path, **without_posix)
    assert first.returncode == 0, first.stderr
    second = command_line("train", "--resume", "run", "total_iterations=4", cwd=tmp_path, **without_posix)
    assert second.returncode == 0, second.stderr
    assert len(read_rows(tmp_path / "run" / "metrics.csv")) == 4


@pytest.mark.faults
def test_an_experiment_runs_without_posix(tmp_path, without_posix):
    lines = "".join(f"  {item.replace('=', ': ', 1)}\n" for item in SMALL)
    (tmp_path / "experiments").mkdir()
    text = f"title: T\nhypothesis: H\nminutes: 1\noverrides:\n{lines}seeds: [0]\n"
    (tmp_path / "experiments" / "mine.yaml").write_text(text)
    done = command_line("experiment", "mine", cwd=tmp_path, **without_posix)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.faults
def test_a_hanging_environment_ends_the_run_in_one_line_without_posix(tmp_path, without_posix):
    (tmp_path / "slow.py").write_text(
        "import time, gymnasium\n"
        "class Slow(gymnasium.Wrapper):\n"
        "    def step(self, action):\n        time.sleep(60)\n"
        "def make():\n    return Slow(gymnasium.make('CartPole-v1').unwrapped)\n"
    )
    arguments = [*SMALL, "env.id=slow:make", "env.timeout=4", "--run-dir", "run", "--quiet"]
    done = command_line("train", *arguments, cwd=tmp_path, **without_posix)
    assert done.returncode == 2 and "no answer within env.timeout=4 seconds" in done.stderr


@pytest.mark.parametrize("encoding", selected("ascii", rest=["latin-1", "cp1252"]))
def test_a_console_without_utf_8_gets_a_question_mark_for_a_letter(tmp_path, encoding):
    arguments = [*SMALL, "name=größe…漢", "--run-dir", "run"]
    done = command_line("train", *arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    told = command_line("evaluate", "run", "--episodes", "2", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert told.returncode == 0, told.stderr


def test_the_console_script_finds_modules_of_the_working_directory(tmp_path):
    import subprocess

    (tmp_path / "here.py").write_text(HERE)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "trpo-lightning"
    script.write_text("import sys\nfrom trpo_lightning.__main__ import main\nsys.exit(main())\n")
    arguments = [*SMALL, "env.id=here:make", "total_iterations=1", "--run-dir", "run"]
    command = [sys.executable, str(script), "train", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_torch_that_cannot_be_imported_is_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('[WinError 126] c10.dll')\n")
    done = command_line("train", *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: PyTorch cannot be imported here: OSError: [WinError 126] c10.dll\n"
