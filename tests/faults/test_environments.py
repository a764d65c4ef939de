"""Environments that misbehave: the run ends in one line, with all that it had."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from methods import what_counts
from small_runs import selected

from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.metrics_file import read_rows

HERE = Path(__file__).parent
BASE = """env.id=odd_environments:faulty env.backend=gymnasium env.num_envs=3 env.max_episode_steps=10 value.epochs=1
    rollout.steps_per_iteration=60 checkpoint.every=2 total_iterations=4 evaluation.every=0 tracking.wandb=disabled
    threads=1 policy.hidden_sizes=[4]""".split()
CEM = "rule.name=cem rollout.scheme=population rule.population=6 policy.hidden_sizes=[] total_iterations=2".split()
VINE = "rollout.scheme=vine value.name=none rollout.rollout_set_size=4 rollout.branch_length=8".split()
PLACE = r"environment \d \(seed \d+\) in step 5 of episode \d"


def faulty(fault: str, flag: Path, *, at: int = 5, spared: int = 1, times: int = 1) -> list[str]:
    kwargs = {"fault": fault, "at": at, "spared": spared, "times": times, "flag": flag}
    return [f"env.kwargs.{key}={value}" for key, value in kwargs.items()]


def timeout(fault: str) -> str:
    """Short where it is waited for, long where it is not what is tested."""
    return f"env.timeout={2 if fault == 'hang' else 60}"


@pytest.fixture(scope="module")
def fork_server():
    folders = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, HERE / "fork_server.py"], env=environment, **pipes) as process:
        yield process
        process.stdin.close()


class Run:
    """Trainings in one run directory; `flag` is there as long as the fault is."""

    def __init__(self, fork_server, folder: Path):
        self.fork_server, self.folder, self.flag = fork_server, folder / "run", folder / "flag"
        folder.mkdir(exist_ok=True)
        self.flag.touch()

    def __call__(self, *arguments: str) -> int:
        files = {name: str(self.folder.with_name(name)) for name in ("out", "err")}
        began = time.monotonic()
        line = {"arguments": ["train", "--quiet", *arguments], **files}
        self.fork_server.stdin.write(json.dumps(line) + "\n")
        self.fork_server.stdin.flush()
        code = int(self.fork_server.stdout.readline())
        self.seconds = time.monotonic() - began
        self.out, self.err = (Path(file).read_text() for file in files.values())
        return code

    def new(self, fault: str, *overrides: str, **when: int) -> int:
        return self(
            "--run-dir", str(self.folder), *what_counts([*BASE, *faulty(fault, self.flag, **when)], list(overrides))
        )

    def resume(self) -> int:
        self.flag.unlink(missing_ok=True)
        return self("--resume", str(self.folder))

    def the_line(self) -> str:
        """What is on stderr, if it is one line."""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: env.id=odd_environments:faulty: "), self.err
        return lines[0].removeprefix("error: env.id=odd_environments:faulty: ")

    def state(self) -> str:
        return json.loads((self.folder / "status.json").read_text())["state"]


@pytest.fixture
def run(fork_server, tmp_path):
    return Run(fork_server, tmp_path)


RESULTS = {
    "raise": "RuntimeError: the simulator broke [in two lines]",
    "unpicklable": "Local: ",
    "leave": "SystemExit: bye",
    "shape": "its observation has shape (3,), not (2,)",
    "dtype": "its observation is an array of complex128 of shape (2,), not numbers of shape (2,)",
    "none": "its observation is None, not numbers of shape (2,)",
    "ragged": "its observation is a list of 2, not an array of shape (2,)",
    "words": "its observation is a list of 2, not numbers of shape (2,)",
    "reward": "its reward is a str, not a number",
    "rewards": "its reward is an array of float64 of shape (2,), not a number",
    "end": "its terminated is None, not a number",
}


@pytest.mark.parametrize(
    ("fault", "asynchronous"),
    selected(
        ("raise", "false"),
        ("unpicklable", "true"),
        ("none", "false"),
        rest=[
            *((fault, "false") for fault in RESULTS if fault not in ("raise", "none")),
            *((fault, "true") for fault in ("raise", "leave", "none")),
        ],
    ),
)
def test_a_fault_ends_the_run_in_one_line_that_names_it(run, fault, asynchronous):
    assert run.new(fault, f"env.asynchronous={asynchronous}") == 2
    place, _, what = run.the_line().partition(": ")
    assert re.fullmatch(PLACE, place) and what.startswith(RESULTS[fault])
    assert asynchronous == "true" or place.startswith("environment 1 ")
    assert run.state() == "failed" and "Traceback" not in run.out


@pytest.mark.parametrize(
    ("fault", "at", "what"),
    selected(
        ("raise", 0, r"environment 1 \(seed \d+\) in the reset of episode 1: RuntimeError.*"),
        rest=[
            ("none", 0, r"environment 1 \(seed \d+\) in the reset of episode 1: its observation is None.*"),
            ("nothing", 0, r"environment 1 \(seed \d+\) in the reset of episode 1: reset returned None, not .*"),
            ("triple", 5, PLACE + r": step returned a tuple of 3, not \(observation, reward, .*"),
        ],
    ),
)
def test_so_do_results_of_another_form_and_faults_in_reset(run, fault, at, what):
    assert run.new(fault, "env.max_episode_steps=null", at=at) == 2
    assert re.fullmatch(what, run.the_line())


@pytest.mark.parametrize(
    ("fault", "variant", "how"),
    selected(
        ("hang", ["env.asynchronous=false"], "no answer within env.timeout=1 seconds"),
        ("killed", ["env.asynchronous=true", "env.timeout=50"], "its process was killed by signal 9"),
        rest=[
            ("hang", ["env.asynchronous=true"], "no answer within env.timeout=1 seconds"),
            ("hang_in_c", ["env.asynchronous=true"], "no answer within env.timeout=1 seconds"),
            ("hang_in_released_c", ["env.asynchronous=false"], "no answer within env.timeout=1 seconds"),
            ("die", ["env.asynchronous=true", "env.timeout=50"], "its process ended with exit code 7"),
        ],
    ),
    ids=lambda value: None if isinstance(value, list) else value.split()[-1],
)
def test_no_run_hangs(run, fault, variant, how):
    assert run.new(fault, "env.timeout=1", *variant) == 2
    place, _, what = run.the_line().partition(": ")
    assert re.fullmatch(PLACE, place) and what == how
    assert run.state() == "failed" and run.seconds < 45


@pytest.mark.faults
def test_nor_does_one_of_envpool_whose_simulator_never_returns(run):
    pool = "env.id=Hopper-v5 env.backend=envpool env.kwargs.frame_skip=1000000000 env.timeout=1".split()
    assert run("--run-dir", str(run.folder), *BASE, *pool) == 2
    place = "env.id=Hopper-v5: one of 3 environments of EnvPool (which does not say which)"
    assert run.err == f"error: {place}: no answer within env.timeout=1 seconds\n"
    assert run.state() == "failed" and run.seconds < 45


@pytest.mark.parametrize(
    ("how", "reason"),
    selected(
        ("raise", "could not be built: RuntimeError: the simulator broke [in two lines]"),
        rest=[
            ("leave", "could not be built: SystemExit: bye"),
            ("killed", "could not be built: its process was killed by signal 9"),
            ("hang", "while it is built: no answer within env.timeout=1 seconds"),
        ],
    ),
)
def test_a_process_that_cannot_build_its_environment_says_why(run, how, reason):
    env = "env.id=odd_environments:built_here_only env.asynchronous=true".split()
    timeout = 1 if how == "hang" else 30  # a process that starts on a busy machine takes its second
    assert run("--run-dir", str(run.folder), *BASE, *env, f"env.kwargs.how={how}", f"env.timeout={timeout}") == 2
    (line,) = run.err.splitlines()
    assert line.startswith("error: env.id=odd_environments:built_here_only") and reason in line
    assert run.seconds < 45


@pytest.mark.faults
def test_a_hang_that_keeps_the_interpreter_from_running_ends_too(run):
    assert run.new("hang_in_c", "env.timeout=1") == 1
    assert "Timeout" in run.err and "_hang_in_c" in run.err and run.seconds < 15


@pytest.mark.parametrize(
    ("variant", "place"),
    [
        (CEM, PLACE),
        (VINE, PLACE),
        ([*VINE, "rollout.branch_length=2", "env.num_envs=1", "env.kwargs.spared=2"], PLACE),
        (["evaluation.every=1", "evaluation.episodes=2", "env.kwargs.spared=6"], PLACE),
    ],
    ids=["population", "vine", "branches", "evaluation"],
)
@pytest.mark.parametrize("fault", selected("raise", rest=["hang"]))
def test_all_who_step_environments_are_guarded(run, variant, place, fault):
    assert run.new(fault, timeout(fault), *variant) == 2
    assert re.fullmatch(place, run.the_line().partition(": ")[0])


def test_what_was_there_before_stays_and_the_run_goes_on_once_the_fault_is_gone(run, fork_server, tmp_path):
    assert run.new("raise", spared=17) == 2
    rows = read_rows(run.folder / "metrics.csv")
    done = len(rows)
    assert 2 <= done < 4
    barrier = checkpoint.read(checkpoint.checkpoint_files(run.folder / "checkpoints")[0])
    assert barrier["iteration"] == 2
    assert run.resume() == 0 and run.state() == "finished"
    whole = Run(fork_server, tmp_path / "whole")
    assert whole.new("raise", times=0) == 0
    for name in ("env_steps", "episode/return_mean", "trust_region/kl"):
        expected = [row[name] for row in read_rows(whole.folder / "metrics.csv")]
        assert [row[name] for row in read_rows(run.folder / "metrics.csv")] == expected and len(expected) == 4


@pytest.mark.parametrize("fault", selected("arrays", rest=["info", "list", "beyond"]))
@pytest.mark.parametrize("asynchronous", ["false", "true"], ids=["loop", "processes"])
def test_what_many_environments_do_is_no_fault(run, fault, asynchronous):
    assert run.new(fault, f"env.asynchronous={asynchronous}", times=100, spared=0) == 0, run.err
    assert len(read_rows(run.folder / "metrics.csv")) == 4


def test_numbers_that_are_not_finite_reject_updates_and_the_run_goes_on(run):
    assert run.new("nan") == 0
    rows = read_rows(run.folder / "metrics.csv")
    assert rows[0]["update/rejection_reason"] and float(rows[-1]["update/rejected"]) == 1


@pytest.mark.parametrize(
    ("fault", "variant"),
    selected(
        ("raise", []),
        ("killed", ["env.asynchronous=true"]),
        rest=[
            ("hang", []),
            ("hang", ["env.asynchronous=true"]),
            ("raise", CEM),
            ("raise", VINE),
            ("raise", ["evaluation.every=1", "evaluation.episodes=2", "env.kwargs.spared=6"]),
        ],
    ),
    ids=["raise", "killed_process", "hang", "hang_process", "population", "vine", "evaluation"],
)
def test_environments_are_built_anew_as_often_as_asked(run, fault, variant):
    assert run.new(fault, timeout(fault), "env.restarts=1", *variant) == 0, run.err
    rows = read_rows(run.folder / "metrics.csv")
    assert [row["env/restarts"] for row in rows] == ["1"] * len(rows) and run.err == ""
    assert re.search(rf"warning: env.id=odd_environments:faulty: {PLACE}: .*; restart 1 of 1\n", run.out)


def test_and_no_more_often(run):
    assert run.new("raise", "env.restarts=1", "env.num_envs=1", spared=0, times=9) == 2
    assert "restart 1 of 1" in run.out
    first, second = (re.search(r"seed \d+", text)[0] for text in (run.out, run.the_line()))
    assert first != second
