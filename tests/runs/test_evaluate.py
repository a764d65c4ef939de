"""`evaluate` on a real run: the table, the file, the video."""

import json

import imageio.v3 as iio
import pytest

from trpo_lightning import load
from trpo_lightning.__main__ import main
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.run import train_run

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # imageio's pipes to ffmpeg


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    keys = ["env.id=CartPole-v1", "env.num_envs=8", "rollout.steps_per_iteration=512", "total_env_steps=1000"]
    keys += ["evaluation.every=1", "tracking.wandb=disabled", "threads=1"]
    train_run(load_settings(keys), folder, quiet=True)
    return folder


def test_the_table_and_the_file_agree(run_dir, capsys):
    assert main(["evaluate", str(run_dir), "--episodes", "3"]) == 0
    record = json.loads((run_dir / "evaluation.json").read_text())
    output = capsys.readouterr().out
    for name in ("deterministic", "stochastic"):
        assert len(record[name]["returns"]) == 3
        assert f"{record[name]['mean']:.1f}" in output and name in output


def test_each_policy_has_its_own_file(run_dir):
    assert main(["evaluate", str(run_dir), "--episodes", "2"]) == 0
    last = (run_dir / "evaluation.json").read_text()
    assert main(["evaluate", str(run_dir), "--episodes", "3", "--policy", "best"]) == 0
    assert (run_dir / "evaluation.json").read_text() == last
    best = json.loads((run_dir / "evaluation_best.json").read_text())
    assert (best["policy"], len(best["deterministic"]["returns"])) == ("best", 3)


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_video_shows_the_episode(run_dir, capsys, which):
    assert main(["evaluate", str(run_dir), "--episodes", "1", "--video", "--policy", which]) == 0
    length = float(capsys.readouterr().out.rpartition("return ")[2].split(")")[0])  # a step's reward is 1
    frames = iio.imread(run_dir / f"video_{which}.mp4")
    assert len(frames) == length and frames[0].std() > 0
    assert (frames[0] != frames[-1]).any()


def test_bad_calls_are_one_line(run_dir, tmp_path, capsys):
    for arguments in (
        ["evaluate", str(tmp_path)],
        ["evaluate", str(tmp_path / "nothing")],
        ["evaluate", str(run_dir), "--episodes", "0"],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


def test_a_policy_file_is_evaluated_as_what_it_is(run_dir, tmp_path, capsys):
    """One of a run as by `--policy`, though `last` is the default; any other under its own name, beside it."""
    (run_dir / "evaluation.json").unlink(missing_ok=True)
    assert main(["evaluate", str(run_dir / "checkpoints" / "best.pt"), "--episodes", "2"]) == 0
    assert f"written: {run_dir / 'evaluation_best.json'}" in capsys.readouterr().out
    assert not (run_dir / "evaluation.json").exists()
    for name in ("early", "late"):
        load(run_dir).save(tmp_path / f"{name}.pt")
        assert main(["evaluate", str(tmp_path / f"{name}.pt"), "--episodes", "1"]) == 0
    assert "late policy after" in capsys.readouterr().out
    assert {file.name for file in tmp_path.glob("*.json")} == {"evaluation_early.json", "evaluation_late.json"}


def test_checkpoints_of_others_in_a_folder_of_that_name_are_themselves(run_dir, tmp_path, capsys, monkeypatch):
    (tmp_path / "config.yaml").write_text("model: {}\n", encoding="utf-8")
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        load(run_dir).save(tmp_path / "checkpoints" / name)
    assert main(["evaluate", str(tmp_path / "checkpoints" / "last.ckpt"), "--episodes", "1"]) == 0
    assert {file.name for file in (tmp_path / "checkpoints").glob("*.json")} == {"evaluation_last.json"}
    (run_dir / "evaluation_best.json").unlink(missing_ok=True)
    monkeypatch.chdir(run_dir / "checkpoints")
    assert main(["evaluate", "best.pt", "--episodes", "1"]) == 0
    assert (run_dir / "evaluation_best.json").exists() and not [*(run_dir / "checkpoints").glob("*.json")]
    capsys.readouterr()
    assert main(["evaluate", "last.pt", "--policy", "best"]) == 2
    assert "--policy best goes with a run directory" in capsys.readouterr().err
