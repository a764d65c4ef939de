"""Training processes are killed with SIGKILL again and again: in the end their run is as if nothing had happened."""

import json
import os
import random
import secrets
import signal
import time
from pathlib import Path

import pytest
import torch
import wandb
from processes import ForkServer, Fresh, after, environment, fork_server, has_rows, send_when, writes_checkpoint
from wandb_records import offline_history, sync

from trpo_lightning import load
from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.training.metrics import METRICS

BASE = """env.max_episode_steps=20 evaluation.every=5 evaluation.episodes=2 value.epochs=1 policy.hidden_sizes=[8]
    checkpoint.every=2 threads=1""".split()
VARIANTS = {
    "gymnasium": "env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 rollout.steps_per_iteration=64",
    "envpool": "env.id=Hopper-v5 env.backend=envpool env.num_envs=2 rollout.steps_per_iteration=64",
    "reuse": """env.id=Hopper-v5 env.backend=envpool env.num_envs=2 rollout.steps_per_iteration=64
        rule.reuse=optimal""",
    "vine": """env.id=Pendulum-v1 rollout.scheme=vine value.name=none rollout.rollout_set_size=4 rollout.branches=3
        rollout.branch_length=4""",
    "cma_es": """env.id=CartPole-v1 rule.name=cma_es rollout.scheme=population rule.population=4 env.num_envs=4
        rule.episodes_per_candidate=1""",
}
ITERATIONS, KILLS, FRESH, LAST = 60, 30, 5, 3
"""Of a run; kills of it, of which so many of processes that started from nothing, and in what a run does at its end."""
URL, KEY = os.environ.get("TRPO_LIGHTNING_TEST_WANDB_URL"), os.environ.get("TRPO_LIGHTNING_TEST_WANDB_KEY")
KILL = [int(signal.SIGKILL)]


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    with fork_server(tmp_path_factory.mktemp("fork_server")) as process:
        yield process


def newest(run_dir: Path) -> dict | None:
    files = checkpoint.checkpoint_files(run_dir / "checkpoints")
    return checkpoint.read(files[0]) if files else None


def rows(run_dir: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k[:5] != "time/"} for row in read_rows(run_dir / "metrics.csv")]


