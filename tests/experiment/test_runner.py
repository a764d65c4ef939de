"""What the runner starts, leaves, resumes and reports; most children are stand-ins, the last tests' are real runs."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from trpo_lightning.errors import UserError
from trpo_lightning.experiment import runner
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.experiment.launchers import local, process
from trpo_lightning.experiment.progress import ProgressView
from trpo_lightning.experiment.runner import results_so_far, run_cells
from trpo_lightning.experiment.states import run_state
from trpo_lightning.runs.config import recorded_settings, write_config

TESTS = Path(__file__).parents[1]
TINY = """
title: A tiny experiment
hypothesis: It runs.
minutes: 0.1
overrides:
  env: {id: CartPole-v1, num_envs: 4, max_episode_steps: 20}
  rollout.steps_per_iteration: 64
  total_env_steps: 120
  checkpoint.every: 2
  evaluation.every: 0
  value.epochs: 1
  tracking.wandb: disabled
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def declare(folder, text="", arguments=()):
    (folder / "experiments" / "tiny.yaml").write_text(TINY + text)
    return load_experiment("tiny").cells(list(arguments))


def states(results):
    return [result.state for result in results]


@contextmanager
def locked(run_dir):
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Children that only leave what a run leaves, in no time.

STAND_IN = """
import json, os, pathlib, shutil, signal, sys, time
run_dir, config, code, state, says = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
if state:
    (run_dir / "status.json").write_text(json.dumps({"state": state, "pid": os.getpid()}))
    config and shutil.copy(config, run_dir / "config.yaml")
says and print(says)
sys.stdout.flush()
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""


@pytest.fixture
def stand_ins(monkeypatch):
    """The commands that were made; what each child does, (exit code, state, what it says), by seed."""
    made, deeds = [], {}
    real = process.train_command

    def command(run, config):
        found = real(run, config)
        made.append(found[found.index("train") + 1 :])
        config = found[found.index("--config") + 1] if "--config" in found else ""
        code, state, says = deeds.get(run.settings.seed, (0, "finished", ""))
        return [sys.executable, "-S", "-c", STAND_IN, str(run.run_dir), config, str(code), state, says]

    monkeypatch.setattr(process, "train_command", command)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)
    return made, deeds


def record(cell, root, state):
    run_dir = root / cell.directory
    run_dir.mkdir(parents=True)
    write_config(cell.settings, run_dir / "config.yaml")
    (run_dir / "status.json").write_text(json.dumps({"state": state}))
    return run_dir


def test_missing_runs_are_started_in_order_and_the_second_call_does_nothing(folder, stand_ins, capsys):
    cells = declare(folder, "seeds: [0, 1]\naxes: {rule.delta: [0.25, 0.5]}")
    assert states(run_cells(cells, folder / "runs", jobs=1)) == ["finished"] * 4
    for (option, _, *rest), cell in zip(stand_ins[0], cells, strict=True):
        assert option == "--config" and rest == ["--run-dir", str(folder / "runs" / cell.directory), "--quiet"]
    assert recorded_settings(folder / "runs" / cells[2].directory) == cells[2].settings
    stand_ins[0].clear()
    capsys.readouterr()
    assert states(run_cells(cells, folder / "runs", jobs=1)) == ["finished"] * 4
    assert stand_ins[0] == []
    assert capsys.readouterr().out.count("finished before") == 4


def test_interrupted_failed_and_killed_runs_are_resumed(folder, stand_ins):
    cells = declare(folder, "seeds: [0, 1, 2]")
    for cell, state in zip(cells, ("interrupted", "failed", "running"), strict=True):
        record(cell, folder, state)
    assert states(run_cells(cells, folder, jobs=1)) == ["finished"] * 3
    assert stand_ins[0] == [["--resume", str(folder / cell.directory), "--quiet"] for cell in cells]


def test_a_run_that_another_runner_began_and_left_meanwhile_is_gone_on_with(folder, stand_ins, monkeypatch):
    (cell,) = declare(folder)
    made, deeds = stand_ins
    deeds[0] = (2, "", "error: already holds a run")

    real = ProgressView.started

    def started(view, run_dir):
        if deeds:
            write_config(cell.settings, run_dir / "config.yaml")
            (run_dir / "status.json").write_text(json.dumps({"state": "running", "pid": 1}))
            deeds.clear()
        real(view, run_dir)

    monkeypatch.setattr(ProgressView, "started", started)
    assert states(run_cells([cell], folder, jobs=1)) == ["finished"]
    assert [command[0] for command in made] == ["--config", "--resume"]


def test_a_run_that_failed_before_its_settings_were_recorded_is_done_anew(folder, stand_ins, capsys):
    (cell,) = declare(folder)
    stand_ins[1][0] = (2, "failed", "error: env.id=None-v0 is not registered")
    real_copy = cell.directory / "config.yaml"
    assert states(run_cells([cell], folder)) == ["failed"]
    (folder / real_copy).unlink()
    assert "failed: error: env.id=None-v0 is not registered" in capsys.readouterr().out
    stand_ins[1].clear()
    assert states(run_cells([cell], folder)) == ["finished"]
    assert [arguments[0] for arguments in stand_ins[0]] == ["--config", "--config"]


def test_more_steps_and_other_tracking_reach_a_continued_run_and_fewer_steps_start_nothing(folder, stand_ins):
    (cell,) = declare(folder)
    run_dir = record(cell, folder, "finished")
    assert states(run_cells(declare(folder, "", ["total_env_steps=5"]), folder)) == ["finished"]
    assert stand_ins[0] == []
    run_cells(declare(folder, "", ["total_env_steps=300", "tracking.wandb=offline", "tracking.tags=[a]"]), folder)
    changed = ['tracking.wandb="offline"', 'tracking.tags=["a"]', "total_env_steps=300"]
    assert stand_ins[0] == [["--resume", str(run_dir), *changed, "--quiet"]]


def test_more_iterations_reach_a_continued_run_and_fewer_start_nothing(folder, stand_ins):
    (cell,) = declare(folder, "", ["total_iterations=5"])
    run_dir = record(cell, folder, "finished")
    for fewer in (["total_iterations=4"], ["total_iterations=5", "total_env_steps=5"]):
        assert states(run_cells(declare(folder, "", fewer), folder)) == ["finished"]
    assert stand_ins[0] == []
    for more in ("6", "null"):
        run_cells(declare(folder, "", [f"total_iterations={more}"]), folder)
        assert stand_ins[0].pop() == ["--resume", str(run_dir), f"total_iterations={more}", "--quiet"]


def test_other_settings_are_refused_before_anything_starts_unless_forced(folder, stand_ins):
    cells = declare(folder, "seeds: [0, 1]")
    changed = replace(cells[1].settings, gamma=0.5, rule=replace(cells[1].settings.rule, delta=0.5))
    run_dir = record(replace(cells[1], settings=changed), folder, "finished")
    with pytest.raises(UserError, match=r"seed_1 was run with other settings \(rule.delta, gamma\): --force"):
        run_cells(cells, folder)
    assert stand_ins[0] == []
    with locked(run_dir), pytest.raises(UserError, match="another process is working on this run"):
        run_cells(cells, folder, force=True)
    assert states(run_cells(cells, folder, force=True)) == ["finished"] * 2
    assert recorded_settings(run_dir) == cells[1].settings
    (moved,) = run_dir.parent.glob("seed_1.replaced-*")
    assert recorded_settings(moved) == changed


def test_failures_do_not_stop_the_rest_and_are_told_with_the_last_line_of_the_log(folder, stand_ins, capsys):
    deeds = {
        0: (1, "failed", "many\nlines\nValueError: [no] such [/thing]"),
        1: (75, "", "error: busy"),
        2: (-signal.SIGKILL, "running", ""),
        3: (143, "interrupted", ""),
    }
    stand_ins[1].update(deeds)
    cells = declare(folder, "seeds: [0, 1, 2, 3, 4]")
    found = run_cells(cells, folder, jobs=3)
    assert states(found) == ["failed", "elsewhere", "failed", "interrupted", "finished"]
    told = capsys.readouterr().out
    assert f"failed: ValueError: [no] such [/thing] (see {found[0].run_dir}/log.txt)" in told
    assert "killed by SIGKILL; the last it said: it left no message" in told
    assert "another process is working on it" in told and "the next call resumes it" in told


def test_a_run_that_another_process_finished_meanwhile_is_finished(folder, stand_ins):
    (cell,) = declare(folder)
    stand_ins[1][0] = (2, "finished", "error: already holds a run")
    assert states(run_cells([cell], folder)) == ["finished"]


def test_a_locked_run_is_elsewhere_and_no_process_is_started_for_it(folder, stand_ins, capsys):
    cells = declare(folder, "seeds: [0, 1]")
    run_dir = record(cells[0], folder, "running")
    assert states(results_so_far(cells, folder)) == ["interrupted", "missing"]
    with locked(run_dir):
        assert states(results_so_far(cells, folder)) == ["elsewhere", "missing"]
        assert states(run_cells(cells, folder)) == ["elsewhere", "finished"]
    assert len(stand_ins[0]) == 1
    assert "another process is working on it" in capsys.readouterr().out


PATIENT = """
import signal, sys, time
told = []
def stop(number, frame):
    told.append(number)
    if len(told) == int(sys.argv[1]):
        sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
