"""Disks that are full or read-only, run directories that go away, clocks that jump."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_runs import SMALL, TESTS, assert_same_run, command_line, newest, one_line_of, rows_without_times, train

from trpo_lightning.errors import DiskError
from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.checkpoint import checkpoint_files
from trpo_lightning.runs.metrics_file import read_rows

LONG = "total_iterations=100000"
EXIT_CODE = 74


def mounted(folder: Path, size: str) -> bool:
    """Whether a disk of that size could be put there."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str, str], Path]]:
    """Makes a folder that is a disk of its own, of a size."""
    folders = []

    def make(name: str, size: str = "1m") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        if not mounted(folder, size):
            pytest.skip("a disk of its own cannot be mounted here: it needs root")
        folders.append(folder)
        return folder

    yield make
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path) -> Path:
    """A file that takes all the room."""
    ballast = disk / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        for size in (65536, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                pass
    return ballast


def wait_for_rows(run_dir: Path, count: int, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 60
    while len(read_rows(run_dir / "metrics.csv")) < count and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def started(*arguments: str, **pipes) -> "subprocess.Popen[str]":
    """`python -m trpo_lightning train` of the small run, in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    return subprocess.Popen(
        [sys.executable, "-m", "trpo_lightning", "train", "--quiet", *arguments],
        env={**kept, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        text=True,
        **pipes,
    )


def resume_to(run_dir: Path, iterations: int) -> None:
    done = command_line("train", "--quiet", "--resume", str(run_dir), f"total_iterations={iterations}")
    assert done.returncode == 0, done.stderr


def assert_as_uninterrupted(run_dir: Path, folder: Path, *overrides: str) -> None:
    """Go on to the second barrier from here; the whole is then the same as if nothing had happened."""
    resume_to(run_dir, to := newest(run_dir)["iteration"] + 4)
    train(folder / "straight", *overrides, f"total_iterations={to}")
    assert_same_run(folder / "straight", run_dir)


# ---- no room


@pytest.mark.faults
@pytest.mark.parametrize("every", [1, 1000], ids=["at a barrier", "at a row"])
def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(small_disk, tmp_path, every):
    disk = small_disk("disk")
    run_dir = disk / "run"
    begin = 2 if every == 1 else 0
    process = started("--run-dir", str(run_dir), *SMALL, f"checkpoint.every={every}", LONG)
    wait_for_rows(run_dir, 3, process)
    ballast = fill(disk)
    _, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, err
    line = one_line_of(err)
    assert str(run_dir) in line and "No space left on device" in line and "--resume" in line
    files = checkpoint_files(run_dir / "checkpoints")
    assert len(files) >= begin and all(checkpoint.read(path) for path in files)
    rows = rows_without_times(run_dir)
    assert [int(row["iteration"]) for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 3
    assert not list(run_dir.rglob("*.tmp"))
    done = command_line("train", "--quiet", "--resume", str(run_dir))
    assert done.returncode == EXIT_CODE and "No space left" in one_line_of(done.stderr)
    assert rows_without_times(run_dir) == rows and checkpoint_files(run_dir / "checkpoints") == files
    ballast.unlink()
    if every == 1:
        assert_as_uninterrupted(run_dir, tmp_path, "checkpoint.every=1")
    else:
        resume_to(run_dir, len(rows) + 2)
        train(tmp_path / "straight", f"total_iterations={len(rows) + 2}", f"checkpoint.every={every}")
        assert rows_without_times(tmp_path / "straight") == rows_without_times(run_dir)


@pytest.mark.faults
def test_a_disk_that_is_full_from_the_start_is_one_line(small_disk, tmp_path):
    disk = small_disk("disk")
    fill(disk)
    done = command_line("train", "--quiet", "--run-dir", str(disk / "run"), *SMALL)
    assert done.returncode == EXIT_CODE and "No space left on device" in one_line_of(done.stderr)


@pytest.mark.faults
def test_a_file_size_limit_is_told_like_a_full_disk(tmp_path):
    """Also where no disk can be mounted: RLIMIT_FSIZE makes writes fail with EFBIG."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "from trpo_lightning.__main__ import main\n"
        "sys.exit(main())\n"
    )
    arguments = ["train", "--quiet", "--run-dir", str(tmp_path / "run"), *SMALL, "total_iterations=400"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_CODE, done.stderr
    line = one_line_of(done.stderr)
    assert "barrier_00000002.ckpt" in line and "File too large" in line
    assert not checkpoint_files(tmp_path / "run" / "checkpoints")
    assert not list((tmp_path / "run").rglob("*.tmp"))
    resume_to(tmp_path / "run", 4)  # its rows up to there are computed again
    train(tmp_path / "straight")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


@pytest.mark.faults
@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "with a line per update"])
def test_a_log_that_cannot_grow_does_not_end_a_run(tmp_path, quiet):
    odd = ["env.id=odd_environments:endless", "env.max_episode_steps=null"]  # a warning at each barrier
    arguments = ["--run-dir", str(tmp_path / "run"), *SMALL, *odd]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "trpo_lightning", "train", *arguments, *(["--quiet"] if quiet else [])],
            env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
        )
        assert process.wait(timeout=120) == 0
    assert len(read_rows(tmp_path / "run" / "metrics.csv")) == 4


