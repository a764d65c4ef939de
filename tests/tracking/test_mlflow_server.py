"""A run whose MLflow server goes away in the middle and comes back."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_loggers import HERE, TINY, call, environment, rows_of
from wandb_server_fixture import closed_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("loggers")]


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.1)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return answer.status == 200
    return False


@contextlib.contextmanager
def server(port: int, folder: Path) -> Iterator[None]:
    with open(folder / "server.log", "a") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "mlflow_server.py"), str(port), str(folder)], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "server.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


def logged(folder: Path) -> list[tuple[int, float]]:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(folder / "server.db")) as database:
        query = "select step, value from metrics where key = 'iteration' order by step"
        return database.execute(query).fetchall()
    return []


def test_an_outage_of_the_server_costs_nothing(tmp_path: Path) -> None:
    port, run_dir = closed_port(), tmp_path / "run"
    url = f"http://127.0.0.1:{port}"
    arguments = [*TINY, "tracking.loggers=mlflow", f"tracking.mlflow={url}", "total_iterations=150", "--quiet"]
    command = [sys.executable, "-m", "trpo_lightning", "train", *arguments, "--run-dir", "run"]
    with contextlib.ExitStack() as stack:
        with server(port, tmp_path), open(tmp_path / "out", "w") as out:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=out, stderr=out)
            stack.callback(process.kill)
            wait_until(lambda: len(logged(tmp_path)) > 3 or process.poll() is not None)
        before, at = len(logged(tmp_path)), len(rows_of(run_dir))
        wait_until(lambda: len(rows_of(run_dir)) > at + 10 or process.poll() is not None)
        assert process.poll() is None and len(logged(tmp_path)) == before
        with server(port, tmp_path):
            wait_until(lambda: process.poll() is not None, 240)
            assert process.returncode == 0, (tmp_path / "out").read_text()
            run_id = json.loads((run_dir / "trackers.json").read_text())["mlflow"]["run_id"]
            with urllib.request.urlopen(f"{url}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=30) as answer:
                run = json.loads(answer.read())["run"]
            with urllib.request.urlopen(f"{url}/api/2.0/mlflow/artifacts/list?run_id={run_id}", timeout=30) as answer:
                artifacts = {file["path"] for file in json.loads(answer.read())["files"]}
    rows = rows_of(run_dir)
    assert logged(tmp_path) == [(int(row["env_steps"]), float(row["iteration"])) for row in rows] and len(rows) == 150
    assert run["info"]["status"] == "FINISHED" and artifacts == {"config.yaml", "policies"}
    (line,) = (tmp_path / "out").read_text().splitlines()
    assert line.startswith("warning: mlflow does not take everything (")


def test_a_server_that_is_away_from_beginning_to_end_gets_the_run_when_it_is_resumed(tmp_path: Path) -> None:
    port = closed_port()
    where = f"tracking.mlflow=http://127.0.0.1:{port}"
    code, output = call(
        tmp_path, "train", *TINY, "tracking.loggers=mlflow", where, "total_iterations=3", "--quiet", "--run-dir", "run"
    )
    assert code == 0 and len(output.splitlines()) == 1 and "train --resume run" in output, output
    with server(port, tmp_path):
        assert call(tmp_path, "train", "--resume", "run", "--quiet") == (0, "")
    assert [value for _, value in logged(tmp_path)] == [1, 2, 3]
