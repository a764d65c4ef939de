"""W&B away, slow, refusing or answering errors: training neither ends nor waits, and no row is lost."""

import csv
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import wandb
from test_soak import family
from wandb_proxy import FaultyProxy

from trpo_lightning.tracking.wandb_client import CONNECT_TIMEOUT, INIT_TIMEOUT
from trpo_lightning.training.metrics import METRICS

HERE = Path(__file__).parent
URL, KEY = os.environ.get("TRPO_LIGHTNING_TEST_WANDB_URL"), os.environ.get("TRPO_LIGHTNING_TEST_WANDB_KEY")
PROJECT = f"trpo_lightning_faults_{secrets.token_hex(4)}"
PACE = 0.02
"""Seconds that each of the two environments waits in an iteration."""
TRAIN = f"""train --quiet env.id=odd_environments:paced env.kwargs.seconds={PACE} env.backend=gymnasium env.num_envs=2
    env.max_episode_steps=50 rollout.steps_per_iteration=64 policy.hidden_sizes=[8] value.hidden_sizes=[8]
    value.epochs=1 checkpoint.every=50 evaluation.every=0 threads=1 tracking.wandb=online
    total_env_steps=1000000000""".split()
SHARE = 0.05
"""Of an iteration, at most, in which the training thread is in calls of the logger."""
FINISH_TIMEOUT = 20.0
"""Seconds that `timed_training.py` has W&B's client wait at the end."""
FEW = 15.0
"""Seconds that anything else takes there."""

pytestmark = pytest.mark.skipif(
    not (URL and KEY) or URL.startswith("https:"),
    reason="no W&B server: set TRPO_LIGHTNING_TEST_WANDB_URL (http) and TRPO_LIGHTNING_TEST_WANDB_KEY",
)


