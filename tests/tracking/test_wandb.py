"""W&B with its real client: against a server where the environment names one, without a server everywhere else."""

import contextlib
import csv
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import wandb
from omegaconf import OmegaConf
from wandb_server_fixture import (
    ENDLESS,
    TINY,
    CuttableProxy,
    Trainer,
    closed_port,
    hanging_server,
    unauthorized_server,
    wait_for,
)

import trpo_lightning
from trpo_lightning.errors import UserError
from trpo_lightning.settings import from_keywords, to_dict
from trpo_lightning.tracking import wandb_client, wandb_logger
from trpo_lightning.tracking.wandb_client import resolve_mode
from trpo_lightning.tracking.wandb_logger import RunTracker, read_back, start_tracking
from trpo_lightning.tracking.wandb_recordings import Recording
from trpo_lightning.training.metrics import METRICS

URL, KEY = os.environ.get("TRPO_LIGHTNING_TEST_WANDB_URL"), os.environ.get("TRPO_LIGHTNING_TEST_WANDB_KEY")
PROJECT = f"trpo_lightning_tests_{secrets.token_hex(4)}"
NAMED = ("tracking.group=a_group", "tracking.tags=[tag_one,tag_two]", "name=tiny", "seed=3", "rule.delta=0.02")

needs_server = pytest.mark.skipif(
    not (URL and KEY),
    reason="no W&B server: set TRPO_LIGHTNING_TEST_WANDB_URL and TRPO_LIGHTNING_TEST_WANDB_KEY",
)
needs_http = pytest.mark.skipif((URL or "").startswith("https:"), reason="the proxy that is cut speaks no TLS")
pytestmark = pytest.mark.xdist_group("wandb")


# ---- whole runs, some at a time, shared by the tests below


class Scenarios:
    """Runs that end in different ways; each is a method that leaves its directory and returns what was printed."""

    def __init__(self, root: Path, pool: ThreadPoolExecutor) -> None:
        self.root = root
        (root / "home").mkdir()
        self.trainer = Trainer(root / "home", WANDB_BASE_URL=URL or "", WANDB_API_KEY=KEY or "")
        self.nowhere = f"http://127.0.0.1:{closed_port()}"
        names = ["away", "disabled"]
        if URL and KEY:
            names = ["finished", "outage_and_ctrl_c", "interrupted", "offline_killed", *names]
        self.futures: dict[str, Future] = {name: pool.submit(getattr(self, name), root / name) for name in names}

    def __getitem__(self, name: str) -> Any:
        return self.futures[name].result()

    def away(self, run_dir: Path) -> dict[str, Any]:
        sweep = self.root / "sweep.yaml"
        sweep.write_text("rule.delta: {value: 0.03}\nseed: {value: 5}\n", encoding="utf-8")
        began = time.monotonic()
        code, output = self.trainer.train(
            run_dir,
            "tracking.wandb=online",
            "total_env_steps=300",
            WANDB_BASE_URL=self.nowhere,
            WANDB_API_KEY="k" * 40,
            WANDB_SWEEP_ID="a_sweep",
            WANDB_SWEEP_PARAM_PATH=str(sweep),
            WANDB_RUN_ID="id_of_the_agent",
        )
        return {"code": code, "output": output, "seconds": time.monotonic() - began}

    def disabled(self, run_dir: Path) -> dict[str, Any]:
        code, output = self.trainer.train(run_dir, "tracking.wandb=disabled", "total_env_steps=300")
        return {"code": code, "output": output}

    def finished(self, run_dir: Path) -> dict[str, Any]:
        code, output = self.trainer.train(run_dir, "total_env_steps=1000", *NAMED, *self._online())
        evaluation = self.trainer.call("evaluate", str(run_dir), "--episodes", "3")
        return {"code": code, "output": output, "evaluation": evaluation}

    def interrupted(self, run_dir: Path) -> dict[str, Any]:
        code, output = self._until(lambda process: process.terminate(), run_dir, *self._online())
        state = wait_for(lambda: (s := self.run(run_dir).state) != "running" and s)
        rows = len(rows_of(run_dir)) + 7
        self.trainer.until(lambda process: process.kill(), run_dir, rows, "--resume", str(run_dir))
        return {"code": code, "output": output, "state": state, "resumed": self._resume(run_dir)}

    def offline_killed(self, run_dir: Path) -> dict[str, Any]:
        arguments = ("tracking.wandb=offline", f"tracking.project={PROJECT}")
        _, output = self._until(lambda process: process.kill(), run_dir, *arguments)
        resumed = self._resume(run_dir)
        return {"output": output, "resumed": resumed, "sync": self.trainer.sync(run_dir / "wandb")}

    def outage_and_ctrl_c(self, run_dir: Path) -> dict[str, Any]:
        proxy = CuttableProxy(URL or "")

        def cut_for_ten_seconds(process: Any) -> None:
            proxy.cut()
            before = len(rows_of(run_dir))
            time.sleep(10)
            during.append(len(rows_of(run_dir)) - before)
            proxy.mend()
            process.send_signal(signal.SIGINT)

        during: list[int] = []
        trainer = Trainer(self.root / "home", WANDB_BASE_URL=proxy.url, WANDB_API_KEY=KEY or "")
        arguments = (*TINY, *self._online(), ENDLESS, "--run-dir", str(run_dir))
        code, output = trainer.until(cut_for_ten_seconds, run_dir, 5, *arguments)
        proxy.close()
        return {"code": code, "output": output, "iterations_during": during[0], "state": self.run(run_dir).state}

    def _online(self) -> tuple[str, ...]:
        return ("tracking.wandb=online", f"tracking.project={PROJECT}")

    def _until(self, stop: Any, run_dir: Path, *arguments: str) -> tuple[int, str]:
        return self.trainer.until(stop, run_dir, 7, *TINY, *arguments, ENDLESS, "--run-dir", str(run_dir))

    def _resume(self, run_dir: Path) -> tuple[int, str]:
        total = int(rows_of(run_dir)[-1]["env_steps"]) + 500
        return self.trainer.call("train", "--resume", str(run_dir), f"total_env_steps={total}", "--quiet")

    def run(self, run_dir: Path) -> Any:
        """A run as the server has it, now."""
        return api().run(f"{PROJECT}/{status(run_dir)['wandb_run_id']}")

    def history(self, run_dir: Path) -> list[dict[str, Any]]:
        """The run's rows, in order, once they are no fewer than those of the file."""
        expected = len(rows_of(run_dir))

        def complete() -> list[dict[str, Any]] | None:
            rows = list(self.run(run_dir).scan_history())
            return rows if len(rows) >= expected else None

        return wait_for(complete, 20)


