"""Five runners at once on one experiment, some of them and of their children killed: each run is done exactly once."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from processes import environment, fork_server
from small_runs import EXPERIMENT
from test_kills import assert_nothing_is_lost

from trpo_lightning.errors import BusyError
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.experiment.runner import results_so_far
from trpo_lightning.experiment.states import is_locked
from trpo_lightning.runs.config import recorded_settings, write_config
from trpo_lightning.runs.lock import locked
from trpo_lightning.training.metrics import METRICS

TWO_LEVELS = EXPERIMENT.replace("seeds:", "axes: {rule.delta: [0.01, 0.02]}\nseeds:").replace(
    "total_iterations: 6", "total_iterations: 40"
)
RUNNERS, JOBS = 5, 1
KILLED_RUNNERS, KILLED_CHILDREN = 3, 4


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "small.yaml").write_text(TWO_LEVELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Reader(threading.Thread):
    """Reads all files of an experiment, over and over, and notes those that are torn."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.reads, self.torn, self.ended = root, 0, [], threading.Event()
        self.kinds = {
            "status.json": lambda path: json.loads(path.read_text())["state"],
            "provenance.json": lambda path: json.loads(path.read_text())[0]["command"],
            "config.yaml": lambda path: recorded_settings(path.parent),
            "metrics.csv": whole_rows,
            "runs.csv": whole_rows,
            "scores.csv": whole_rows,
            "report.html": lambda path: path.read_text().rindex("</html>\n"),
            "learning_curves.png": lambda path: path.read_bytes().rindex(b"IEND"),
            "learning_curves.pdf": lambda path: path.read_bytes().rindex(b"%%EOF"),
        }

    def run(self) -> None:
        while not self.ended.wait(0.01):
            for name, read in self.kinds.items():
                for path in self.root.rglob(name):
                    try:
                        read(path)
                        self.reads += 1
                    except FileNotFoundError:
                        pass
                    except Exception as error:
                        self.torn.append(f"{path}: {error!r}")


def whole_rows(path: Path) -> None:
    """All lines that have an end have all columns."""
    text = path.read_text()
    rows = list(csv.reader(io.StringIO(text[: text.rindex("\n") + 1])))
    assert {len(row) for row in rows} == {len(rows[0])}, path
    assert path.name != "metrics.csv" or rows[0] == list(METRICS)


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "trpo_lightning", "experiment", "small", "--root", "runs", "--jobs", str(JOBS)]
    with open(folder / "out.txt", "a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)


def running(run_dirs: list[Path]) -> dict[Path, int]:
    """The processes that are at the runs."""
    found = {}
    for run_dir in run_dirs:
        with suppress(FileNotFoundError):
            status = json.loads((run_dir / "status.json").read_text())
            if status["state"] == "running" and is_locked(run_dir):
                found[run_dir] = status["pid"]
    return found


def kill_some(chance: random.Random, runners: list[subprocess.Popen], run_dirs: list[Path]) -> dict[Path, int]:
    """Kill runners and their children at random moments; how often each run was hit."""
    hits, victims = dict.fromkeys(run_dirs, 0), ["runner"] * KILLED_RUNNERS + ["child"] * KILLED_CHILDREN
    chance.shuffle(victims)
    end = time.monotonic() + 240
    while victims and time.monotonic() < end:
        time.sleep(chance.uniform(0.2, 2.0))
        children = running(run_dirs)
        if not children:
            continue
        if victims[-1] == "runner":
            victim = chance.choice([runner for runner in runners if runner.poll() is None])
            victim.kill()
            victim.wait()
            victims.pop()
        else:
            run_dir = chance.choice(sorted(children))
            with suppress(ProcessLookupError):
                os.kill(children[run_dir], signal.SIGKILL)
                hits[run_dir] += 1
                victims.pop()
    assert not victims, f"these were not needed: {victims}"
    return hits


@pytest.mark.faults
def test_five_runners_of_which_some_are_killed_do_each_run_exactly_once(folder):
    cells = load_experiment("small").cells()
    runs = {folder / "runs" / cell.directory: folder / "straight" / cell.directory for cell in cells}
    with fork_server(folder) as children:
        for cell, straight in zip(cells, runs.values(), strict=True):
            write_config(cell.settings, folder / "config.yaml")
            arguments = ["--quiet", "--config", str(folder / "config.yaml"), "--run-dir", str(straight), "threads=1"]
            assert children.run("train", *arguments) == 0, children.said()
    reader = Reader(folder / "runs")
    reader.start()
    runners = [start(folder) for _ in range(RUNNERS)]
    try:
        hits = kill_some(random.Random(9), runners, list(runs))
        codes = [runner.wait(200) for runner in runners]
        while running(list(runs)):  # children of killed runners go on
            time.sleep(0.1)
        before = [result.state for result in results_so_far(cells, folder / "runs")]
        last = [start(folder).wait(200), start(folder).wait(200)]
    finally:
        for runner in runners:
            runner.kill()
        reader.ended.set()
        reader.join()
    told = (folder / "out.txt").read_text()
    assert "Traceback" not in told, told
    assert codes.count(-signal.SIGKILL) == KILLED_RUNNERS and set(codes) <= {0, 1, 130, -signal.SIGKILL}, told
    assert last == [0, 0] and not reader.torn and reader.reads > 1000, (told, reader.torn)
    assert [result.state for result in results_so_far(cells, folder / "runs")] == ["finished"] * len(cells), told
    for run_dir, straight in runs.items():
        (run_dir / "log.txt").unlink()
        assert_nothing_is_lost(run_dir, straight, 40)
        assert len(json.loads((run_dir / "provenance.json").read_text())) <= 1 + hits[run_dir]
    print(f"killed: {KILLED_RUNNERS} runners, {sum(hits.values())} children; before the last call: {before}; ", end="")
    print(f"{reader.reads} reads of files, none torn")


def test_who_asks_whether_a_run_is_locked_keeps_no_one_from_it(tmp_path):
    (tmp_path / ".lock").touch()
    askers = []
    try:
        for _ in range(2):
            askers.append(os.fork())
            while not askers[-1]:
                is_locked(tmp_path)
        for _ in range(300):
            with locked(tmp_path):
                assert is_locked(tmp_path)
            time.sleep(0.001)
    finally:
        for asker in askers:
            os.kill(asker, signal.SIGKILL)
            os.waitpid(asker, 0)


def test_a_lock_does_not_live_on_in_forks(tmp_path):
    with locked(tmp_path):
        asleep = os.fork()
        if not asleep:
            time.sleep(60)
            os._exit(0)
        with pytest.raises(BusyError), locked(tmp_path):
            pass
    try:
        assert not is_locked(tmp_path)
    finally:
        os.kill(asleep, signal.SIGKILL)
        os.waitpid(asleep, 0)


def test_what_a_killed_process_did_not_finish_to_write_is_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    left = [tmp_path / ".status.json.7.tmp", tmp_path / "checkpoints" / ".barrier_00000002.ckpt.7.tmp"]
    for path in left:
        path.write_bytes(b"half")
    with locked(tmp_path):
        assert not any(path.exists() for path in left)
