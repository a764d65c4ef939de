"""Errors of users end with exit code 2 and one line on stderr, and help is quick."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trpo_lightning import UserError
from trpo_lightning.__main__ import main
from trpo_lightning.errors import BUSY
from trpo_lightning.settings import keys

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT / "tests")}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # `main` sets them; this puts them back


def python(*arguments, **more):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False, **more
    )


def one_line_of(stderr):
    (line,) = stderr.splitlines()
    assert line.startswith("error: ") and "Traceback" not in line
    return line


def refused(capsys, *arguments):
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return one_line_of(captured.err)


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from trpo_lightning.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'gymnasium', 'envpool', 'wandb', 'omegaconf', 'matplotlib', 'pytorch_lightning'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for arguments in (["--help"], ["train", "--help"], ["experiment", "--help"], []):
        times = []
        for _ in range(3):  # the best of three: other processes may be at work
            began = time.perf_counter()
            done = python("-c", code, *arguments)
            times.append(time.perf_counter() - began)
            assert done.returncode == 0, done.stderr
            assert "usage:" in done.stdout and done.stderr == ""
            if times[-1] < 1.0:
                break
        assert min(times) < 1.0


def test_errors_in_settings_do_not_wait_for_torch():
    code = (
        "import sys\nfrom trpo_lightning.__main__ import main\n"
        "assert main(['train', 'gamma=2']) == 2\nassert 'torch' not in sys.modules\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "gamma=2.0" in one_line_of(done.stderr)


def test_help_of_train_has_every_key_with_its_meaning(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for key, item in keys().items():
        assert any(line.startswith(f"  {key}=") and item.metadata["meaning"] in line for line in lines), key


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["rule.dleta=1"], ["unknown key rule.dleta", "did you mean rule.delta?"]),
        (["delta=1"], ["did you mean rule.delta?"]),
        (["rule.delta=big"], ["rule.delta", "big"]),
        (["seed=1.5"], ["seed", "1.5"]),
        (["gamma=1.2"], ["gamma=1.2", "at most 1.0"]),
        (["rule.delta=0"], ["rule.delta=0.0", "greater than 0.0"]),
        (["env.num_envs=0"], ["env.num_envs=0", "at least 1"]),
        (["rollout.steps_per_iteration=8"], ["rollout.steps_per_iteration=8", "smaller", "env.num_envs=16"]),
        (["rollout.steps_per_iteration=100"], ["rollout.steps_per_iteration=100", "multiple", "96 or 112"]),
        (["hello"], ["'hello' is not key=value"]),
        (["--seed", "1"], ["unknown option --seed"]),
        (["--quie"], ["unknown option --quie"]),
        (["--run-dir"], ["--run-dir", "expected one argument"]),
        (["--config", "none.yaml"], ["none.yaml", "cannot be read"]),
        (["--resume", "."], ["is not a run directory"]),
        (["--resume", "none"], ["none: is not a run directory"]),
        (["--resume", ".", "--run-dir", "x"], ["--resume takes settings from the run directory"]),
        (["seed=1", "--quiet", "gamma=1.2"], ["gamma=1.2"]),
        (["--run-dir", "x", "seed=1", "--quiet", "rule.dleta=1", "seed=2"], ["unknown key rule.dleta"]),
    ],
)
def test_train_refuses_in_one_line(arguments, parts, capsys):
    line = refused(capsys, "train", *arguments)
    assert all(part in line for part in parts), line
    assert not Path("runs").exists() and not Path("x").exists()


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["env.id=Hoper-v5"], ["env.id=Hoper-v5 is not registered", "did you mean", "Hopper-v5"]),
        (["env.id=hopper-v5"], ["Hopper-v5"]),
        (["env.id=Hopper-v5", "env.kwargs.gravity=0"], ["env.id=Hopper-v5", "gravity"]),
        (["env.id=no_such_module:make"], ["no_such_module cannot be imported"]),
        (["env.id=environments:nothing"], ["module environments has no nothing"]),
        (["env.id=environments:broken"], ["env.id=environments:broken", "RuntimeError: two lines"]),
        (["env.id=environments:no_environment"], ["returned a str"]),
        (["env.id=environments:with_actions", "env.kwargs.name=tuple"], ["action space Tuple"]),
        (["env.id=environments:with_observations", "env.kwargs.name=graph"], ["observation is a Graph"]),
        (
            [
                "env.id=ALE/Pong-v5",
                "env.backend=envpool",
                "policy.image_network=sizes",
                "policy.convolutions=[16x99/1]",
            ],
            ["policy.image_network: layer 1 (16x99/1) does not fit: the image of 84 x 84", "env.wrappers="],
        ),
        (["env.id=CartPol-v1", "env.backend=envpool"], ["env.id=CartPol-v1", "did you mean CartPole-v1?"]),
    ],
)
def test_train_refuses_environments_in_one_line(settings, parts, capsys):
    if "env.backend=envpool" in settings:
        pytest.importorskip("envpool")
    line = refused(capsys, "train", "tracking.wandb=disabled", "--run-dir", "here", *settings)
    assert all(part in line for part in parts), line


def test_a_refused_environment_in_a_process_of_its_own(tmp_path):
    done = python("-m", "trpo_lightning", "train", "env.id=Hoper-v5", "tracking.wandb=disabled", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "did you mean Hopper-v5" in one_line_of(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["experiment", "quickstrat"], ["no experiment quickstrat", "did you mean quickstart?"]),
        (["experiment"], ["NAME"]),
        (["experiment", "quickstart", "rule.dleta=1"], ["command line: unknown key rule.dleta"]),
        (["experiment", "quickstart", "--root", "x", "rule.dleta=1"], ["command line: unknown key rule.dleta"]),
        (["experiment", "quickstart", "--seeds", "3"], ["unknown option --seeds"]),
        (["evaluate"], ["RUN_DIR"]),
        (["evaluate", "none"], ["none"]),
        (["evaluate", "none", "more"], ["unknown argument more"]),
        (["evaluate", "none", "--episodes", "0"], ["--episodes 0", "at least 1"]),
        (["evaluate", "none", "--episodes", "x"], ["--episodes", "'x'"]),
        (["evaluate", "none", "--policy", "worst"], ["--policy", "worst"]),
        (["list", "more"], ["unknown argument more"]),
        (["trian"], ["trian", "train"]),
        (["--verbose"], ["unknown option --verbose"]),
    ],
)
def test_other_commands_refuse_in_one_line(arguments, parts, capsys):
    line = refused(capsys, *arguments)
    assert all(part in line for part in parts), line
    assert not Path("runs").exists() and not Path("x").exists()


def test_settings_are_read_wherever_they_stand(monkeypatch, capsys):
    from trpo_lightning.runs import run

    found = {}

    def train_run(settings, run_dir, **more):
        found.update(settings=settings, run_dir=run_dir, **more)
        raise UserError("enough")

    monkeypatch.setattr(run, "train_run", train_run)
    refused(capsys, "train", "seed=3", "--run-dir", "there", "gamma=0.5", "--quiet", "rule.delta=0.5", "name=x")
    settings = found["settings"]
    assert (settings.seed, settings.gamma, settings.rule.delta, settings.name) == (3, 0.5, 0.5, "x")
    assert found["run_dir"] == Path("there") and found["quiet"] and not found["resume"]


TINY = """
title: A tiny experiment
hypothesis: It runs.
minutes: 0.1
overrides: {env.id: CartPole-v1, total_env_steps: 120, tracking.wandb: disabled}
seeds: [0, 1, 2]
scales:
  quick: {overrides: {total_env_steps: 60}, seeds: [0]}
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(TINY)
    return tmp_path