def api() -> Any:
    return wandb.Api(overrides={"base_url": URL or ""}, api_key=KEY)


def status(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text(encoding="utf-8"))


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(row: dict[str, Any], times: bool = True) -> dict[str, float]:
    """A row's metrics, from either side."""
    return {
        name: float(row[name])
        for name in METRICS
        if row.get(name) not in (None, "") and name != "update/rejection_reason" and (times or name[:5] != "time/")
    }


def assert_each_iteration_once(history: list[dict[str, Any]], run_dir: Path) -> None:
    """The same iterations in the same order; times are of the process that computed an iteration first."""
    rows = rows_of(run_dir)
    assert [row["iteration"] for row in history] == [int(row["iteration"]) for row in rows]
    assert [numbers(row, times=False) for row in history] == [numbers(row, times=False) for row in rows]


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    with ThreadPoolExecutor(3) as pool:
        yield Scenarios(tmp_path_factory.mktemp("runs"), pool)


@pytest.fixture
def finished(scenarios: Scenarios) -> Path:
    result = scenarios["finished"]
    assert result["code"] == 0, result["output"]
    return scenarios.root / "finished"


@needs_server
def test_config_on_the_server_is_the_whole_resolved_config(scenarios: Scenarios, finished: Path) -> None:
    expected = OmegaConf.to_container(OmegaConf.load(finished / "config.yaml"))
    found = dict(scenarios.run(finished).config)
    found["env"].setdefault("kwargs", {})  # W&B drops empty mappings
    assert found == expected
    assert found["rule"]["delta"] == 0.02


@needs_server
def test_history_has_a_row_for_each_iteration_with_the_numbers_of_the_file(scenarios: Scenarios, finished: Path):
    history = scenarios.history(finished)
    assert [numbers(row) for row in history] == [numbers(row) for row in rows_of(finished)]
    assert len(history) > 5


@needs_server
def test_env_steps_is_the_x_axis_of_every_metric(scenarios: Scenarios, finished: Path) -> None:
    defined = json.loads(scenarios.run(finished).json_config)["_wandb"]["value"]["m"]
    names = [metric.get("1") or metric.get("2") for metric in defined]
    assert names == ["env_steps", "*"]
    assert defined[1]["5"] == 1  # the step metric of *: the first one defined


