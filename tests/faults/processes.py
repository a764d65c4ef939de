"""Lives of training processes, and when they end: in a fork of the fork server, or in a fresh process."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 120.0
"""Seconds after which a process is taken to hang."""


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    paths = os.pathsep.join([str(HERE), str(HERE.parent), kept.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false"}


class ForkServer:
    """Starts `python -m trpo_lightning` in forks of a process that has imported everything, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, HERE / "fork_server.py"], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(self, *arguments: str, strike: dict | None = None) -> "Fork":
        order = {"arguments": arguments, "out": str(self.folder / "out"), "err": str(self.folder / "err")}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({**order, "strike": strike, "tell_pid": True}).encode() + b"\n")
        self._process.stdin.flush()
        return Fork(self._process.stdout)

    def run(self, *arguments: str, strike: dict | None = None) -> int:
        return self.start(*arguments, strike=strike).code()

    def said(self) -> str:
        """What the last process printed."""
        return (self.folder / "out").read_text() + (self.folder / "err").read_text()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(LIMIT)


@contextmanager
def fork_server(folder: Path) -> Iterator[ForkServer]:
    process = ForkServer(folder)
    try:
        yield process
    finally:
        process.close()


class Fork:
    """A process that the fork_server has forked; its answers come through the fork_server's pipe."""

    def __init__(self, answers) -> None:
        self._answers = answers
        self.pid = int(self._answers.readline())

    def is_over(self, seconds: float) -> bool:
        return bool(select.select([self._answers], [], [], seconds)[0])

    def code(self) -> int:
        if not self.is_over(LIMIT):
            os.kill(self.pid, signal.SIGABRT)
            raise AssertionError(f"it goes on for more than {LIMIT:.0f} seconds")
        return int(self._answers.readline())


class Fresh:
    """A process that starts from nothing."""

    def __init__(self, folder: Path, *arguments: str, **more) -> None:
        command = [sys.executable, "-m", "trpo_lightning", *arguments]
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            self._process = subprocess.Popen(command, env=environment(), stdout=out, stderr=err, **more)
        self.pid = self._process.pid

    def is_over(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def code(self) -> int:
        return self._process.wait(LIMIT)


Life = Fork | Fresh


def send_when(life: Life, condition: Callable[[], bool], number: int = signal.SIGKILL, pause: float = 0.0005) -> int:
    """Send a signal as soon as a condition holds, unless the process ends before; its exit code."""
    end = time.monotonic() + LIMIT
    while not condition():
        if life.is_over(pause):
            return life.code()
        assert time.monotonic() < end, "the moment does not come"
    if not life.is_over(0.0):
        os.kill(life.pid, number)
    return life.code()


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def has_rows(run_dir: Path, count: int) -> Callable[[], bool]:
    """Whether a process that starts from now on has so many rows: it puts a new file in the place of an old one."""
    file = run_dir / "metrics.csv"
    old = file.stat().st_ino if file.exists() else None
    return lambda: file.exists() and file.stat().st_ino != old and file.read_bytes().count(b"\n") > count


def writes_checkpoint(run_dir: Path, count: int = 1) -> Callable[[], bool]:
    """Whether the `count`-th barrier from now is being written, to its temporary name."""
    seen: set[str] = set()
    folder = run_dir / "checkpoints"

    def condition() -> bool:
        if folder.is_dir():
            seen.update(name for name in os.listdir(folder) if name.startswith(".barrier_") and name not in old)
        return len(seen) >= count

    old = set(os.listdir(folder)) if folder.is_dir() else set()
    return condition