def assert_same(first, second, where: str = "state") -> None:
    """The same numbers, bit for bit."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second, where


def assert_nothing_is_lost(run_dir: Path, straight: Path, iterations: int) -> None:
    states = [newest(directory) or {} for directory in (run_dir, straight)]
    for state in states:
        del state["random"], state["wandb_run_id"]  # other libraries' generators, which the project never draws from
    assert states[0]["iteration"] == iterations
    assert_same(*states)
    for which in ("last", "best"):
        policies = [load(directory, which) for directory in (run_dir, straight)]
        assert policies[0].iteration == policies[1].iteration
        assert_same(*(dict(policy.policy.state_dict()) for policy in policies))
        assert_same(*(policy.normalizer.state_dict() for policy in policies))
    assert [int(row["iteration"]) for row in rows(run_dir)] == [*range(1, iterations + 1)]
    assert rows(run_dir) == rows(straight)
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["iteration"]) == ("finished", iterations)
    assert files(run_dir) == files(straight)


def files(run_dir: Path) -> set[Path]:
    paths = {path.relative_to(run_dir) for path in run_dir.rglob("*")}
    return {path for path in paths if path.parts[0] != "wandb"}


def assert_wandb_has_each_row_once(history: list[dict], run_dir: Path) -> None:
    def numbers(row):
        names = [name for name in METRICS if name[:5] != "time/" and row.get(name) not in (None, "")]
        return {name: row[name] if name == "update/rejection_reason" else float(row[name]) for name in names}

    assert [numbers(row) for row in history] == [numbers(row) for row in rows(run_dir)]


class Run:
    """A run that is killed and started again."""

    def __init__(self, children: ForkServer, run_dir: Path, arguments: list[str], seed: int) -> None:
        self.children, self.run_dir, self.arguments = children, run_dir, arguments
        self.random = random.Random(seed)
        self.moments: list[str] = []

    def start(self, *, fresh: bool = False, strike: dict | None = None):
        begun = (self.run_dir / "config.yaml").exists()
        run = ["--resume", str(self.run_dir)] if begun else ["--run-dir", str(self.run_dir), *self.arguments]
        arguments = ["train", "--quiet", *run]
        return Fresh(self.children.folder, *arguments) if fresh else self.children.start(*arguments, strike=strike)

    def iteration(self) -> int:
        return (newest(self.run_dir) or {"iteration": 0})["iteration"]

    def kill(self, *, fresh: bool, start_seconds: float, iterations: int) -> None:
        """Kill it at a random moment, of a kind that leaves something to do for the next life."""
        done = self.iteration()
        kinds = ["start", "barrier", "file"] + (["row", "row", "barriers"] if iterations - done > 8 else [])
        kind = self.random.choice([k for k in kinds if not (fresh and k == "file")])
        seconds, more, count = (
            self.random.uniform(0, start_seconds),
            self.random.randrange(1, 5),
            self.random.randrange(50),
        )
        strike = {"operation": str(self.run_dir), "count": 1 + count, "signals": KILL} if kind == "file" else None
        conditions = {
            "start": after(seconds),
            "row": has_rows(self.run_dir, done + more),
            "barrier": writes_checkpoint(self.run_dir),
            "barriers": writes_checkpoint(self.run_dir, 2),
        }
        moment, latest = conditions.get(kind, lambda: False), has_rows(self.run_dir, done + 4)
        code = send_when(self.start(fresh=fresh, strike=strike), lambda: moment() or latest())
        assert code == -signal.SIGKILL, f"{kind} {strike} {seconds} {done} {code}: {self.children.said()}"
        self.moments.append(f"{'fresh ' if fresh else ''}{kind}")

    def kill_before(self, operation: str, count: int) -> None:
        """Kill it right before the `count`-th of its file operations that match."""
        code = self.start(strike={"operation": operation, "count": count, "signals": KILL}).code()
        assert code == -signal.SIGKILL, f"{operation}: {self.children.said()}"
        self.moments.append(f"before {operation}")


def straight_run(children: ForkServer, run_dir: Path, arguments: list[str]) -> float:
    """Undisturbed; the seconds that it takes to its first row."""
    began, seconds = time.monotonic(), 0.0
    life = children.start("train", "--quiet", "--run-dir", str(run_dir), *arguments)
    first_row = has_rows(run_dir, 1)
    while not life.is_over(0.001):
        seconds = seconds or (time.monotonic() - began if first_row() else 0.0)
    assert life.code() == 0, children.said()
    return seconds


def test_a_run_that_is_killed_four_times_loses_nothing(children, tmp_path):
    arguments = [*BASE, *VARIANTS["gymnasium"].split(), "total_iterations=10", "tracking.wandb=disabled"]
    straight_run(children, tmp_path / "straight", arguments)
    run = Run(children, tmp_path / "killed", arguments, seed=0)
    run.kill_before("os.rename.*config.yaml", 1)
    assert send_when(run.start(), writes_checkpoint(run.run_dir)) == -signal.SIGKILL
    assert send_when(run.start(), has_rows(run.run_dir, run.iteration() + 3)) == -signal.SIGKILL
    run.kill_before("os.rename.*status.json", 2)
    assert run.start().code() == 0, children.said()
    assert_nothing_is_lost(run.run_dir, tmp_path / "straight", 10)


@pytest.mark.faults
@pytest.mark.parametrize("file", ["config.yaml", "provenance.json"])
def test_a_finished_run_that_is_killed_while_it_gets_a_larger_budget_is_not_taken_for_finished(
    children, tmp_path, file
):
    arguments = [*BASE, *VARIANTS["gymnasium"].split(), "tracking.wandb=disabled"]
    run_dir, larger = tmp_path / "run", tmp_path / "larger"
    straight_run(children, run_dir, [*arguments, "total_iterations=2"])
    resume = ["train", "--quiet", "--resume", str(run_dir), "total_iterations=6"]
    strike = {"operation": f"os.rename.*{file}", "count": 1, "signals": KILL}
    assert children.run(*resume, strike=strike) == -signal.SIGKILL
    assert json.loads((run_dir / "status.json").read_text())["state"] == "running"
    assert children.run(*resume) == 0, children.said()
    straight_run(children, larger, [*arguments, "total_iterations=6"])
    assert_nothing_is_lost(run_dir, larger, 6)


@pytest.mark.faults
def test_offline_records_of_processes_that_were_killed_at_their_beginning_do_not_stop_wandb_sync(children, tmp_path):
    arguments = [*BASE, *VARIANTS["gymnasium"].split(), "total_iterations=2", "tracking.wandb=offline"]
    run = Run(children, tmp_path / "killed", arguments, seed=0)
    run.kill_before("open.*iterations_before", 1)
    (begun,) = (run.run_dir / "wandb").glob("offline-run-*/*.wandb")
    half = run.run_dir / "wandb" / "offline-run-20200101_000000-abcdefgh" / "run-abcdefgh.wandb"
    half.parent.mkdir()
    half.write_bytes(begun.read_bytes()[:7])  # what there is if the client is killed as well
    assert run.start().code() == 0, children.said()
    assert list(half.parent.glob("*.synced"))
    assert_wandb_has_each_row_once(offline_history(run.run_dir), run.run_dir)


@pytest.mark.faults
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_is_killed_thirty_times_loses_nothing(children, tmp_path, variant):
    project = f"kills_{secrets.token_hex(4)}"
    arguments = [*BASE, *VARIANTS[variant].split(), f"total_iterations={ITERATIONS}"]
    arguments += ["tracking.wandb=offline", f"tracking.project={project}"]
    seconds = straight_run(children, tmp_path / "straight", arguments)
    run = Run(children, tmp_path / "killed", arguments, seed=sum(variant.encode()))
    fresh = set(run.random.sample(range(KILLS - LAST), FRESH))
    for i in range(KILLS - LAST):
        run.kill(fresh=i in fresh, start_seconds=8.0 if i in fresh else seconds, iterations=ITERATIONS)
    run.kill_before("os.rename.*last.pt", 1 + (ITERATIONS - run.iteration()) // 2)
    run.kill_before("os.rename.*status.json", 2)
    run.kill_before("os.rename.*status.json", 2)
    assert run.start().code() == 0, children.said()
    assert len(run.moments) == KILLS
    print(variant, {moment: run.moments.count(moment) for moment in sorted(set(run.moments))})
    assert_nothing_is_lost(run.run_dir, tmp_path / "straight", ITERATIONS)
    assert_wandb_has_each_row_once(offline_history(run.run_dir), run.run_dir)
    if URL and KEY:
        variables = {"HOME": str(tmp_path), "WANDB_BASE_URL": URL, "WANDB_API_KEY": KEY}
        print(sync(run.run_dir, {**environment(), **variables}))
        assert_wandb_has_each_row_once(server_history(project, run.run_dir), run.run_dir)


def server_history(project: str, run_dir: Path) -> list[dict]:
    """All rows of the project on the server, once they are no fewer than those of the file."""
    api = wandb.Api(overrides={"base_url": URL or ""}, api_key=KEY)
    for _ in range(100):
        found = [row for run in api.runs(project) for row in run.scan_history()]
        if len(found) >= len(rows(run_dir)):
            return found
        time.sleep(0.2)
    return found
