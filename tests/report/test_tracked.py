"""`report --from`: the same report from a tracker, without run directories."""

import contextlib
import csv
import os
import secrets
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from trpo_lightning import extras
from trpo_lightning.__main__ import main
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.runs.run import train_run
from trpo_lightning.tracking import background_logger

EXPERIMENT = """
title: A title
hypothesis: It learns.
minutes: 1
bases: [rules/trpo]
environments: [CartPole-v1]
seeds: [0, 1]
axes: {rule.delta: [0.01, 0.1]}
overrides:
  env: {backend: gymnasium, num_envs: 2, max_episode_steps: 20}
  rollout.steps_per_iteration: 64
  policy.hidden_sizes: [4]
  value: {hidden_sizes: [4], epochs: 1}
  checkpoint.every: 2
  evaluation: {every: 2, episodes: 1}
  threads: 1
  total_iterations: 4
  tracking: {project: PROJECT, wandb: WANDB, loggers: LOGGERS}
"""
URL, KEY = os.environ.get("TRPO_LIGHTNING_TEST_WANDB_URL"), os.environ.get("TRPO_LIGHTNING_TEST_WANDB_KEY")

pytestmark = pytest.mark.xdist_group("loggers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """A folder with an experiment whose runs but one have happened, under three trackers."""
    here, before = tmp_path_factory.mktemp("tracked"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(background_logger, "INTERVAL", 0.05)
        for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_TRACKING"))]:
            patch.delenv(name)
        patch.setenv("TRACKIO_DIR", str(here / "trackio"))  # which Trackio reads once, when it is imported: here
        declare(here, "disabled", "[tensorboard, mlflow, trackio]")
        run(3)
        yield here
    assert Path.cwd() == before


def declare(here: Path, wandb: str, loggers: str) -> None:
    text = EXPERIMENT.replace("PROJECT", f"tests_{secrets.token_hex(4)}").replace("WANDB", wandb)
    (here / "experiments").mkdir(exist_ok=True)
    (here / "experiments" / "tracked.yaml").write_text(text.replace("LOGGERS", loggers))


def run(count: int) -> None:
    for cell in load_experiment("tracked", "full").cells()[:count]:
        train_run(cell.settings, Path("runs") / cell.directory, quiet=True)


def report(*arguments: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The tables of runs and of scores, as a report writes them."""
    assert main(["report", "tracked", *arguments]) == 0
    tables = []
    for name in ("runs", "scores"):
        with open(Path("runs/tracked/full/report") / f"{name}.csv", encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return tables[0], tables[1]


def same(found: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    """The same tables, up to 32 bits of TensorBoard, without what only a directory has."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in other.keys() - {"run_dir", "command", "commit", "started"}:
            try:
                assert float(one[name] or "nan") == pytest.approx(float(other[name] or "nan"), rel=1e-4, nan_ok=True)
            except ValueError:
                assert one[name] == other[name], name


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "trackio"])
def test_the_report_from_a_tracker_is_that_from_directories(folder: Path, tracker: str) -> None:
    runs, scores = report()
    assert [line["state"] for line in runs] == ["finished"] * 3 + ["missing"]
    if tracker != "tensorboard":  # whose files are in the run directories
        shutil.move("runs", "elsewhere")
    try:
        found = report("--from", tracker)
    finally:
        if Path("elsewhere").exists():
            shutil.rmtree("runs")
            shutil.move("elsewhere", "runs")
    same(found[0], runs)
    same(found[1], scores)


def test_what_a_tracker_has_under_other_settings_is_said(folder: Path) -> None:
    runs, _ = report("--from", "mlflow", "gamma=0.5")
    assert "finished" in {line["state"] for line in runs}
    assert "other settings than declared now: gamma" in Path("runs/tracked/full/report/scores.md").read_text()


def test_a_larger_budget_makes_a_run_unfinished(folder: Path) -> None:
    runs, _ = report("--from", "mlflow", "total_iterations=5")
    assert {line["state"] for line in runs} == {"interrupted", "missing"}


def test_the_latest_run_with_the_declared_settings_counts(folder: Path) -> None:
    cell = load_experiment("tracked", "full").cells()[0]
    train_run(cell.settings, Path("again"), quiet=True)
    with contextlib.closing(sqlite3.connect("mlflow.db")) as database, database:
        latest = "select run_uuid from runs order by start_time desc limit 1"
        database.execute(f"update metrics set value = 12345 where run_uuid = ({latest}) and key like '%return_mean'")
    runs, _ = report("--from", "mlflow")
    assert float(runs[0]["score"]) == 12345


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "trackio"])
def test_a_tracker_without_the_runs_is_a_line(folder: Path, tracker: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["report", "tracked", "--from", tracker, "tracking.project=no_such", "--root", "no_such"])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and f"--from {tracker}: it has no run of project no_such and group tracked" in line


def test_a_tracker_that_is_away_or_not_installed_is_a_line(folder: Path, capsys, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    code = main(["report", "tracked", "--from", "mlflow", f"tracking.mlflow={url}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and "--from mlflow: it cannot be read" in line
    monkeypatch.setitem(extras.MODULES, "mlflow", ("no_such_package_of_a_tracker",))
    assert main(["report", "tracked", "--from", "mlflow"]) == 2
    assert "--from mlflow needs the extra: pip install 'trpo_lightning[mlflow]'" in capsys.readouterr().err


@pytest.mark.skipif(not (URL and KEY), reason="no W&B server")
def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", URL or "")
    monkeypatch.setenv("WANDB_API_KEY", KEY or "")
    declare(tmp_path, "online", "[wandb]")
    wandb.teardown()  # the client reads its variables once: an earlier test's server would be asked
    try:
        run(1)
        runs, _ = report()
        shutil.rmtree("runs")
        same(report("--from", "wandb")[0], runs)
    finally:
        wandb.teardown()
