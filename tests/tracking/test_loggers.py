"""TensorBoard, MLflow, Trackio and a logger of one's own, beside each other in one run that is killed and resumed."""

import contextlib
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trpo_lightning
from trpo_lightning.settings import from_record
from trpo_lightning.tracking.parameters import parameters

HERE = Path(__file__).parent
TINY = """env.id=own_loggers:slow_cart_pole env.backend=gymnasium env.num_envs=2 rollout.steps_per_iteration=64
    env.max_episode_steps=50 policy.hidden_sizes=[4] value.hidden_sizes=[4] value.epochs=1 checkpoint.every=20
    evaluation.every=5 evaluation.episodes=1 threads=1""".split()
ALL = "tracking.loggers=[tensorboard,mlflow,trackio,own_loggers:table]"
"""With barriers so far apart that trackers, a second or two behind, have rows after them."""
NAMED = ["tracking.group=a_group", "tracking.tags=[one,two]", "name=tiny", "seed=3", "rule.delta=0.02"]
TITLE = "own_loggers:slow_cart_pole tiny seed 3"

pytestmark = pytest.mark.xdist_group("loggers")

Points = dict[str, list[tuple[int, float]]]
"""What a tracker has: for each metric its steps and values, in order, with all that is there twice."""


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))}
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TRACKIO_DIR": str(folder / "trackio")}


def call(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "trpo_lightning", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logged_in_sqlite(folder: Path) -> int:
    """How many iterations MLflow's file has."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return database.execute("select count(*) from metrics where key = 'iteration'").fetchone()[0]
    return 0


def noted(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        return json.loads((folder / "run" / "trackers.json").read_text())
    return {}


class Tracked:
    """A run that was killed after its trackers had rows beyond the last barrier, then resumed to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_dir = folder, folder / "run"
        start = [*TINY, *NAMED, ALL, "total_env_steps=100000000", "--run-dir", "run", "--quiet"]
        command = [sys.executable, "-m", "trpo_lightning", "train", *start]
        with open(folder / "out", "w") as out:
            process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=out, stderr=out)
            end = time.monotonic() + 120
            while not self._is_beyond_a_barrier() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, (folder / "out").read_text()
        self.before = {"mlflow": logged_in_sqlite(folder), "tensorboard": noted(folder)["tensorboard"]["iterations"]}
        last = max(int(path.stem.split("_")[1]) for path in (self.run_dir / "checkpoints").glob("barrier_*.ckpt"))
        self.barrier, self.killed_at = last, len(rows_of(self.run_dir))
        self.code, self.output = call(
            folder, "train", "--resume", "run", f"total_iterations={self.killed_at + 4}", "--quiet"
        )

    def _is_beyond_a_barrier(self) -> bool:
        """Whether each tracker has rows after the newest barrier, so that resuming computes them again."""
        barriers = [path.stem.split("_")[1] for path in (self.run_dir / "checkpoints").glob("barrier_*.ckpt")]
        notes = noted(self.folder)
        least = min(
            notes.get("tensorboard", {}).get("iterations", 0),
            notes.get("own_loggers:table", {}).get("iterations", 0),
            logged_in_sqlite(self.folder),
        )
        return bool(barriers) and least > int(max(barriers)) and "trackio" in notes

    def config(self) -> Any:
        return from_record(yaml.safe_load((self.run_dir / "config.yaml").read_text()))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    run = Tracked(tmp_path_factory.mktemp("tracked"))
    assert run.code == 0, run.output
    return run


