"""Sweeps with the real `wandb agent`, against the server that the environment names."""

import contextlib
import csv
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from omegaconf import OmegaConf
from tracking.wandb_server_fixture import CuttableProxy, Trainer, count_lines, wait_for

from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.experiment.runner import results_so_far
from trpo_lightning.runs.config import recorded_settings
from trpo_lightning.settings import different_keys

URL, KEY = os.environ.get("TRPO_LIGHTNING_TEST_WANDB_URL"), os.environ.get("TRPO_LIGHTNING_TEST_WANDB_KEY")
PROJECT = f"trpo_lightning_tests_{secrets.token_hex(4)}"
CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS = 150
"""Until an agent is given up: a run takes some seconds to import, and an agent looks after it every 5 seconds."""

pytestmark = [
    pytest.mark.xdist_group("wandb"),
    pytest.mark.skipif(
        not (URL and KEY),
        reason="no W&B server: set TRPO_LIGHTNING_TEST_WANDB_URL and TRPO_LIGHTNING_TEST_WANDB_KEY",
    ),
]

TINY = {
    "env.id": "CartPole-v1",
    "env.backend": "gymnasium",
    "env.num_envs": 4,
    "env.max_episode_steps": 20,
    "rollout.steps_per_iteration": 64,
    "value.epochs": 1,
    "evaluation.every": 0,
    "checkpoint.every": 2,
    "tracking.wandb": "online",
    "tracking.project": PROJECT,
}
EXPERIMENTS = {
    "grid": {"steps": 500, "axes": {"rule.delta": [0.01, 0.02]}, "seeds": [3]},
    "lives": {
        "steps": 6000,
        "variants": {
            "broken": {"env.id": "odd_environments:breaking", "total_env_steps": 500},
            "killed": {"rule.delta": 0.015},
            "preempted": {"policy.hidden_sizes": [8, 8], "rule.kl_slack": None},
        },
    },
    # the larger reward is the better run in every iteration: Hyperband stops the other one
    "search": {
        "steps": 30_000,
        "environments": ["odd_environments:paying"],
        "search": {
            "method": "random",
            "runs": 2,
            "ranges": {"env.kwargs.reward": {"min": 0.01, "max": 100.0, "distribution": "log_uniform_values"}},
            "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
        },
    },
}


