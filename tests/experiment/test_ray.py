"""Experiments on a real Ray cluster of nodes on this machine, in the fast tests and with nodes that are killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray_clusters import node_without, ray_cluster
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
from trpo_lightning.experiment.launchers.options import LauncherOptions
from trpo_lightning.experiment.runner import results_so_far, run_cells
from trpo_lightning.experiment.states import is_locked

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    declare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    with ray_cluster(1, 1) as found:
        yield found


def on(cluster, **options):
    return LauncherOptions("ray", address=cluster.address, **options)


def test_runs_are_fetched_from_the_nodes_with_the_bits_of_local_ones(folder, cluster, monkeypatch, capsys):
    results = run_cells([*cells("seed=0"), *cells("seed=1")], folder / "runs", options=on(cluster))
    told = capsys.readouterr().out
    assert states(results) == ["finished"] * 2, told
    for result in results:
        assert starts(result.run_dir) == [None]
        assert (result.run_dir / "checkpoints" / "best.pt").is_file() and not is_locked(result.run_dir)
        label = f"CartPole-v1 default seed {result.cell.settings.seed}"
        assert sum(line.startswith(label) and line.split()[4].isdigit() for line in told.splitlines()) == 6
        assert_bits_of_a_local_run(result, monkeypatch)


@pytest.mark.faults
def test_a_larger_budget_goes_on_on_any_node_and_a_finished_run_starts_nothing(folder, cluster):
    for _ in range(2):
        (first,) = run_cells(cells("seed=0"), folder / "runs", options=on(cluster))
        assert first.state == "finished" and starts(first.run_dir) == [None]
    more = run_cells(cells("seed=0", "total_iterations=8"), folder / "runs", options=on(cluster))
    assert states(more) == ["finished"] and starts(more[0].run_dir) == [None, 6]


@pytest.mark.faults
def test_a_run_that_fails_on_a_node_says_why_and_leaves_its_log(folder, cluster, capsys):
    (folder / "broken.py").write_text("def make(): raise RuntimeError('no such [simulator]')\n")
    bad = cells("seed=0", "env.id=broken:make", "env.max_episode_steps=null")
    assert states(run_cells(bad, folder / "runs", options=on(cluster))) == ["failed"]
    assert "no such [simulator]" in capsys.readouterr().out
    assert "no such [simulator]" in (folder / "runs" / bad[0].directory / "log.txt").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "127.0.0.1:9"}, "there is no Ray cluster at 127.0.0.1:9 (Connection refused): start one"),
        ({"address": "nowhere"}, "--address nowhere is not HOST:PORT"),
        ({"cpus": 3}, "each run asks for 3 CPUs, and the largest node of the Ray cluster at"),
    ],
)
def test_a_cluster_that_cannot_do_it_is_one_line_and_nothing_is_left(folder, cluster, options, said):
    with pytest.raises(UserError) as error:
        run_cells(
            cells(),
            folder / "runs",
            options=LauncherOptions(**{"launcher": "ray", "address": cluster.address, **options}),
        )
    assert said in str(error.value) and error.value.exit_code == 2
    assert not (folder / "runs").exists()


def have_barriers(run_dirs):
    return len(run_dirs) == 2 and all(barriers(d) == 2 for d in run_dirs)


@pytest.mark.faults
@pytest.mark.parametrize("shared", [False, True])
def test_runs_of_a_killed_node_go_on_elsewhere_and_each_is_done_once(folder, monkeypatch, capsys, shared):
    monkeypatch.setenv("SECONDS_PER_STEP", "0.004")
    with ray_cluster(1, 1) as found:
        node = min(found.worker_nodes, key=lambda node: node.unique_id)
        done = do_when(monkeypatch, have_barriers, lambda: found.remove_node(node, allow_graceful=False))
        results = run_cells(cells(*SLOW), folder / "runs", options=on(found, shared=shared))
    told = capsys.readouterr().out
    assert done and states(results) == ["finished"] * 3, told
    assert told.count("goes on elsewhere from its last barrier") == 1, told
    began = [starts(result.run_dir) for result in results]
    assert sorted(map(len, began)) == [1, 1, 2] and max(began, key=len)[1] >= 2, began
    for result in results:
        assert_bits_of_a_local_run(result, monkeypatch)
    assert not trainings()


@pytest.mark.faults
def test_a_stopped_experiment_leaves_nothing_on_the_nodes_and_goes_on_with_the_next_call(folder, monkeypatch, capsys):
    long = cells("seed=0", "total_iterations=100000")
    with ray_cluster(1) as found:
        began = lambda run_dirs: run_dirs and barriers(run_dirs[0]) == 2  # noqa: E731
        do_when(monkeypatch, began, lambda: os.kill(os.getpid(), signal.SIGINT))
        results = run_cells([*long, *cells("seed=1")], folder / "runs", options=on(found))
        assert states(results) == ["interrupted", "missing"]
        assert not results[1].run_dir.exists(), "what had not been started leaves nothing"
        reached = json.loads((results[0].run_dir / "status.json").read_text())["iteration"]
        more = run_cells(cells("seed=0", f"total_iterations={reached + 5}"), folder / "runs", options=on(found))
    assert states(more) == ["finished"] and starts(more[0].run_dir)[1] >= 2
    assert_bits_of_a_local_run(more[0], monkeypatch)


COMMAND = [sys.executable, "-m", "trpo_lightning", "experiment", "small", "--launcher", "ray"]


@pytest.mark.faults
def test_runs_end_with_a_killed_runner_and_the_next_one_loses_nothing(folder, monkeypatch):
    run_dir = folder / "runs" / cells("seed=0")[0].directory
    with ray_cluster(1) as found, open(folder / "out.txt", "w") as log:
        command = [*COMMAND, "--address", found.address, "seed=0", "total_iterations=100000"]
        runner = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: barriers(run_dir) == 2)
        runner.kill()
        runner.wait()
        wait_for(lambda: not trainings())
        reached = results_so_far(cells("seed=0"), folder / "runs")
        assert states(reached) == ["interrupted"] and not is_locked(run_dir)
        until = max(int(path.stem.rpartition("_")[2]) for path in run_dir.glob("checkpoints/barrier_*")) + 5
        more = run_cells(cells("seed=0", f"total_iterations={until}"), folder / "runs", options=on(found))
    assert states(more) == ["finished"] and starts(run_dir)[1] >= 2
    assert_bits_of_a_local_run(more[0], monkeypatch)


@pytest.mark.faults
def test_a_node_with_other_versions_is_named(folder):
    other = folder / "other" / "numpy-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    with ray_cluster(1, first_path=folder / "other") as found:
        with pytest.raises(UserError, match=r"node .* has other versions: numpy 1\.0 instead of") as error:
            run_cells(cells(), folder / "runs", options=on(found))
    assert "install the same on all nodes" in str(error.value) and not (folder / "runs").exists()


@pytest.mark.faults
def test_a_folder_that_one_node_does_not_have_is_named(folder):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("nothing can be hidden from a process here: unshare -m is not allowed")
    (folder / "runs").mkdir()
    with ray_cluster(1) as found, node_without(folder / "runs", found.address):
        import ray

        ray.init(found.address, log_to_driver=False)
        wait_for(lambda: ray.cluster_resources().get("CPU") == 2)
        with pytest.raises(UserError, match=r"--root .*/runs is not shared with node .*: give a folder that all nodes"):
            run_cells(cells(), folder / "runs", options=on(found, shared=True))
        assert states(run_cells(cells("seed=0", "total_iterations=2"), folder / "runs", options=on(found))) == [
            "finished"
        ]
    assert [path.name for path in (folder / "runs").iterdir()] == ["small"]


def trainings():
    """Processes of this test that train."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [text] if "trpo_lightning train" in text and "/trpo_lightning_" in text else []
    return found