@needs_server
def test_summary_is_the_last_row(scenarios: Scenarios, finished: Path) -> None:
    summary, last = scenarios.run(finished).summary, numbers(rows_of(finished)[-1])
    assert {name: summary[name] for name in last} == last


@needs_server
def test_run_has_name_group_job_type_and_tags(scenarios: Scenarios, finished: Path) -> None:
    run = scenarios.run(finished)
    assert (run.name, run.group, run.job_type) == ("CartPole-v1 tiny seed 3", "a_group", "train")
    assert {"tag_one", "tag_two"} <= set(run.tags)
    assert run.state == "finished"


@needs_server
@pytest.mark.parametrize("which", ["best", "last"])
def test_policies_are_artifacts_that_load(scenarios: Scenarios, finished: Path, which: str, tmp_path: Path) -> None:
    run = scenarios.run(finished)
    artifact = api().artifact(f"{PROJECT}/policy-{run.id}:{which}")
    assert artifact.type == "policy" and artifact.metadata["env_steps"] == status(finished)["env_steps"]
    policy = trpo_lightning.load(Path(artifact.download(root=str(tmp_path))) / "policy.pt")
    assert policy.iteration == trpo_lightning.load(finished, which).iteration
    assert policy.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)


@needs_server
def test_evaluation_is_a_run_of_its_own_that_uses_the_policy(scenarios: Scenarios, finished: Path) -> None:
    code, output = scenarios["finished"]["evaluation"]
    assert code == 0 and "warning" not in output and "wandb:" not in output
    source = status(finished)["wandb_run_id"]
    (run,) = [run for run in api().runs(PROJECT) if run.config.get("evaluation_of") == source]
    assert (run.job_type, run.group, run.state) == ("evaluation", "a_group", "finished")
    results = json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    assert run.summary["evaluation/return_mean"] == results["deterministic"]["mean"]
    assert run.summary["evaluation/returns"]["nrows"] == 6
    assert [artifact.name.split(":")[0] for artifact in run.used_artifacts()] == [f"policy-{source}"]


@needs_server
def test_sigterm_asks_for_the_run_to_be_queued_again(scenarios: Scenarios) -> None:
    result = scenarios["interrupted"]
    assert result["code"] == 143 and result["state"] in ("preempting", "preempted"), result["output"]


@needs_server
def test_run_that_was_terminated_and_killed_and_resumed_has_each_iteration_once(scenarios: Scenarios) -> None:
    result, run_dir = scenarios["interrupted"], scenarios.root / "interrupted"
    assert result["resumed"] == (0, "")
    starts = json.loads((run_dir / "provenance.json").read_text(encoding="utf-8"))
    assert [start["wandb_run_id"] for start in starts] == 3 * [status(run_dir)["wandb_run_id"]]
    assert_each_iteration_once(scenarios.history(run_dir), run_dir)
    run = scenarios.run(run_dir)
    assert run.state == "finished"
    assert run.config["total_env_steps"] == OmegaConf.load(run_dir / "config.yaml").total_env_steps


@needs_server
def test_offline_run_that_was_killed_and_resumed_is_whole_after_sync(scenarios: Scenarios) -> None:
    result, run_dir = scenarios["offline_killed"], scenarios.root / "offline_killed"
    assert result["output"] == "" and result["resumed"] == (0, "")
    assert len(list((run_dir / "wandb").glob("offline-run-*"))) == 2
    assert_each_iteration_once(scenarios.history(run_dir), run_dir)


@needs_server
@needs_http
def test_server_that_is_away_for_ten_seconds_gets_all_rows(scenarios: Scenarios) -> None:
    result, run_dir = scenarios["outage_and_ctrl_c"], scenarios.root / "outage_and_ctrl_c"
    assert result["iterations_during"] > 20, result["output"]
    assert_each_iteration_once(scenarios.history(run_dir), run_dir)


@needs_server
@needs_http
def test_ctrl_c_ends_the_run_for_good(scenarios: Scenarios) -> None:
    result = scenarios["outage_and_ctrl_c"]
    assert result["code"] == 130, result["output"]
    assert result["state"] in ("failed", "killed", "crashed")


@needs_server
@pytest.mark.parametrize("name", ["finished", "interrupted", "outage_and_ctrl_c"])
def test_online_runs_print_nothing_of_wandb(scenarios: Scenarios, name: str) -> None:
    result = scenarios[name]
    text = result.get("output", "") + "".join(result.get("resumed", ("", ""))[1:])
    assert all(line.startswith("stopped at iteration") for line in text.splitlines()), text


