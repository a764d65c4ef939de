"""Experiments as jobs of a real Slurm on this machine; where none can be started, submitit's local jobs do the same."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit
from slurm_cluster import free_port, slurm_cluster, slurm_command
from small_experiment import (
    SLOW,
    assert_bits_of_a_local_run,
    barriers,
    cells,
    declare,
    do_when,
    starts,
    states,
    wait_for,
)

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.launchers import slurm, slurm_commands
from trpo_lightning.experiment.launchers.launcher import Ending, PlannedRun
from trpo_lightning.experiment.launchers.options import LauncherOptions
from trpo_lightning.experiment.launchers.slurm_job import QueuedRun
from trpo_lightning.experiment.launchers.versions import versions
from trpo_lightning.experiment.runner import run_cells
from trpo_lightning.experiment.states import run_state
from trpo_lightning.runs.config import config_text
from trpo_lightning.settings import RunSettings

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    declare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_commands, "LOOK_SECONDS", 0.5)
    return tmp_path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A node of two CPUs, with the partitions main and urgent; jobs of the latter preempt the former's."""
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


def on(**options):
    return LauncherOptions("slurm", **{"time": 5, "notice": 40, **options})


def jobs():
    """This user's jobs that are not over, with their states."""
    rows = slurm_command("squeue", "--me", "-r", "-h", "-o", "%i|%T").splitlines()
    return dict(row.split("|") for row in rows)


def test_runs_are_jobs_with_the_bits_of_local_ones(folder, cluster, monkeypatch, capsys):
    results = run_cells(cells("seed=0"), folder / "runs", options=on())
    told = capsys.readouterr().out
    assert states(results) == ["finished"] and "started" not in told, told
    assert starts(results[0].run_dir) == [None] and told.count("CartPole-v1 default seed 0") == 7
    assert_bits_of_a_local_run(results[0], monkeypatch)
    assert states(run_cells(cells("seed=0"), folder / "runs", options=on())) == ["finished"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": "moon"}, "there is no partition moon: Slurm has main, urgent"),
        ({"cpus": 3}, "each run asks for 3 CPUs, and the largest node of the default partition has 2: give fewer"),
        ({"time": "1-00:00:00"}, "--time 1-00:00:00 is more than the 120 minutes of the default partition"),
        ({"time": 2, "notice": 41}, "--time 2 is too short for --notice 41, which Slurm may send a minute early"),
        ({"sbatch": {"qos": "best", "licenses": "none:1"}}, "Slurm does not take the jobs: "),
    ],
)
def test_what_the_cluster_has_not_is_one_line_and_nothing_is_left(folder, cluster, options, said):
    with pytest.raises(UserError) as error:
        run_cells(cells(), folder / "runs", options=on(**options))
    assert said in str(error.value) and error.value.exit_code == 2
    assert not jobs() and not list(folder.glob("runs/[!.]*"))


def test_without_slurm_it_says_where_to_call_it(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UserError, match=r"there is no Slurm here .*: call it on a login node"):
        run_cells(cells(), folder / "runs", options=on())


def test_a_slurm_that_does_not_answer_is_one_line(folder, cluster, monkeypatch):
    port = f"SlurmctldPort={free_port()}\nMessageTimeout=2"
    text = re.sub(r"SlurmctldPort=\d+", port, (cluster / "slurm.conf").read_text())
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    with pytest.raises(UserError, match="Slurm does not answer: "):
        run_cells(cells(), folder / "runs", options=on())


@contextmanager
def local_job(folder, monkeypatch, seconds_per_step, *overrides):
    """The job that Slurm would do for a slow run, done by submitit's executor on this machine; with its cell."""
    monkeypatch.setenv("SECONDS_PER_STEP", seconds_per_step)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (cell,) = cells("seed=0", *SLOW, *overrides)
    executor = submitit.LocalExecutor(folder / "jobs", max_num_timeout=9)
    executor.update_parameters(timeout_min=5, signal_delay_s=30)
    run = QueuedRun(config_text(cell.settings), folder / "runs" / cell.directory, 30, versions())
    job = executor.submit(run)
    try:
        yield job, cell
    finally:
        job._process.kill()
        job._process.wait()


def tell_of_its_limit(job):
    children = subprocess.run(["pgrep", "-P", job.job_id], capture_output=True, text=True, check=True).stdout
    os.kill(int(children), signal.SIGUSR2)