@dataclass
class Run:
    """A training process and the way from it to W&B."""

    folder: Path
    proxy: FaultyProxy
    process: "subprocess.Popen[str] | None" = None

    def __post_init__(self) -> None:
        self.run_dir, self.times = self.folder / "run", self.folder / "times.json"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        own = {"HOME": str(self.folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
        to = {"WANDB_BASE_URL": self.proxy.url, "WANDB_API_KEY": KEY or "", "WANDB_ERROR_REPORTING": "false"}
        self.environment = {**kept, **own, **to}

    def start(self, iterations: int) -> None:
        command = [sys.executable, HERE / "timed_training.py", self.times, *TRAIN, f"tracking.project={PROJECT}"]
        self.process = subprocess.Popen(
            [*command, f"total_iterations={iterations}", "--run-dir", self.run_dir],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_rows(self, rows: int) -> None:
        file = self.run_dir / "metrics.csv"
        while not (file.exists() and file.read_bytes().count(b"\n") > rows):
            assert self.process is not None and self.process.poll() is None, "it ended too early"
            time.sleep(0.1)

    def end(self) -> list[str]:
        """Lines that were printed by a run that ended as if all were well, but for the policies, which are here."""
        assert self.process is not None
        printed, _ = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, printed
        lines = printed.splitlines()
        return [line for line in lines if not line.startswith("warning: W&B did not take the policies (")]

    def rows(self) -> list[dict[str, str]]:
        with open(self.run_dir / "metrics.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def seconds(self, of: str) -> list[float]:
        return json.loads(self.times.read_text())[of]

    def share(self) -> float:
        """Of the training thread's time in iterations, that in calls of the logger."""
        rows = self.rows()
        total = sum(64 / float(row["time/steps_per_second"]) for row in rows)
        calls = self.seconds("log_metrics")
        assert len(calls) == len(rows)
        return sum(calls) / total

    def history(self) -> list[dict[str, Any]]:
        run_id = json.loads((self.run_dir / "status.json").read_text())["wandb_run_id"]
        api = wandb.Api(overrides={"base_url": URL or ""}, api_key=KEY)
        return list(api.run(f"{PROJECT}/{run_id}").scan_history())

    def assert_nothing_is_lost(self) -> None:
        """The server has each iteration once, with the numbers of the file."""
        end = time.monotonic() + 20.0
        while len(history := self.history()) < len(self.rows()) and time.monotonic() < end:
            time.sleep(0.5)
        assert [numbers(row) for row in history] == [numbers(row) for row in self.rows()]

    def sync(self, line: str) -> None:
        """Do what a line of output says: `...; later: wandb sync FOLDER`, or to resume the run."""
        command = [sys.executable, "-m", *line.rpartition("; later: ")[2].removeprefix("python -m ").split()]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """A row's metrics, from either side."""
    return {name: float(row[name]) for name in METRICS if row.get(name) not in (None, "") and "reason" not in name}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path, FaultyProxy(URL or ""))
    yield run
    if run.process is not None and run.process.poll() is None:
        run.process.kill()
        run.process.wait()
    run.proxy.close()


def after(seconds: float, action: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def answer(status: int) -> Callable[[FaultyProxy], None]:
    return lambda proxy: setattr(proxy, "status", status)


def hang(proxy: FaultyProxy) -> None:
    proxy.hangs = True


def slow(proxy: FaultyProxy) -> None:
    proxy.delay, proxy.rate = 3.0, 100_000.0


FAULTS: dict[str, Callable[[FaultyProxy], None]] = {
    "refusing": FaultyProxy.cut,
    "silent": hang,
    "401": answer(401),
    "429": answer(429),
    "500": answer(500),
}


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_is_away_from_the_start_on_gets_all_from_sync(run, fault):
    FAULTS[fault](run.proxy)
    began = time.monotonic()
    run.start(100)
    run.wait_for_rows(1)
    assert time.monotonic() - began < CONNECT_TIMEOUT + INIT_TIMEOUT + 30.0
    (line,) = run.end()
    assert line.startswith("warning: W&B is out of reach (") and "; later: wandb sync " in line
    assert run.share() < SHARE and run.seconds("finish")[0] < FEW
    run.proxy.mend()
    run.sync(line)
    run.assert_nothing_is_lost()


@pytest.mark.faults
@pytest.mark.parametrize(("fault", "seconds"), [("refusing", 60), ("silent", 20), ("429", 20), ("500", 20)])
def test_a_server_that_is_away_for_a_while_gets_all_by_itself(run, fault, seconds):
    run.start(round(seconds / (2 * PACE)) + 300)
    run.wait_for_rows(100)
    FAULTS[fault](run.proxy)
    before = len(run.rows())
    time.sleep(seconds)
    assert len(run.rows()) - before > 5 * seconds
    run.proxy.mend()
    assert run.end() == []
    assert run.share() < SHARE and run.seconds("finish")[0] < FINISH_TIMEOUT
    run.assert_nothing_is_lost()


@pytest.mark.parametrize(
    "fault", ["401", *(pytest.param(fault, marks=pytest.mark.faults) for fault in FAULTS if fault != "401")]
)
def test_a_server_that_goes_away_for_good_gets_the_rest_from_a_resumed_run(run, fault):
    run.start(120)
    run.wait_for_rows(60)
    FAULTS[fault](run.proxy)
    lines = run.end()
    assert run.share() < SHARE and run.seconds("finish")[0] < 2 * FINISH_TIMEOUT + FEW
    resume = f"; later: python -m trpo_lightning train --resume {run.run_dir}"
    (line,) = lines
    assert line.startswith("warning: W&B does not have all of this run (") and line.endswith(resume)
    run.proxy.mend()
    run.sync(resume)
    run.assert_nothing_is_lost()


@pytest.mark.faults
def test_a_client_whose_process_stands_still_stops_nothing(run):
    run.start(400)
    run.wait_for_rows(20)
    (client,) = [pid for pid in family(run.process.pid)[1:] if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(client, signal.SIGSTOP)
    lines = run.end()
    assert len(run.rows()) == 400 and lines and all("W&B do" in line for line in lines)
    assert run.share() < SHARE and run.seconds("finish")[0] < 3 * FINISH_TIMEOUT
    run.sync(f"; later: python -m trpo_lightning train --resume {run.run_dir}")
    run.assert_nothing_is_lost()


@pytest.mark.faults
def test_a_server_that_is_slow_gets_all_and_nobody_waits_for_it(run):
    slow(run.proxy)
    run.start(300)
    lines = run.end()  # it may need more time at the end than it has
    assert all(line.startswith("warning: W&B does not have all of this run (Timed out") for line in lines)
    assert run.share() < SHARE and run.seconds("finish")[0] < 2 * FINISH_TIMEOUT + FEW
    run.proxy.mend()
    run.sync(f"; later: python -m trpo_lightning train --resume {run.run_dir}")
    run.assert_nothing_is_lost()