def test_run_without_a_server_is_recorded_offline_with_one_line(scenarios: Scenarios) -> None:
    result, run_dir = scenarios["away"], scenarios.root / "away"
    assert result["code"] == 0, result["output"]
    (folder,) = (run_dir / "wandb").glob("offline-run-*")
    (line,) = result["output"].splitlines()
    assert line.startswith("warning: W&B is out of reach") and line.endswith(f"later: wandb sync {folder}")
    assert result["seconds"] < 80 and len(rows_of(run_dir)) >= 2


def test_values_of_a_sweep_are_what_the_run_uses_and_writes_down(scenarios: Scenarios) -> None:
    assert scenarios["away"]["code"] == 0
    run_dir = scenarios.root / "away"
    config = OmegaConf.load(run_dir / "config.yaml")
    assert (config.rule.delta, config.seed) == (0.03, 5)
    assert config.rule.damping == 0.1
    assert status(run_dir)["wandb_run_id"] == "id_of_the_agent"


def test_disabled_run_prints_nothing_and_leaves_no_records(scenarios: Scenarios) -> None:
    assert scenarios["disabled"] == {"code": 0, "output": ""}
    assert not (scenarios.root / "disabled" / "wandb").exists()
    assert status(scenarios.root / "disabled")["wandb_run_id"] is None