def test_a_job_that_is_told_of_its_limit_is_queued_again_and_loses_nothing(folder, monkeypatch):
    with local_job(folder, monkeypatch, "0.003", "total_iterations=24") as (job, cell):
        run_dir = folder / "runs" / cell.directory
        wait_for(lambda: barriers(run_dir) == 2)
        tell_of_its_limit(job)
        assert job.result() == Ending(0)
    assert len(starts(run_dir)) == 2 and starts(run_dir)[1] >= 4
    assert_bits_of_a_local_run(run_cells([cell], folder / "runs")[0], monkeypatch)


@pytest.mark.faults
def test_a_job_that_never_reaches_a_barrier_is_not_queued_for_ever(folder, monkeypatch):
    with local_job(folder, monkeypatch, "0.05", "checkpoint.every=50") as (job, cell):
        run_dir = folder / "runs" / cell.directory
        for number in range(1, 4):
            wait_for(
                lambda number=number: (
                    run_dir.is_dir() and (run_dir / "provenance.json").exists() and len(starts(run_dir)) == number
                )
            )
            tell_of_its_limit(job)
        ending = job.result()
    assert ending.code == 1 and "no barrier was reached in 3 jobs: give more time" in ending.reason
    assert run_state(run_dir) == "interrupted"


@pytest.mark.faults
def test_a_time_limit_in_the_middle_of_runs_loses_nothing(folder, cluster, monkeypatch, capsys):
    monkeypatch.setenv("SECONDS_PER_STEP", "0.1")  # a minute and a half
    started = time.monotonic()

    def shorten():
        soon = int((time.monotonic() - started) / 60) + 2
        for job in jobs():
            slurm_command("scontrol", "update", f"jobid={job}", f"timelimit={soon}")
        return True

    began = lambda run_dirs: len(run_dirs) == 2 and all(barriers(run_dir) == 2 for run_dir in run_dirs)  # noqa: E731
    done = do_when(monkeypatch, began, shorten)
    results = run_cells(cells(*SLOW)[:2], folder / "runs", options=on())
    assert done and states(results) == ["finished"] * 2, capsys.readouterr().out
    for result in results:
        assert len(starts(result.run_dir)) >= 2 and all(later >= 2 for later in starts(result.run_dir)[1:])
        assert_bits_of_a_local_run(result, monkeypatch)


@pytest.mark.parametrize(
    ("state", "told", "again"),
    [("COMPLETED", False, True), ("PREEMPTED", False, True), ("COMPLETED", True, False), ("CANCELLED", False, False)],
)
def test_a_run_that_stopped_in_time_goes_on_unless_someone_wanted_it_to_stop(tmp_path, monkeypatch, state, told, again):
    monkeypatch.setattr(slurm, "pickle_load", lambda path: ("success", Ending(slurm.INTERRUPTED)))
    monkeypatch.setattr(slurm, "tell", lambda *_: None)
    states_of_jobs = SimpleNamespace(state=lambda name: state)
    job = slurm._SlurmJob("7", PlannedRun(RunSettings(), tmp_path / "run"), tmp_path, states_of_jobs)
    if told:
        job.stop(signal.SIGTERM)
    ending = job.poll()
    assert (ending.again, ending.lost) == (again, again) and job.ended


@pytest.mark.faults
def test_a_preempted_job_goes_on_after_the_urgent_one(folder, cluster, monkeypatch, capsys):
    monkeypatch.setenv("SECONDS_PER_STEP", "0.01")
    urgent = ["sbatch", "-p", "urgent", "-c", "2", "-t", "1", "-o", "/dev/null", "--wrap", "sleep 2"]
    began = lambda run_dirs: len(run_dirs) == 2 and all(barriers(run_dir) == 2 for run_dir in run_dirs)  # noqa: E731
    done = do_when(monkeypatch, began, lambda: slurm_command(*urgent))
    results = run_cells(cells(*SLOW)[:2], folder / "runs", options=on())
    assert done and states(results) == ["finished"] * 2, capsys.readouterr().out
    for result in results:
        assert len(starts(result.run_dir)) == 2 and starts(result.run_dir)[1] >= 2
        assert_bits_of_a_local_run(result, monkeypatch)


@pytest.mark.faults
def test_a_cancelled_job_is_interrupted_and_the_next_call_goes_on(folder, cluster, monkeypatch, capsys):
    monkeypatch.setenv("SECONDS_PER_STEP", "0.005")
    began = lambda run_dirs: len(run_dirs) == 2 and all(barriers(run_dir) == 2 for run_dir in run_dirs)  # noqa: E731
    done = do_when(monkeypatch, began, lambda: slurm_command("scancel", min(jobs())))
    results = run_cells(cells(*SLOW)[:2], folder / "runs", options=on())
    assert done and sorted(states(results)) == ["finished", "interrupted"], capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    again = run_cells(cells(*SLOW)[:2], folder / "runs", options=on())
    assert states(again) == ["finished"] * 2 and sorted(len(starts(result.run_dir)) for result in again) == [1, 2]
    for result in again:
        assert_bits_of_a_local_run(result, monkeypatch)


