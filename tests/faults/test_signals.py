"""SIGTERM and Ctrl-C at all moments of a run: it leaves within an iteration, and what goes on is the same run."""

import json
import os
import secrets
import signal
import time
from pathlib import Path

import pytest
import wandb
from processes import Fresh, after, environment, fork_server, send_when
from test_kills import KEY, URL, assert_nothing_is_lost

from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import train_run
from trpo_lightning.training.module import TRPO

BASE = """env.id=signalling:make env.backend=gymnasium env.num_envs=2 env.max_episode_steps=8 checkpoint.every=2
    rollout.steps_per_iteration=32 value.epochs=1 policy.hidden_sizes=[8] evaluation.every=2 evaluation.episodes=2
    threads=1 total_iterations=4""".split()
VINE = (
    "rollout.scheme=vine value.name=none rollout.rollout_set_size=4 rollout.branches=3 rollout.branch_length=4".split()
)
TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    with fork_server(tmp_path_factory.mktemp("fork_server")) as process:
        yield process


class Run:
    """A run in one of its directories; the environment sends `signals` in step `at`, 0 for never."""

    def __init__(self, children, folder: Path, *overrides: str, at: int = 0, signals=(), group: bool = False) -> None:
        self.children, self.run_dir, self.overrides = children, folder / "run", overrides
        self.flag = folder / "flag"
        kwargs = {"flag": str(self.flag), "at": at, "signals": list(signals), "group": group}
        self.kwargs = [f"env.kwargs.{name}={json.dumps(value)}" for name, value in kwargs.items()]

    def arguments(self, run_dir: Path, mode: str = "disabled") -> list[str]:
        overrides = [*BASE, *self.overrides, *self.kwargs, f"tracking.wandb={mode}"]
        return ["train", "--quiet", "--run-dir", str(run_dir), *overrides]

    def begin(self, strike: dict | None = None, mode: str = "disabled") -> int:
        return self.children.run(*self.arguments(self.run_dir, mode), strike=strike)

    def rows(self) -> int:
        return len(read_rows(self.run_dir / "metrics.csv"))

    def state(self) -> str:
        return json.loads((self.run_dir / "status.json").read_text())["state"]

    def goes_on_as_if_nothing_had_happened(self) -> None:
        assert "Traceback" not in self.children.said(), self.children.said()
        assert self.state() == "interrupted"
        assert self.children.run("train", "--quiet", "--resume", str(self.run_dir)) == 0, self.children.said()
        self.flag.touch()
        straight = self.run_dir.with_name("straight")
        assert self.children.run(*self.arguments(straight)) == 0, self.children.said()
        iterations = int(read_rows(straight / "metrics.csv")[-1]["iteration"])
        assert_nothing_is_lost(self.run_dir, straight, iterations)


STARTING = ("fcntl.flock", "os.rename.*status.json", "os.rename.*config.yaml", "os.rename.*metrics.csv")
CASES = [
    pytest.param(number, operation, marks=() if case == 1 else pytest.mark.faults)
    for case, (number, operation) in enumerate((n, o) for n in (TERM, INT) for o in STARTING)
]


@pytest.mark.parametrize(("number", "operation"), CASES)
def test_a_signal_before_the_first_iteration_leaves_a_run_that_goes_on(children, tmp_path, number, operation):
    run = Run(children, tmp_path)
    assert run.begin({"operation": operation, "count": 1, "signals": [number]}) == 128 + number
    assert run.rows() == 0 and "continue with: train --resume" in children.said()
    run.goes_on_as_if_nothing_had_happened()


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.0])
def test_a_signal_while_a_fresh_process_imports_does_so_too(children, tmp_path, seconds):
    run = Run(children, tmp_path, "total_iterations=100000")
    code = send_when(Fresh(tmp_path, *run.arguments(run.run_dir)), after(seconds), TERM)
    said = (tmp_path / "err").read_text()
    assert said == "" and code in (143, -TERM)  # by the signal itself where Python has not begun with our code
    assert code == 143 or not run.run_dir.exists()
    if code == 143:
        assert run.state() == "interrupted" and (run.run_dir / "config.yaml").exists()