def tensorboard_points(tracked: Tracked) -> Points:
    events = EventAccumulator(str(tracked.run_dir / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def mlflow_points(tracked: Tracked) -> Points:
    return sql_points(tracked.folder / "mlflow.db", "select key, step, value from metrics order by step")


def sql_points(file: Path, query: str) -> Points:
    found: Points = defaultdict(list)
    with contextlib.closing(sqlite3.connect(file)) as database:
        for key, step, value in database.execute(query):
            found[key].append((step, value))
    return found


def trackio_points(tracked: Tracked) -> Points:
    found: Points = defaultdict(list)
    with contextlib.closing(sqlite3.connect(tracked.folder / "trackio" / "trpo_lightning.db")) as database:
        for step, text in database.execute("select step, metrics from metrics order by step"):
            for name, value in json.loads(text).items():
                found[name].append((step, value))
    return found


def own_points(tracked: Tracked) -> Points:
    found: Points = defaultdict(list)
    for line in (tracked.run_dir / "own_table.jsonl").read_text().splitlines():
        step, row = json.loads(line)
        for name, value in row.items():
            if not isinstance(value, str):
                found[name].append((step, value))
    return found


TRACKERS = {
    "tensorboard": tensorboard_points,
    "mlflow": mlflow_points,
    "trackio": trackio_points,
    "own": own_points,
}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_each_iteration_is_there_once_with_its_numbers_after_a_kill(tracked: Tracked, tracker: str) -> None:
    rows, points = rows_of(tracked.run_dir), TRACKERS[tracker](tracked)
    assert len(rows) == tracked.killed_at + 4 and min(tracked.before.values()) > tracked.barrier > 0
    for name in rows[0]:
        if name.startswith("time/") or name == "update/rejection_reason":
            continue  # the seconds are those of the process that was the first to log an iteration
        expected = [(int(row["env_steps"]), float(row[name])) for row in rows if row[name]]
        found = points.get(name, [])
        assert [step for step, _ in found] == [step for step, _ in expected], name
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6), name
    assert len(points["time/collect"]) == len(rows)


def test_no_tracker_says_anything(tracked: Tracked) -> None:
    assert tracked.output == "" and (tracked.folder / "out").read_text() == ""


def test_mlflow_has_settings_tags_policies_and_status(tracked: Tracked) -> None:
    with contextlib.closing(sqlite3.connect(tracked.folder / "mlflow.db")) as database:
        ((name, status, uri),) = database.execute("select name, status, artifact_uri from runs")
        params = dict(database.execute("select key, value from params"))
        tags = dict(database.execute("select key, value from tags"))
        experiments = [row[0] for row in database.execute("select name from experiments")]
    assert (name, status) == (TITLE, "FINISHED") and "trpo_lightning" in experiments
    assert tags["group"] == "a_group" and tags["tags"].endswith("one, two")
    expected = parameters(tracked.config())
    budget = expected.pop("total_iterations")  # which changed when it was resumed: a parameter stays as it was
    assert {key: params[key] for key in expected} == expected and params["total_iterations"] == "null" != budget
    assert params["rule.delta"] == "0.02"
    artifacts = Path(uri)
    assert yaml.safe_load((artifacts / "config.yaml").read_text())["total_iterations"] == tracked.killed_at + 4
    for which in ("best", "last"):
        policy = trpo_lightning.load(artifacts / "policies" / f"{which}.pt")
        assert policy.iteration == trpo_lightning.load(tracked.run_dir, which).iteration


def test_tensorboard_has_settings_as_text_and_hyperparameters(tracked: Tracked) -> None:
    events = EventAccumulator(str(tracked.run_dir / "tensorboard")).Reload()
    assert events.Tensors("run/text_summary")[-1].tensor_proto.string_val[0].decode().startswith(TITLE)
    text = events.Tensors("config/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert from_record(yaml.safe_load(text.strip("`").removeprefix("yaml"))) == tracked.config()
    assert "hparams" in events.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name


def test_trackio_has_settings_group_and_policies(tracked: Tracked) -> None:
    with contextlib.closing(sqlite3.connect(tracked.folder / "trackio" / "trpo_lightning.db")) as database:
        ((name, text),) = database.execute("select run_name, config from configs")
        artifacts = database.execute("select name, type from artifacts").fetchall()
    config = json.loads(text)
    assert name == TITLE and config["_Group"] == "a_group" and config["tags"][-2:] == ["one", "two"]
    assert config["rule"]["delta"] == 0.02 and config["tracking"]["loggers"][0] == "tensorboard"
    assert artifacts == [(f"policy-{noted(tracked.folder)['trackio']['run_id']}", "policy")]


def test_an_own_logger_is_told_what_lightning_tells_loggers(tracked: Tracked) -> None:
    told = (tracked.run_dir / "own_told.txt").read_text().split()
    assert told[0] == "rule.delta=0.02" and told[-1] == "success" and "save" in told
    rows = [json.loads(line)[1] for line in (tracked.run_dir / "own_table.jsonl").read_text().splitlines()]
    assert not any(name for row in rows for name, value in row.items() if value is None)
