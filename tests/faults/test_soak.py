"""Many short iterations: memory, open files, threads and files stay as they are after the first few."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from trpo_lightning.runs.metrics_file import read_rows

TINY = """env.id=CartPole-v1 env.num_envs=2 env.max_episode_steps=50 rollout.steps_per_iteration=32 threads=1
    policy.hidden_sizes=[8] value.hidden_sizes=[8] value.epochs=1 checkpoint.every=50 evaluation.every=100
    evaluation.episodes=2 tracking.wandb=offline total_env_steps=1000000000""".split()
MEMORY = 0.02
"""Share of the resident memory after warm-up by which it may grow; measured over 20,000 updates: 0.003."""
ROW = 1000
"""Bytes of a row of metrics.csv, at most."""
RECORD = 4000
"""Bytes that W&B's client records of a row, at most."""


@dataclass(frozen=True)
class Sample:
    """What a process and its children hold, and the run directory, after so many rows."""

    rows: int
    kilobytes: int
    open_files: int
    threads: int
    files: int


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def sample(pid: int, run_dir: Path) -> Sample:
    kilobytes = open_files = threads = 0
    for member in family(pid):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{member}/status").read_text().splitlines())
        kilobytes += int(status["VmRSS"].split()[0])
        threads += int(status["Threads"])
        open_files += len(os.listdir(f"/proc/{member}/fd"))
    files = [path for path in run_dir.rglob("*") if path.is_file() and not path.name.endswith(".tmp")]
    rows = (run_dir / "metrics.csv").read_bytes().count(b"\n") - 1
    return Sample(rows, kilobytes, open_files, threads, len(files))


def train_and_sample(run_dir: Path, *arguments: str) -> list[Sample]:
    """Train in a process of its own, as an experiment does; 100 samples or so after the first row."""
    command = [sys.executable, "-m", "trpo_lightning", "train", *TINY, *arguments, "--run-dir", str(run_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(run_dir.parent)}
    samples = []
    with open(run_dir.with_name("log.txt"), "wb") as log:
        process = subprocess.Popen([*command, "--quiet"], env=environment, stdout=log, stderr=log)
        began = time.monotonic()
        while process.poll() is None:
            time.sleep(max(0.1, (time.monotonic() - began) / 100))
            try:
                samples.append(sample(process.pid, run_dir))
            except (OSError, KeyError):  # not begun yet, or just ended
                continue
    assert process.returncode == 0, run_dir.with_name("log.txt").read_text()
    return samples


def soak(run_dir: Path, updates: int, warm: int, *arguments: str) -> None:
    samples = train_and_sample(run_dir, f"total_iterations={updates}", *arguments)
    samples = [each for each in samples if warm <= each.rows < updates]  # while it trains
    assert len(samples) > 10
    early, late = samples[: len(samples) // 4], samples[-(len(samples) // 4) :]

    def typical(part: list[Sample], name: str) -> float:
        return median(getattr(each, name) for each in part)

    assert typical(late, "kilobytes") < (1.0 + MEMORY) * typical(early, "kilobytes")
    for name in ("open_files", "threads", "files"):
        assert typical(late, name) <= typical(early, name), name
        assert max(getattr(each, name) for each in late) <= max(getattr(each, name) for each in early) + 2, name
    assert [int(row["iteration"]) for row in read_rows(run_dir / "metrics.csv")] == list(range(1, updates + 1))
    assert (run_dir / "metrics.csv").stat().st_size < ROW * updates
    (recording,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    assert recording.stat().st_size < RECORD * updates
    rest = [path for path in run_dir.rglob("*") if path.is_file() and path.suffix not in (".wandb", ".csv")]
    assert sum(path.stat().st_size for path in rest) < 500_000
    assert run_dir.with_name("log.txt").read_text() == ""


def test_a_short_run_leaks_nothing(tmp_path):
    soak(tmp_path / "run", 300, 110, "env.backend=gymnasium")


@pytest.mark.faults
@pytest.mark.parametrize(("backend", "updates"), [("gymnasium", 10_000), ("envpool", 4_000)])
def test_a_long_run_leaks_nothing(backend, updates, tmp_path):
    soak(tmp_path / "run", updates, 500, f"env.backend={backend}")