@pytest.mark.parametrize(
    ("overrides", "at", "rows"),
    [
        ([], 75, 2),
        pytest.param([], 45, 2, marks=pytest.mark.faults),
        pytest.param(["env.restarts=1"], 110, 3, marks=pytest.mark.faults),
        pytest.param(VINE, 100, 2, marks=pytest.mark.faults),
    ],  # steps 1 to 30 are the first iteration's, to 58 the second's, to 90 the evaluation's, to 120 the third's
    ids=["evaluation", "iteration", "with restarts", "vine"],
)
@pytest.mark.parametrize("number", [TERM, pytest.param(INT, marks=pytest.mark.faults)])
def test_a_signal_ends_the_run_after_its_iteration(children, tmp_path, overrides, at, rows, number):
    run = Run(children, tmp_path, *overrides, at=at, signals=[number])
    assert run.begin() == 128 + number, children.said()
    assert run.flag.exists() and run.rows() == rows
    run.goes_on_as_if_nothing_had_happened()


@pytest.mark.parametrize(
    ("number", "operation", "count"),
    [(TERM, "os.rename.*last.pt", 3), pytest.param(INT, "os.rename.*status.json", 2, marks=pytest.mark.faults)],
)
def test_a_signal_when_all_is_done_changes_nothing(children, tmp_path, number, operation, count):
    run = Run(children, tmp_path)
    assert run.begin({"operation": operation, "count": count, "signals": [number]}) == 0, children.said()
    assert run.state() == "finished" and children.said() == ""


@pytest.mark.faults
@pytest.mark.parametrize(
    ("signals", "at", "rows"),
    [([INT, INT], 75, 1), ([TERM, INT], 100, 2)],
)
def test_a_second_signal_by_ctrl_c_ends_the_run_at_once(children, tmp_path, signals, at, rows):
    run = Run(children, tmp_path, at=at, signals=signals)
    assert run.begin() == 130, children.said()
    assert run.rows() == rows and children.said() == ""
    run.goes_on_as_if_nothing_had_happened()


@pytest.mark.faults
@pytest.mark.parametrize("operation", STARTING)
def test_a_second_ctrl_c_before_the_first_iteration_is_quiet_too(children, tmp_path, operation):
    run = Run(children, tmp_path)
    assert run.begin({"operation": operation, "count": 1, "signals": [INT, INT]}) == 130
    assert children.said() == "" and run.rows() == 0


@pytest.mark.faults
@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_to_all_processes_of_a_job_is_one_to_the_run(children, tmp_path, number):
    run = Run(children, tmp_path, "env.asynchronous=true", at=20, signals=[number], group=True)
    assert run.begin() == 128 + number, children.said()
    run.goes_on_as_if_nothing_had_happened()


def test_a_signal_that_finds_lightnings_own_handler_is_heard(tmp_path, monkeypatch):
    loader = TRPO.train_dataloader

    def terminated(module):
        os.kill(os.getpid(), TERM)
        return loader(module)

    monkeypatch.setattr(TRPO, "train_dataloader", terminated)
    overrides = [*Run(None, tmp_path).arguments(tmp_path)[4:]]
    outcome = train_run(load_settings(overrides), tmp_path / "run", quiet=True)
    assert (outcome.state, outcome.signal_number) == ("interrupted", TERM) and outcome.iteration <= 1
    assert signal.getsignal(TERM) == signal.SIG_DFL


@pytest.mark.faults
@pytest.mark.skipif(not (URL and KEY), reason="no W&B server: set TRPO_LIGHTNING_TEST_WANDB_URL and ..._KEY")
@pytest.mark.parametrize("operation", ["os.rename.*config.yaml", None])
def test_wandb_knows_that_the_run_was_preempted(tmp_path, monkeypatch, operation):
    project = f"signals_{secrets.token_hex(4)}"
    monkeypatch.setattr("processes.environment", lambda: {**environment(), "WANDB_BASE_URL": URL, "WANDB_API_KEY": KEY})
    strike = {"operation": operation, "count": 1, "signals": [TERM]} if operation else None
    with fork_server(tmp_path) as online:
        run = Run(online, tmp_path, f"tracking.project={project}", at=0 if strike else 75, signals=[TERM])
        assert run.begin(strike, mode="online") == 143, online.said()
        assert run.rows() == (0 if strike else 2) and run.state() == "interrupted"
    api = wandb.Api(overrides={"base_url": URL}, api_key=KEY)
    for _ in range(50):
        (found,) = api.runs(project)
        if found.state != "running":
            break
        time.sleep(0.2)
    assert found.state in ("preempting", "preempted")