@pytest.mark.faults
def test_a_full_disk_below_wandb_alone_loses_only_that(small_disk, tmp_path):
    run_dir = tmp_path / "run"
    disk = small_disk("run/wandb", "64k")
    fill(disk)
    done = command_line(
        *("train", "--quiet", "--run-dir", str(run_dir), *SMALL, "tracking.wandb=offline"), HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "warning" in done.stdout and "W&B" in done.stdout
    train(tmp_path / "straight", "tracking.wandb=disabled")
    assert_same_run(tmp_path / "straight", run_dir)


@pytest.mark.faults
def test_a_disk_below_wandb_that_fills_up_does_not_end_a_run(small_disk, tmp_path):
    run_dir = tmp_path / "run"
    disk = small_disk("run/wandb", "512k")
    process = started("--run-dir", str(run_dir), *SMALL, "tracking.wandb=offline", LONG)
    wait_for_rows(run_dir, 3, process)
    fill(disk)
    wait_for_rows(run_dir, len(read_rows(run_dir / "metrics.csv")) + 10, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 143 and "Traceback" not in out + err, out + err
    rows = rows_without_times(run_dir)
    assert [int(row["iteration"]) for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.faults
@pytest.mark.parametrize("command", ["evaluate", "experiment", "report"])
def test_other_commands_tell_a_full_disk_in_one_line(small_disk, tmp_path, command):
    disk = small_disk("disk", "4m")
    (tmp_path / "experiments").mkdir()
    values = ", ".join(item.replace("=", ": ", 1) for item in SMALL)
    file = tmp_path / "experiments" / "tiny.yaml"
    file.write_text(f"title: A tiny one\nhypothesis: It runs.\nminutes: 0.1\noverrides: {{{values}}}\n")
    run_dir = disk / "tiny" / "full" / "CartPole-v1" / "default" / "seed_0"
    train(run_dir)
    fill(disk)
    root = ["--root", str(disk)]
    arguments = {
        "evaluate": ["evaluate", str(run_dir), "--episodes", "1"],
        "experiment": ["experiment", "tiny", *root, "seed=1"],
        "report": ["report", "tiny", *root],
    }[command]
    done = command_line(*arguments, cwd=tmp_path)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    if command == "experiment":  # the run's line is among those of the experiment; its report fails, too
        assert done.returncode in (1, EXIT_CODE)
        assert "No space left on device" in done.stdout + done.stderr
    else:
        assert done.returncode == EXIT_CODE
        assert "No space left on device" in one_line_of(done.stderr)


# ---- no permission


@pytest.fixture
def read_only(tmp_path) -> Iterator[Callable[[Path], None]]:
    """Makes a folder read-only, also for root."""
    folders = []

    def make(folder: Path) -> None:
        mount = ["mount", "--bind", str(folder), str(folder)]
        again = ["mount", "-o", "remount,ro,bind", str(folder)]
        if os.geteuid() != 0:
            folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        elif any(subprocess.run(command, capture_output=True, check=False).returncode for command in (mount, again)):
            pytest.skip("root writes everywhere, and nothing can be mounted here")
        folders.append(folder)

    yield make
    for folder in folders:
        if os.geteuid() != 0:
            folder.chmod(stat.S_IRWXU)
        else:
            subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.faults
def test_a_read_only_directory_is_one_line_and_nothing_of_it_changes(read_only, tmp_path):
    folder = tmp_path / "folder"
    train(folder / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    read_only(folder)
    for arguments in (
        ["train", "--quiet", "--run-dir", str(folder / "new"), *SMALL],
        ["train", "--quiet", "--resume", str(folder / "run"), "total_iterations=6"],
        ["evaluate", str(folder / "run"), "--episodes", "1"],
    ):
        done = command_line(*arguments)
        assert done.returncode == EXIT_CODE
        line = one_line_of(done.stderr)
        assert str(folder) in line and ("Read-only file system" in line or "Permission denied" in line)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.faults
def test_a_directory_that_becomes_read_only_during_a_run(read_only, tmp_path):
    """A row still goes into the file that is open; the next barrier does not."""
    if os.geteuid() == 0:
        pytest.skip("a bind mount does not touch folders that are in use; see the disk that is full")
    process = started("--run-dir", str(tmp_path / "run"), *SMALL, LONG)
    wait_for_rows(tmp_path / "run", 3, process)
    read_only(tmp_path / "run" / "checkpoints")
    _, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE and "Permission denied" in one_line_of(err)


# ---- a run directory that goes away


def remove(run_dir: Path) -> None:
    import shutil

    while run_dir.exists():  # the run may write a barrier meanwhile
        shutil.rmtree(run_dir, ignore_errors=True)


def move(run_dir: Path) -> None:
    run_dir.rename(run_dir.with_name("moved"))


def remove_metrics(run_dir: Path) -> None:
    (run_dir / "metrics.csv").unlink()


@pytest.mark.faults
@pytest.mark.parametrize("fault", [remove, move, remove_metrics], ids=lambda fault: fault.__name__)
def test_a_run_whose_directory_goes_away_ends_in_one_line(tmp_path, fault):
    run_dir = tmp_path / "run"
    process = started("--run-dir", str(run_dir), *SMALL, "checkpoint.every=50", LONG)
    wait_for_rows(run_dir, 60 if fault is move else 3, process)
    fault(run_dir)
    _, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, err
    line = one_line_of(err)
    assert str(run_dir) in line and ("removed or moved" in line or "No such file" in line)
    assert fault is remove_metrics or not run_dir.exists(), "nothing of it is made again"
    if fault is move:
        moved = tmp_path / "moved"
        resume_to(moved, to := newest(moved)["iteration"] + 50)
        train(tmp_path / "straight", "checkpoint.every=50", f"total_iterations={to}")
        assert_same_run(tmp_path / "straight", moved)


def test_a_run_of_an_experiment_whose_directory_goes_away_does_not_stop_the_rest(tmp_path):
    from trpo_lightning.experiment.runner import _last_line

    assert "cannot be read" in _last_line(tmp_path / "nothing")


# ---- clocks


class Clock:
    """A wall clock that jumps by hours at each look, forward and back."""

    def __init__(self) -> None:
        self.real, self.looks = time.time, 0

    def __call__(self) -> float:
        self.looks += 1
        return self.real() + (-1) ** self.looks * 3600.0 * self.looks


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, mode):
    train(tmp_path / "straight", "evaluation.every=2", "tracking.wandb=disabled")
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(time, "time_ns", lambda: int(clock() * 1e9))
    monkeypatch.setenv("HOME", str(tmp_path))
    train(tmp_path / "jumping", "evaluation.every=2", f"tracking.wandb={mode}", "total_iterations=3")
    train(tmp_path / "jumping", "evaluation.every=2", f"tracking.wandb={mode}", resume=True)
    monkeypatch.undo()
    assert_same_run(tmp_path / "straight", tmp_path / "jumping")
    seconds = [float(row["time/collect"]) for row in read_rows(tmp_path / "jumping" / "metrics.csv")]
    assert all(0 < value < 60 for value in seconds)


def test_only_clocks_that_never_jump_are_asked(tmp_path):
    """The wall clock dates records (`strftime`, and MLflow's points); nothing is decided by it."""
    import ast

    import trpo_lightning

    package = Path(trpo_lightning.__file__).parent
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                dates = ("time",) if file.name == "mlflow_logger.py" else ()
                assert node.attr in ("perf_counter", "monotonic", "sleep", "strftime", "localtime", *dates), (
                    f"{file}: time.{node.attr}"
                )
            only_lengths = isinstance(node, ast.ImportFrom) and [name.name for name in node.names] == ["timedelta"]
            if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime") and not only_lengths:
                raise AssertionError(f"{file}: imports from {node.module}")
            if isinstance(node, ast.Import):
                assert all(alias.name != "datetime" for alias in node.names), f"{file}: imports datetime"


def test_what_is_raised_names_the_disk():
    assert DiskError("x").exit_code == EXIT_CODE
