"""What a tracker does to a run: nothing. Real threads, real runs, trackers that fail in every way."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import own_loggers
import pytest
from methods import on_top_of

import trpo_lightning
from trpo_lightning import extras
from trpo_lightning.__main__ import main
from trpo_lightning.errors import UserError
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import RunOutcome, train_run
from trpo_lightning.settings import from_keywords
from trpo_lightning.tracking import background_logger, trackers
from trpo_lightning.tracking.background_logger import BackgroundLogger, RunFacts
from trpo_lightning.tracking.own_logger import OwnConnection
from trpo_lightning.tracking.rows import only_numbers, parsed
from trpo_lightning.tracking.tensorboard_logger import tensorboard_run

SMALL = """env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 env.max_episode_steps=20
    rollout.steps_per_iteration=32 policy.hidden_sizes=[4] value.hidden_sizes=[4] value.epochs=1 checkpoint.every=2
    evaluation.every=2 evaluation.episodes=1 threads=1 total_iterations=4""".split()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_logger, "INTERVAL", 0.05)
    monkeypatch.setattr(background_logger, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(trackers, "FINISH_TIMEOUT", 3.0)
    monkeypatch.setattr(own_loggers.Faulty, "failures", 0)
    monkeypatch.setattr(own_loggers.Faulty, "seconds", 0.0)


def train(run_dir: Path, *overrides: str, resume: bool = False) -> RunOutcome:
    return train_run(on_top_of(SMALL, list(overrides)), run_dir, resume=resume, quiet=True)


def iterations(run_dir: Path) -> list[int]:
    lines = (run_dir / "own_table.jsonl").read_text().splitlines()
    return [json.loads(line)[1]["iteration"] for line in lines]


def warning_of(printed: str) -> str:
    (line,) = printed.splitlines()
    assert line.startswith("warning: ")
    return line


# ---- the thread


def rows(count: int) -> list[dict[str, str]]:
    return [{"iteration": str(i), "env_steps": str(10 * i), "a": "", "b": f"{i}.5"} for i in range(1, count + 1)]


def logger_of(run_dir: Path, recorded: list[dict[str, str]], keep: int = 0) -> BackgroundLogger:
    facts = RunFacts(run_dir, "a title")
    return BackgroundLogger(
        "a_table",
        lambda: OwnConnection(own_loggers.Faulty(run_dir), "a_table", facts),
        lambda: recorded,
        keep,
        run_dir,
    )


def end(logger: BackgroundLogger, seconds: float = 5.0) -> None:
    logger.end("finished")
    logger.wait(time.monotonic() + seconds)


def test_what_the_tracker_lacks_of_the_kept_rows_comes_first(tmp_path: Path) -> None:
    logger = logger_of(tmp_path, rows(6), keep=4)
    for row in rows(6)[4:]:
        logger.log_metrics(parsed(row))
    end(logger)
    assert iterations(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_an_outage_costs_no_row_and_none_comes_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_loggers.Faulty.failures = 3
    recorded: list[dict[str, str]] = []
    logger = logger_of(tmp_path, recorded)
    for row in rows(30):
        recorded.append(row)  # the file is written before a tracker hears of a row
        logger.log_metrics(parsed(row))
        time.sleep(0.03)
    end(logger)
    assert own_loggers.Faulty.failures == 0 and iterations(tmp_path) == list(range(1, 31))
    line = warning_of(capsys.readouterr().out)
    assert "a_table does not take everything (no route to the table)" in line and f"--resume {tmp_path}" in line


def test_a_call_that_fails_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logger_of(tmp_path, rows(2), keep=2)
    called = []

    def fail(connection: object) -> None:
        called.append(1)
        raise OSError("no room")

    logger.call(fail)
    end(logger)
    assert iterations(tmp_path) == [1, 2] and called == [1]
    assert "no room" in warning_of(capsys.readouterr().out)


def test_only_numbers_reach_a_tracker_of_numbers() -> None:
    row = {"a": np.float32(0.5), "b": np.int64(2), "c": "text", "d": None, "e": float("nan"), "f": float("inf"), "g": 3}
    found = only_numbers(row)
    assert found == {"a": 0.5, "b": 2, "f": float("inf"), "g": 3}
    assert [type(value) for value in found.values()] == [float, int, float, int]


# ---- runs


def test_a_tracker_that_hangs_costs_a_run_no_row_and_no_more_than_the_time_limit(tmp_path, capsys) -> None:
    own_loggers.Faulty.seconds = 3600.0
    began = time.monotonic()
    assert train(tmp_path / "run", "tracking.loggers=[own_loggers:faulty]").state == "finished"
    assert time.monotonic() - began < 60 and len(read_rows(tmp_path / "run" / "metrics.csv")) == 4
    assert "did not answer in time" in warning_of(capsys.readouterr().out)


def test_a_run_whose_tracker_fails_finishes_and_sends_everything_when_it_is_resumed(tmp_path, capsys) -> None:
    own_loggers.Faulty.failures = 1_000_000
    run_dir = tmp_path / "run"
    assert train(run_dir, "tracking.loggers=[own_loggers:faulty]").state == "finished"
    assert "no route to the table" in warning_of(capsys.readouterr().out)
    assert not (run_dir / "own_table.jsonl").exists()
    own_loggers.Faulty.failures = 0
    assert train(run_dir, "tracking.loggers=[own_loggers:faulty]", resume=True).iteration == 4
    assert iterations(run_dir) == [1, 2, 3, 4] and capsys.readouterr().out == ""


def test_a_logger_that_cannot_be_made_stops_no_run(tmp_path, capsys) -> None:
    assert train(tmp_path / "run", "tracking.loggers=[own_loggers:away]").state == "finished"
    assert "tracking.loggers=own_loggers:away does not start (the table is away)" in capsys.readouterr().out


def test_no_tracker_changes_a_bit_of_a_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for name, loggers in {"without": "[]", "with": "[tensorboard,own_loggers:table]"}.items():
        train(tmp_path / name, f"tracking.loggers={loggers}")
        found.append(trpo_lightning.load(tmp_path / name).policy.state_dict())
    assert all(tensor.equal(found[1][key]) for key, tensor in found[0].items())


def test_no_loggers_means_local_files_only(tmp_path) -> None:
    train(tmp_path / "run", "tracking.loggers=[]", "tracking.wandb=offline")
    there = {path.name for path in (tmp_path / "run").iterdir()}
    assert there == {".lock", "checkpoints", "config.yaml", "metrics.csv", "provenance.json", "status.json"}


def test_a_finished_run_can_be_given_to_a_tracker_later(tmp_path) -> None:
    train(tmp_path / "run", "tracking.loggers=[]")
    assert tensorboard_run(tmp_path / "run") is None
    train(tmp_path / "run", "tracking.loggers=[tensorboard]", resume=True)
    run = tensorboard_run(tmp_path / "run")
    assert run is not None and run.read()["iteration"].tolist() == [1, 2, 3, 4]


def test_a_run_that_fails_says_so_to_its_trackers(tmp_path) -> None:
    with pytest.raises(UserError, match="CartPole"):
        train(tmp_path / "run", "tracking.loggers=[own_loggers:table]", "env.kwargs={no_such: 1}")
    assert (tmp_path / "run" / "own_told.txt").read_text().split()[-1] == "failed"


# ---- bad input


@pytest.mark.parametrize(
    ("loggers", "message"),
    [
        ("[mlfow]", r"tracking\.loggers\[0\]='mlfow' is not one of wandb, tensorboard, mlflow, trackio, and no module"),
        ("[mlflow,mlflow]", "names mlflow twice"),
        ("mlflow,", r"tracking\.loggers\[1\] is empty"),
        ("[own_loggers:no_such]", "module own_loggers has no function no_such"),
        ("[no_such_module:table]", "module no_such_module cannot be imported"),
        ("[own_loggers:nothing]", "returned a str, not a pytorch_lightning"),
    ],
)
def test_loggers_that_cannot_work_are_one_line(tmp_path, capsys, loggers, message) -> None:
    code = main(["train", *SMALL, f"tracking.loggers={loggers}", "--run-dir", str(tmp_path / "run")])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and re.search(message, line), line
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize("tracker", ["wandb", "tensorboard", "mlflow", "trackio"])
def test_a_missing_package_is_a_line_with_what_to_type(tmp_path, capsys, monkeypatch, tracker) -> None:
    monkeypatch.setitem(extras.MODULES, tracker, ("no_such_package_of_a_tracker",))
    code = main(["train", *SMALL, f"tracking.loggers=[{tracker}]", "--run-dir", str(tmp_path / "run")])
    assert code == 2 and not (tmp_path / "run").exists()
    line = f"error: tracking.loggers={tracker} needs the extra: pip install 'trpo_lightning[{tracker}]'\n"
    assert capsys.readouterr().err == line


def test_passwords_are_kept_out_of_records() -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        from_keywords(tracking={"mlflow": "https://me:secret@example.org/path"})
    assert from_keywords(tracking={"mlflow": "sqlite:////a/b@c.db"}).tracking.mlflow


def test_importing_the_command_line_imports_no_tracker() -> None:
    code = "import sys, trpo_lightning.commands, trpo_lightning.runs.run; print([m for m in sys.modules if m in {set}])"
    names = "('tensorboard', 'mlflow', 'trackio', 'wandb', 'sqlalchemy')"
    done = subprocess.run(
        [sys.executable, "-c", code.replace("{set}", names)], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]", done.stdout