print("ready", flush=True)
while True:
    time.sleep(0.02)
"""


@pytest.mark.parametrize(
    ("signals", "needed", "code"),
    [
        ([signal.SIGINT], 1, 130),
        ([signal.SIGTERM], 1, 143),
        ([signal.SIGHUP], 1, 143),
        ([signal.SIGINT] * 2, 2, 130),
        ([signal.SIGINT] * 3, 9, -signal.SIGKILL),
    ],
)
def test_a_signal_reaches_each_child_once_and_nothing_more_is_started(
    folder, monkeypatch, capsys, signals, needed, code
):
    cells = declare(folder, "seeds: [0, 1, 2]")
    monkeypatch.setattr(process, "train_command", lambda *_: [sys.executable, "-S", "-c", PATIENT, str(needed)])
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    children, left = [], list(signals)
    update = ProgressView.update

    def send_when_ready(view, run_dirs):
        update(view, run_dirs)
        if left and all((run_dir / "log.txt").read_text() for run_dir in run_dirs):
            os.kill(os.getpid(), left.pop())
            time.sleep(0.1)

    def popen(*arguments, **more):
        children.append(real(*arguments, **more))
        return children[-1]

    real = subprocess.Popen
    monkeypatch.setattr(ProgressView, "update", send_when_ready)
    monkeypatch.setattr(process.subprocess, "Popen", popen)
    before = signal.getsignal(signal.SIGINT)
    assert states(run_cells(cells, folder, jobs=2)) == ["interrupted", "interrupted", "missing"]
    assert [child.returncode for child in children] == [code, code]
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out.count("stopped; the next call resumes it") == 2


@pytest.mark.parametrize(("cores", "threads", "jobs"), [(8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_as_many_runs_at_a_time_as_cores_hold(folder, monkeypatch, cores, threads, jobs):
    found = []
    monkeypatch.setattr(local, "available_cores", lambda: cores)
    monkeypatch.setattr(runner._Pool, "run", lambda pool: found.append(pool.launcher.capacity))
    run_cells(declare(folder, "", [f"threads={threads}"]), folder)
    run_cells(declare(folder, "", [f"threads={threads}"]), folder, jobs=5)
    assert found == [jobs, 5]


def test_children_know_their_threads_and_nothing_of_a_sweep_around_them(folder, stand_ins, monkeypatch):
    seen = []
    real = subprocess.Popen

    def popen(command, env, **more):
        seen.append(env)
        return real(command, env=env, **more)

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    monkeypatch.setenv("WANDB_SWEEP_ID", "x")
    run_cells(declare(folder, "", ["threads=3"]), folder)
    assert seen[0]["OMP_NUM_THREADS"] == "3" and "WANDB_SWEEP_ID" not in seen[0]


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '"finished"'])
def test_a_broken_status_is_one_line_naming_the_file(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(UserError) as error:
        run_state(tmp_path)
    assert str(tmp_path / "status.json") in str(error.value)


def test_no_status_is_no_run(tmp_path):
    assert run_state(tmp_path) is None
    assert run_state(tmp_path / "none") is None


# Real runs, each in a process of its own.


def iterations(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        return [int(row["iteration"]) for row in csv.DictReader(file)]


def provenance(run_dir):
    return json.loads((run_dir / "provenance.json").read_text())


def test_two_at_a_time_a_crash_stops_no_other_and_a_larger_budget_extends(folder, monkeypatch, capsys):
    at_once = []
    update = ProgressView.update
    monkeypatch.setattr(ProgressView, "update", lambda view, dirs: (at_once.append(len(dirs)), update(view, dirs))[1])
    variants = "variants: {good: {}, bad: {env.id: 'odd_environments:breaking', env.backend: gymnasium}}"
    cells = declare(folder, variants)
    found = {cell.settings.name + str(cell.settings.seed): cell for cell in cells}
    results = run_cells([found["bad0"], found["good0"]], folder / "runs", jobs=2)
    told = capsys.readouterr().out
    assert states(results) == ["failed", "finished"], told
    assert max(at_once) == 2
    (line,) = [line for line in told.splitlines() if f"(see {results[0].run_dir}/log.txt)" in line]
    assert "failed" in line and "env.id=odd_environments:breaking" in line
    assert "RuntimeError: the simulator [broke]" in line
    assert run_state(results[0].run_dir) == "failed"
    for result in results[1:]:
        rows = iterations(result.run_dir)
        assert rows == list(range(1, len(rows) + 1)) and len(rows) >= 2
        assert len(provenance(result.run_dir)) == 1
        label = f"CartPole-v1 good seed {result.cell.settings.seed}"
        assert sum(line.startswith(label) and line.split()[4].isdigit() for line in told.splitlines()) == len(rows)
    more = declare(folder, variants, ["name=good", "total_env_steps=300"])
    assert states(run_cells(more, folder / "runs")) == ["finished"]
    rows = iterations(results[1].run_dir)
    assert rows == list(range(1, len(rows) + 1)) and len(rows) >= 5
    assert [part["resumed_from_iteration"] for part in provenance(results[1].run_dir)] == [None, 2]


WITHOUT_REPORT = """
import sys, types
module = sys.modules["trpo_lightning.report.write"] = types.ModuleType("report")
module.write_report = lambda *_, **__: print("reported")
from trpo_lightning.__main__ import main
sys.exit(main(["experiment", "tiny", "--jobs", "1", *sys.argv[1:]]))
"""


def start(folder, *arguments):
    command = [sys.executable, "-c", WITHOUT_REPORT, *arguments]
    with open(folder / "out.txt", "a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_stopped_and_killed_experiments_go_on_where_they_were(folder):
    ways = {
        "ctrl_c": lambda process: os.killpg(process.pid, signal.SIGINT),  # as a terminal does
        "kill": lambda process: process.kill(),
    }
    processes, run_dirs = {}, {}
    try:
        for way in ways:
            (folder / way / "experiments").mkdir(parents=True)
            (folder / way / "experiments" / "tiny.yaml").write_text(TINY + "seeds: [0, 1]")
            run_dirs[way] = folder / way / "runs" / "tiny" / "full" / "CartPole-v1" / "default" / "seed_0"
            processes[way] = start(folder / way, "total_env_steps=100000000")
        for way, stop in ways.items():
            checkpoints = run_dirs[way] / "checkpoints"
            wait_for(lambda checkpoints=checkpoints: len(list(checkpoints.glob("barrier_*.ckpt"))) == 2)
            child = json.loads((run_dirs[way] / "status.json").read_text())["pid"]
            stop(processes[way])
            if way == "kill":
                os.kill(child, signal.SIGKILL)
        codes = {way: process.wait(60) for way, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    told = {way: (folder / way / "out.txt").read_text() for way in ways}
    assert codes == {"ctrl_c": 130, "kill": -signal.SIGKILL}, told
    assert run_state(run_dirs["ctrl_c"]) == "interrupted" and run_state(run_dirs["kill"]) == "running"
    assert told["ctrl_c"].count("stopped; the next call resumes it") == told["ctrl_c"].count("reported") == 1
    assert not any(run_dir.with_name("seed_1").exists() for run_dir in run_dirs.values())
    cells = []
    for way in ways:
        budget = 64 * iterations(run_dirs[way])[-1] + 500
        cell = declare(folder, "", [f"total_env_steps={budget}"])[0]
        cells.append(replace(cell, directory=Path(way) / "runs" / cell.directory))
    assert states(results_so_far(cells, folder)) == ["interrupted"] * 2
    assert states(run_cells(cells, folder, jobs=2)) == ["finished"] * 2
    for way in ways:
        rows = iterations(run_dirs[way])
        assert rows == list(range(1, len(rows) + 1))
        assert [bool(part["resumed_from_iteration"]) for part in provenance(run_dirs[way])] == [False, True]


def test_two_runners_at_once_do_each_run_once(folder, capsys):
    cells = declare(folder, "seeds: [0, 1]")
    process = start(folder)
    try:
        wait_for((folder / "runs" / cells[0].directory).exists)  # it is about to start its first child
        results = run_cells(cells, folder / "runs", jobs=1)
        code = process.wait(90)
    finally:
        process.kill()
    told = (folder / "out.txt").read_text() + capsys.readouterr().out
    assert code == 0 and "failed" not in told, told
    assert set(states(results)) <= {"finished", "elsewhere"}
    for result in results_so_far(cells, folder / "runs"):
        assert result.state == "finished"
        assert len(provenance(result.run_dir)) == 1
        rows = iterations(result.run_dir)
        assert rows == list(range(1, len(rows) + 1))