@pytest.mark.faults
def test_a_node_that_is_drained_ends_its_runs_and_the_others_wait(folder, cluster, monkeypatch, capsys):
    monkeypatch.setenv("SECONDS_PER_STEP", "0.003")
    (node,) = set(slurm_command("sinfo", "-N", "-h", "-o", "%N").split())
    update = ["scontrol", "update", f"nodename={node}"]
    ended = []

    def drain():
        slurm_command(*update, "state=drain", "reason=test")
        return True

    def resume():
        ended.append(dict(jobs()))
        slurm_command(*update, "state=resume")
        return True

    began = lambda run_dirs: len(run_dirs) == 2 and all(barriers(run_dir) == 2 for run_dir in run_dirs)  # noqa: E731
    first = do_when(monkeypatch, began, drain)
    second = do_when(monkeypatch, lambda run_dirs: first and not run_dirs, resume)
    results = run_cells(cells(*SLOW), folder / "runs", options=on())
    assert first and second and states(results) == ["finished"] * 3, capsys.readouterr().out
    assert [*ended[0].values()] == ["PENDING"] and all(starts(result.run_dir) == [None] for result in results)
    assert_bits_of_a_local_run(results[2], monkeypatch)


@pytest.mark.faults
def test_ctrl_c_ends_the_running_jobs_and_takes_the_waiting_ones_back(folder, cluster, monkeypatch):
    monkeypatch.setenv("SECONDS_PER_STEP", "0.01")
    began = lambda run_dirs: len(run_dirs) == 2 and all(barriers(run_dir) == 2 for run_dir in run_dirs)  # noqa: E731
    do_when(monkeypatch, began, lambda: os.kill(os.getpid(), signal.SIGINT))
    results = run_cells(cells(*SLOW), folder / "runs", options=on())
    assert states(results) == ["interrupted", "interrupted", "missing"] and not jobs()
    assert not results[2].run_dir.exists() and run_state(results[0].run_dir) == "interrupted"


@pytest.mark.faults
def test_jobs_go_on_without_their_runner_and_the_next_call_takes_them_over(folder, cluster, monkeypatch, capsys):
    command = [
        sys.executable,
        "-m",
        "trpo_lightning",
        "experiment",
        "small",
        "--launcher",
        "slurm",
        "--time",
        "5",
        *SLOW,
    ]
    monkeypatch.setenv("SECONDS_PER_STEP", "0.01")
    with open(folder / "out.txt", "w") as log:
        runner = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for(lambda: sum(map(barriers, (folder / "runs" / cell.directory for cell in cells(*SLOW)))) >= 2)
    runner.kill()
    runner.wait()
    before = jobs()
    assert sorted(before.values()) == ["PENDING", "RUNNING", "RUNNING"]
    with pytest.raises(UserError, match=r"a job of an earlier call has this run|another process is working on"):
        run_cells(cells(*SLOW), folder / "runs", options=on(), force=True)
    results = run_cells(cells(*SLOW), folder / "runs", options=on())
    assert states(results) == ["finished"] * 3, capsys.readouterr().out
    assert len(set(slurm_command("squeue", "--me", "-a", "-r", "-h", "--states=all", "-o", "%A").split())) >= 1
    assert all(starts(result.run_dir) == [None] for result in results)


@pytest.mark.faults
def test_a_node_with_other_versions_does_not_begin(folder, cluster, capsys):
    other = folder / "other" / "numpy-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    setup = [f"export PYTHONPATH={folder / 'other'}:$PYTHONPATH"]
    results = run_cells(cells("seed=0"), folder / "runs", options=on(setup=setup))
    assert states(results) == ["failed"] and not results[0].run_dir.exists()
    assert "has other versions: numpy 1.0 instead of" in capsys.readouterr().out


@pytest.mark.faults
def test_a_folder_that_the_nodes_do_not_have_is_named_and_the_jobs_are_taken_back(tmp_path, folder, monkeypatch):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("nothing can be hidden from a process here: unshare -m is not allowed")
    monkeypatch.setattr(slurm, "FILES_SECONDS", 3.0)
    (folder / "runs").mkdir()
    (folder / "cluster").mkdir()
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {folder}/runs && exec "$@"', "sh"]
    with slurm_cluster(Path(folder / "cluster"), *hide):
        with pytest.raises(UserError, match=r"has left nothing: --root must be a folder that is shared with the nodes"):
            run_cells(cells(), folder / "runs", options=on())
        assert not jobs()