def test_list_shows_a_line_for_each_experiment(tiny, capsys):
    (tiny / "experiments" / "another.yaml").write_text("title: Another\nhypothesis: H\nminutes: 2.5\n")
    assert main(["list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["experiment", "finished/declared", "last"]
    own = [line for line in lines if line.startswith(("another ", "tiny "))]  # besides those of the package's checkout
    assert [line.split() for line in own] == [["another", "full", "0/1"], ["tiny", "full", "0/3", "quick", "0/1"]]


def test_a_dry_run_shows_what_would_run_and_how_it_stands(tiny, capsys):
    finished = tiny / "out/tiny/full/CartPole-v1/default/seed_1"
    finished.mkdir(parents=True)
    (finished / "status.json").write_text('{"state": "finished"}')
    before = sorted(tiny.rglob("*"))
    assert main(["experiment", "tiny", "--root", "out", "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["missing", "120"], ["finished", "120"], ["missing", "120"]]
    assert lines[2][-1] == "out/tiny/full/CartPole-v1/default/seed_2"
    assert main(["experiment", "tiny", "--dry-run", "--scale", "quick", "seed=7"]) == 0
    assert capsys.readouterr().out.split() == [
        *"missing 60 env steps runs/tiny/quick/CartPole-v1/default/seed_7".split()
    ]
    assert sorted(tiny.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--scale", "quik"], ["tiny.yaml: there is no scale quik: it has full, quick"]),
        (["--jobs", "0"], ["--jobs 0 is too small", "at least 1"]),
        (["--jobs", "-1"], ["--jobs -1 is too small"]),
        (["--jobs", "many"], ["--jobs", "'many'"]),
        (["name=other"], ["no run is left of experiment tiny with name=other"]),
    ],
)
def test_experiment_refuses_in_one_line(tiny, arguments, parts, capsys):
    line = refused(capsys, "experiment", "tiny", *arguments)
    assert all(part in line for part in parts), line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["finished"] * 3, 0),
        (["finished", "elsewhere", "finished"], 0),
        (["finished", "failed", "finished"], 1),
        (["interrupted", "failed", "missing"], 1),
        (["finished", "interrupted", "missing"], 130),
        (["finished", "finished", "missing"], 130),
    ],
)
def test_an_experiment_ends_with_a_code_that_tells_how_its_runs_stand(tiny, monkeypatch, states, code):
    from trpo_lightning.experiment import runner
    from trpo_lightning.report import write as report

    def run_cells(cells, root, **more):
        made = zip(cells, states, strict=True)
        return [runner.CellResult(cell, root / cell.directory, state) for cell, state in made]

    told = []
    monkeypatch.setattr(runner, "run_cells", run_cells)
    monkeypatch.setattr(report, "write_report", lambda experiment, results, root, **more: told.append(results))
    assert main(["experiment", "tiny"]) == code
    assert [result.state for result in told[0]] == states