# ---- without a server, in this process


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No W&B variables and no netrc; the client, which reads them once, starts anew."""
    wandb.teardown()  # first, because it ends the client whose address a variable has
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield monkeypatch
    wandb.teardown()


def begin(run_dir: Path, mode: str = "offline", **arguments: Any) -> tuple[RunTracker | None, Any]:
    settings = from_keywords(tracking={"wandb": mode, "project": PROJECT})
    run_dir.mkdir(exist_ok=True)
    return start_tracking(settings, run_dir, name="a name", job_type="train", tags=["a tag"], **arguments)


def test_auto_is_offline_where_no_key_is_configured(clean: pytest.MonkeyPatch) -> None:
    assert resolve_mode("auto") == "offline"


@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_auto_is_online_where_a_variable_has_a_key(clean: pytest.MonkeyPatch, variable: str) -> None:
    clean.setenv(variable, "k" * 40)
    assert resolve_mode("auto") == "online"


@pytest.mark.parametrize(("host", "mode"), [("one.example", "online"), ("other.example", "offline")])
def test_auto_is_online_where_netrc_has_a_key_for_the_server(
    clean: pytest.MonkeyPatch, tmp_path: Path, host: str, mode: str
) -> None:
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {'k' * 40}\n", encoding="utf-8")
    clean.setenv("WANDB_BASE_URL", "https://one.example")
    assert resolve_mode("auto") == mode


@pytest.mark.parametrize(
    ("variable", "mode"),
    [("online", "online"), ("offline", "offline"), ("disabled", "disabled"), ("dryrun", "offline")],
)
def test_auto_is_what_the_variable_says(clean: pytest.MonkeyPatch, variable: str, mode: str) -> None:
    clean.setenv("WANDB_MODE", variable)
    clean.setenv("WANDB_API_KEY", "k" * 40)
    assert resolve_mode("auto") == mode


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_a_chosen_mode_goes_before_the_variable(clean: pytest.MonkeyPatch, mode: str) -> None:
    clean.setenv("WANDB_MODE", "dryrun")
    assert resolve_mode(mode) == mode


def test_config_that_is_read_back_is_the_one_that_was_sent() -> None:
    settings = from_keywords(delta=0.02, env={"id": "Ant-v5", "kwargs": {"healthy_reward": 0.5}}, seed=7)
    assert read_back(to_dict(settings) | {"_wandb": {"m": []}}) == settings


def test_dotted_keys_go_over_nested_groups_in_any_order() -> None:
    config = {"rule.delta": 0.05, "rule": {"delta": 0.01, "damping": 0.2}, "env.kwargs.frame_skip": 2, "seed": 4}
    settings = read_back(config)
    assert (settings.rule.delta, settings.rule.damping, settings.seed) == (0.05, 0.2, 4)
    assert settings.env.kwargs == {"frame_skip": 2}
    assert config["rule"] == {"delta": 0.01, "damping": 0.2}


@pytest.mark.parametrize("name", ["delta", "rule.dleta", "sede", "env.kwarg.x"])
def test_unknown_keys_of_the_config_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown key {name}") as caught:
        read_back({**to_dict(from_keywords()), name: 1})
    assert "\n" not in str(caught.value)


def test_online_without_a_key_is_offline_and_asks_nothing(
    clean: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker, _ = begin(tmp_path / "run", "online")
    assert tracker is not None and tracker.run.offline
    tracker.finish(0)
    output = capfd.readouterr()
    (line,) = (output.out + output.err).splitlines()
    assert line.startswith("warning: W&B is out of reach (no API key is configured); later: wandb sync ")


@contextlib.contextmanager
def nothing_there() -> Iterator[str]:
    yield f"http://127.0.0.1:{closed_port()}"


@pytest.mark.parametrize("server", [nothing_there, unauthorized_server, hanging_server])
def test_server_that_fails_makes_the_run_offline(
    clean: pytest.MonkeyPatch, tmp_path: Path, server: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    clean.setattr(wandb_client, "INIT_TIMEOUT", 2)
    with server() as url:
        clean.setenv("WANDB_BASE_URL", url)
        clean.setenv("WANDB_API_KEY", "k" * 40)
        began = time.monotonic()
        tracker, _ = begin(tmp_path / "run", "online")
        assert time.monotonic() - began < 12
        assert tracker is not None and tracker.run.offline
        tracker.finish(0)
    output = capfd.readouterr()
    (line,) = (output.out + output.err).splitlines()
    assert line.startswith("warning: W&B is out of reach (") and "wandb sync" in line


def test_client_that_cannot_start_leaves_the_run_without_records(
    clean: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clean.setenv("WANDB_CONFIG_PATHS", "x")
    clean.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(OSError("no space left")))
    assert begin(tmp_path / "run")[0] is None
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("warning: no W&B records of this run (")


@pytest.mark.parametrize("mode", ["offline", "auto"])
def test_client_that_was_killed_between_two_runs_is_started_anew(
    clean: pytest.MonkeyPatch, tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        tracker, _ = begin(tmp_path / name, mode)
        assert tracker is not None
        tracker.finish(0)
        if name == "first":
            wandb_client.kill_client()
    assert capfd.readouterr() == ("", "")


def test_address_of_a_client_that_has_ended_is_no_obstacle(
    clean: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clean.setenv("WANDB_SERVICE", f"3-1-unix-{tmp_path}/socket")
    tracker, _ = begin(tmp_path / "run", "auto")
    assert tracker is not None
    tracker.finish(0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:.*sweep.yaml:pytest.PytestUnraisableExceptionWarning")  # the client's open file
def test_unknown_key_of_a_sweep_ends_the_run_with_the_key(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("rule.dleta: {value: 0.03}\n", encoding="utf-8")
    clean.setenv("WANDB_SWEEP_ID", "a_sweep")
    clean.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "sweep.yaml"))
    with pytest.raises(UserError, match=r"unknown key rule\.dleta.*rule\.delta"):
        begin(tmp_path / "run")
    assert wandb.run is None


def test_a_row_costs_less_than_half_a_millisecond(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tracker, _ = begin(tmp_path / "run")
    assert tracker is not None
    seconds = []
    for iteration in range(1, 201):
        row = {name: float(iteration) for name in METRICS} | {"iteration": iteration}
        began = time.thread_time()
        tracker.log_metrics(row)
        seconds.append(time.thread_time() - began)
    tracker.finish(0)
    assert median(seconds) < 0.0005


class FakeRun:
    """Keeps what it is given."""

    id, dir = "an_id", "nowhere"

    def __init__(self, fault: Exception | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.events: list[Any] = []
        self.fault = fault

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.events.append((name, step_metric))

    def log(self, row: dict[str, Any]) -> None:
        if self.fault:
            raise self.fault
        self.rows.append(row)

    def mark_preempting(self) -> None:
        self.events.append("preempting")

    def finish(self, exit_code: int) -> None:
        self.events.append(exit_code)
        if self.fault:
            raise self.fault


def test_rows_leave_out_what_has_no_value_and_what_was_sent() -> None:
    run = FakeRun()
    tracker = RunTracker(run, Path("nowhere"), sent_iterations=2)
    for iteration in (1, 2, 3):
        tracker.log_metrics({"iteration": iteration, "a": None, "b": float("nan"), "c": 0, "d": "text"})
    tracker.finish(0)
    assert run.rows == [{"iteration": 3, "c": 0, "d": "text"}]


@pytest.mark.parametrize("preempting", [True, False])
def test_preempting_is_said_before_the_end(preempting: bool) -> None:
    run = FakeRun()
    RunTracker(run, Path("nowhere")).finish(143, preempting=preempting)
    assert run.events[2:] == (["preempting", 143] if preempting else [143])


def test_client_that_breaks_is_told_once_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tracker = RunTracker(FakeRun(ValueError("broken\npipe")), Path("a_run"))
    for iteration in (1, 2, 3):
        tracker.log_metrics({"iteration": iteration})
    tracker.finish(0)
    first, second = capsys.readouterr().out.splitlines()
    assert "does not take metrics any more (broken)" in first
    assert second.endswith("later: python -m trpo_lightning train --resume a_run")


@needs_server
@needs_http
def test_server_that_is_gone_at_the_end_gets_the_rest_from_a_resumed_run(
    clean: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy = CuttableProxy(URL or "")
    for module in (wandb_logger, wandb_client):
        clean.setattr(module, "FINISH_TIMEOUT", 2)
    clean.setenv("WANDB_BASE_URL", proxy.url)
    clean.setenv("WANDB_API_KEY", KEY or "")
    clean.setenv("WANDB_RUN_ID", run_id := secrets.token_hex(4))
    tracker, _ = begin(tmp_path / "run", "online")
    assert tracker is not None and not tracker.run.offline
    proxy.cut()
    for iteration in (1, 2, 3):
        tracker.log_metrics({"iteration": iteration, "env_steps": 10 * iteration})
    tracker.finish(0)
    output = capfd.readouterr()
    (line,) = (output.out + output.err).splitlines()
    assert line.endswith(f"later: python -m trpo_lightning train --resume {tmp_path / 'run'}")
    wandb.teardown()
    proxy.mend()
    tracker, _ = begin(tmp_path / "run", "online", rows=row_texts(1, 2, 3), keep_iterations=2, resume=True)
    assert tracker is not None
    tracker.log_metrics({"iteration": 3, "env_steps": 30})
    tracker.finish(0)
    proxy.close()
    run = api().run(f"{PROJECT}/{run_id}")
    assert [row["iteration"] for row in run.scan_history()] == [1, 2, 3]


def row_texts(*iterations: int) -> list[dict[str, str]]:
    return [
        {"iteration": str(i), "env_steps": str(10 * i), "policy/entropy": "0.5", "value/loss": ""} for i in iterations
    ]


def record(run_dir: Path, rows: list[dict[str, str]], keep: int, live: range, run_id: str = "same") -> list[int]:
    """One process of a run: what it hands to W&B, of the file's rows and of the iterations that it computes."""
    tracker, _ = begin(run_dir, rows=rows, keep_iterations=keep, run_id=run_id, resume=bool(rows))
    assert tracker is not None
    handed, log = [row for row in rows if int(row["iteration"]) <= keep], tracker.run.log
    sent: list[int] = [int(row["iteration"]) for row in handed if int(row["iteration"]) > tracker._sent]
    tracker.run.log = lambda row: (sent.append(row["iteration"]), log(row))
    for iteration in live:
        tracker.log_metrics({"iteration": iteration, "env_steps": 10 * iteration})
    tracker.finish(1)
    return sent


def waiting(run_dir: Path) -> list[int | None]:
    folders = sorted((run_dir / "wandb").glob("offline-run-*"))
    return [Recording(folder).iterations_before for folder in folders]


def test_offline_recording_of_a_resumed_run_repeats_one_that_was_not_sent(
    clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    assert record(run_dir, [], 0, range(1, 6)) == [1, 2, 3, 4, 5]
    assert record(run_dir, row_texts(1, 2, 3, 4, 5), 4, range(5, 8)) == [1, 2, 3, 4, 5, 6, 7]
    assert waiting(run_dir) == [None, 0]


def test_offline_recording_of_a_resumed_run_goes_on_after_one_that_was_sent(
    clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    record(run_dir, [], 0, range(1, 6))
    (file,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    file.with_suffix(".wandb.synced").touch()
    assert record(run_dir, row_texts(1, 2, 3, 4, 5), 4, range(5, 8)) == [6, 7]
    assert record(run_dir, row_texts(*range(1, 8)), 6, range(7, 10)) == [6, 7, 8, 9]
    assert waiting(run_dir) == [None, None, 5]