class Sweeps:
    """Three sweeps at a time, each a method that returns what the tests below look at."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.folder, self.runs = folder, folder / "runs"
        (folder / "experiments").mkdir()
        (folder / "home").mkdir()
        for name, parts in EXPERIMENTS.items():
            overrides = {**TINY, "total_env_steps": parts["steps"]}
            content = {"title": name, "hypothesis": "None.", "minutes": 1, "overrides": overrides, **parts}
            content.pop("steps")
            (folder / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        path = [str(CHECKOUT), str(CHECKOUT / "tests")]
        self.environment = {
            **Trainer(folder / "home", WANDB_BASE_URL=URL or "", WANDB_API_KEY=KEY or "").environment,
            "PYTHONPATH": os.pathsep.join(path),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
        }
        self.started: list[subprocess.Popen[str]] = []
        self.futures: dict[str, Future] = {name: pool.submit(getattr(self, name)) for name in EXPERIMENTS}

    def __getitem__(self, name: str) -> Any:
        return self.futures[name].result()

    def start(self, *command: str, **variables: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def call(self, *arguments: str) -> tuple[int, str]:
        """A command of the project: its exit code and what it printed."""
        process = self.start(sys.executable, "-m", "trpo_lightning", *arguments)
        output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output

    def register(self, name: str) -> list[str]:
        """The agent's command, as `sweep` prints it."""
        code, output = self.call("sweep", name)
        assert code == 0, output
        return output.splitlines()[-1].split()

    def status(self, run_dir: Path) -> dict[str, Any]:
        return json.loads((run_dir / "status.json").read_text(encoding="utf-8"))

    def seen(self, *run_dirs: Path, rows: int = 1) -> None:
        """Wait until each of the runs has so many iterations."""
        wait_for(lambda: all(count_lines(run_dir / "metrics.csv") > rows for run_dir in run_dirs), SECONDS)

    def grid(self) -> dict[str, Any]:
        """Two agents at once, and no server for ten seconds while the first runs of both are at work."""
        command = self.register("grid")
        proxy = CuttableProxy(URL or "") if (URL or "").startswith("http:") else None
        own = {"WANDB_BASE_URL": proxy.url} if proxy else {}
        agents = [self.start(*command, **own) for _ in range(2)]
        if proxy:
            wait_for(lambda: len(list((self.runs / "grid").rglob("metrics.csv"))) >= 2, SECONDS)
            proxy.cut()
            time.sleep(10)
            proxy.mend()
        outputs = [agent.communicate(timeout=SECONDS)[0] for agent in agents]
        if proxy:
            proxy.close()
        return {"sweep": command[-1], "codes": [agent.returncode for agent in agents], "outputs": outputs}

    def lives(self) -> dict[str, Any]:
        """A run that breaks, one that is killed with its agent, one that is preempted; then the sweep goes on."""
        command = self.register("lives")
        cartpole = self.runs / "lives" / "full" / "CartPole-v1"
        first = self.start(*command)
        self.seen(cartpole / "killed" / "seed_0", rows=5)
        first.kill()
        os.kill(self.status(cartpole / "killed" / "seed_0")["pid"], signal.SIGKILL)
        second = self.start(*command)
        self.seen(cartpole / "preempted" / "seed_0", rows=5)
        second.terminate()
        outputs = [first.communicate(timeout=SECONDS)[0], second.communicate(timeout=SECONDS)[0]]
        state = api().run(f"{PROJECT}/{self.status(cartpole / 'preempted' / 'seed_0')['wandb_run_id']}").state
        third = self.start(*command, "--count", "1")
        outputs.append(third.communicate(timeout=SECONDS)[0])
        local = self.call("experiment", "lives", "env.id=CartPole-v1")
        return {"sweep": command[-1], "outputs": outputs, "state": state, "local": local}

    def search(self) -> dict[str, Any]:
        """Two runs at a time, of which Hyperband stops the worse one."""
        command = self.register("search")
        agents = [self.start(*command) for _ in range(2)]
        outputs = [agent.communicate(timeout=SECONDS)[0] for agent in agents]
        return {"sweep": command[-1], "codes": [agent.returncode for agent in agents], "outputs": outputs}

    def run_dirs(self, name: str) -> list[Path]:
        return sorted(file.parent for file in (self.runs / name).rglob("metrics.csv"))

    def run(self, run_dir: Path) -> Any:
        """A run as the server has it."""
        return api().run(f"{PROJECT}/{self.status(run_dir)['wandb_run_id']}")

    def assert_each_iteration_once(self, run_dir: Path) -> None:
        with open(run_dir / "metrics.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        history = list(self.run(run_dir).scan_history())
        assert [row["iteration"] for row in history] == list(range(1, len(rows) + 1))
        for name in ("iteration", "env_steps", "policy/entropy"):
            assert [float(row[name]) for row in history] == [float(row[name]) for row in rows]

    def close(self) -> None:
        """Leave no process behind."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
        for file in self.runs.rglob("status.json"):
            with contextlib.suppress(ProcessLookupError):
                status = json.loads(file.read_text(encoding="utf-8"))
                if status["state"] == "running":
                    os.kill(status["pid"], signal.SIGKILL)


def api() -> Any:
    return wandb.Api(overrides={"base_url": URL or ""}, api_key=KEY)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweeps]:
    with ThreadPoolExecutor(3) as pool:
        found = Sweeps(tmp_path_factory.mktemp("sweeps"), pool)
        try:
            yield found
        finally:
            found.close()


# ---- a grid by two agents


def test_two_agents_do_each_run_of_a_grid_once(sweeps: Sweeps) -> None:
    result = sweeps["grid"]
    assert result["codes"] == [0, 0], result["outputs"]
    for output in result["outputs"]:
        assert output.count("Agent received command: run") == output.count("finished: ") == 1, output
    for run_dir in sweeps.run_dirs("grid"):
        assert len(json.loads((run_dir / "provenance.json").read_text(encoding="utf-8"))) == 1


def test_runs_on_the_server_are_those_of_the_sweep(sweeps: Sweeps) -> None:
    sweep = api().sweep(sweeps["grid"]["sweep"])
    ids = {sweeps.status(run_dir)["wandb_run_id"] for run_dir in sweeps.run_dirs("grid")}
    assert {run.id for run in sweep.runs} == ids and len(ids) == 2
    assert {run.state for run in sweep.runs} == {"finished"}
    for run in sweep.runs:
        assert (run.group, run.job_type) == ("grid", "train")
    assert sorted(run.name for run in sweep.runs) == [
        "CartPole-v1 delta=0.01 seed 3",
        "CartPole-v1 delta=0.02 seed 3",
    ]


def test_config_on_the_server_is_that_of_the_run_directory(sweeps: Sweeps) -> None:
    assert sweeps["grid"]["codes"] == [0, 0]
    for run_dir in sweeps.run_dirs("grid"):
        expected: Any = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
        found = dict(sweeps.run(run_dir).config)
        dotted = {name: found.pop(name) for name in list(found) if "." in name}
        found["env"].setdefault("kwargs", {})  # W&B drops empty mappings
        assert found == expected
        assert dotted == {"rule.delta": expected["rule"]["delta"], "env.id": "CartPole-v1"}
        assert run_dir.parts[-2:] == (f"delta={expected['rule']['delta']}", f"seed_{expected['seed']}")


def test_local_experiment_finds_the_runs_of_the_agents_finished(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweeps["grid"]["codes"] == [0, 0]
    monkeypatch.chdir(sweeps.folder)
    cells = load_experiment("grid").cells()
    results = results_so_far(cells, sweeps.runs)
    assert [result.state for result in results] == ["finished", "finished"]
    assert sorted(result.run_dir for result in results) == sweeps.run_dirs("grid")
    for result in results:
        differing = different_keys(recorded_settings(result.run_dir), result.cell.settings)
        assert differing in ([], ["tracking.entity"])  # which an agent tells its runs, by WANDB_ENTITY


def test_server_that_was_away_for_ten_seconds_has_all_rows(sweeps: Sweeps) -> None:
    assert sweeps["grid"]["codes"] == [0, 0]
    for run_dir in sweeps.run_dirs("grid"):
        assert not list((run_dir / "wandb").glob("offline-*"))
        sweeps.assert_each_iteration_once(run_dir)


# ---- variants whose runs break, are killed and are preempted


def test_run_that_breaks_is_failed_on_the_server_and_the_sweep_goes_on(sweeps: Sweeps) -> None:
    result = sweeps["lives"]
    runs = api().sweep(result["sweep"]).runs
    (run,) = [run for run in runs if run.config.get("cell", "").endswith("broken/seed_0")]
    assert run.state == "failed"
    assert "the simulator [broke]" in result["outputs"][0]
    assert result["outputs"][0].count("Agent received command: run") == 2


def test_runs_of_variants_have_the_settings_of_the_file(sweeps: Sweeps) -> None:
    result = sweeps["lives"]
    names = {run.config["name"]: run for run in api().sweep(result["sweep"]).runs if "name" in run.config}
    assert set(names) == {"broken", "killed", "preempted"}
    assert names["killed"].config["rule"]["delta"] == 0.015
    assert names["preempted"].config["policy"]["hidden_sizes"] == [8, 8]
    assert names["preempted"].config["rule"].get("kl_slack") is None


def test_preempted_run_comes_back_under_its_id_and_goes_on_from_its_barrier(sweeps: Sweeps) -> None:
    result = sweeps["lives"]
    assert result["state"] in ("preempting", "preempted"), result["outputs"][1]
    run_dir = sweeps.runs / "lives" / "full" / "CartPole-v1" / "preempted" / "seed_0"
    starts = json.loads((run_dir / "provenance.json").read_text(encoding="utf-8"))
    assert len(starts) == 2, result["outputs"]
    assert starts[1]["resumed_from_iteration"] >= 4
    assert starts[0]["wandb_run_id"] == starts[1]["wandb_run_id"]
    assert "Agent received command: resume" in result["outputs"][2]
    assert sweeps.run(run_dir).state == "finished"
    sweeps.assert_each_iteration_once(run_dir)


def test_run_killed_with_its_agent_is_finished_locally_under_its_id(sweeps: Sweeps) -> None:
    result = sweeps["lives"]
    assert result["local"][0] == 0, result["local"][1]
    run_dir = sweeps.runs / "lives" / "full" / "CartPole-v1" / "killed" / "seed_0"
    starts = json.loads((run_dir / "provenance.json").read_text(encoding="utf-8"))
    assert len(starts) == 2 and starts[0]["wandb_run_id"] == starts[1]["wandb_run_id"]
    run = sweeps.run(run_dir)
    assert run.state == "finished" and run.sweep is not None and result["sweep"].endswith(run.sweep.id)
    sweeps.assert_each_iteration_once(run_dir)


# ---- random search with Hyperband


def test_hyperband_stops_a_run_for_good(sweeps: Sweeps) -> None:
    result = sweeps["search"]
    text = "".join(result["outputs"])
    assert result["codes"] == [0, 0], text
    assert "Agent received command: stop" in text and "command: resume" not in text, text
    states = Counter(sweeps.status(run_dir)["state"] for run_dir in sweeps.run_dirs("search"))
    assert states == {"finished": 1, "interrupted": 1}
    found = sorted(run.state for run in api().sweep(result["sweep"]).runs)
    assert found[0] == "finished" and found[1] in ("killed", "failed")
    ended = {run.state: run.config["env.kwargs.reward"] for run in api().sweep(result["sweep"]).runs}
    assert ended.pop("finished") > max(ended.values())
    for run_dir in sweeps.run_dirs("search"):
        assert len(json.loads((run_dir / "provenance.json").read_text(encoding="utf-8"))) == 1
        sweeps.assert_each_iteration_once(run_dir)


def test_draws_of_the_server_are_what_the_runs_use(sweeps: Sweeps) -> None:
    for run in api().sweep(sweeps["search"]["sweep"]).runs:
        reward = run.config["env.kwargs.reward"]
        assert run.config["env"]["kwargs"]["reward"] == reward and 0.01 <= reward <= 100.0
        assert float(run.config["name"].removeprefix("reward=")) == reward
        assert run.group == "search"