def test_a_run_that_another_process_is_at_has_an_exit_code_of_its_own(tmp_path, capsys):
    run_dir = tmp_path / "here"
    run_dir.mkdir()
    with open(run_dir / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["train", "tracking.wandb=disabled", "--run-dir", str(run_dir)]) == BUSY == 75
    assert "another process is working on this run" in one_line_of(capsys.readouterr().err)
    assert not (run_dir / "status.json").exists()


def test_settings_may_be_written_with_hyphens_as_agents_of_wandb_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = (
        "env.num_envs=2 rollout.steps_per_iteration=16 total_iterations=1 evaluation.every=0 tracking.wandb=disabled"
    )
    settings = [f"--{item}" for item in sizes.split()]
    assert main(["train", "--quiet", *settings, "--rule.delta=0.25", "--env.id=CartPole-v1", "--run-dir", "run"]) == 0
    assert "delta: 0.25" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--rule.dleta=1"], "unknown key rule.dleta (did you mean rule.delta?)"),
        (["train", "--jobs=2"], "unknown option --jobs=2"),
        (["train", "--rule.delta"], "unknown option --rule.delta"),
        (["evaluate", "run", "--gamma=1"], "unknown option --gamma=1"),
        (["evaluate", "run", "--seed", "-1"], "--seed -1 is too small: it must be at least 0"),
    ],
)
def test_other_words_with_hyphens_are_one_line(capsys, arguments, told):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
