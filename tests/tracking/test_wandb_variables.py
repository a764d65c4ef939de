"""W&B's own variables hold where settings say nothing, and are recorded."""

import json
import os
import shutil
import time

import pytest
from wandb_records import offline_history

from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.runs.config import load_settings, recorded_settings
from trpo_lightning.runs.run import train_run
from trpo_lightning.settings import from_keywords
from trpo_lightning.tracking.wandb_client import resolve_mode
from trpo_lightning.tracking.wandb_variables import recorded_variables, records_folder, with_variables

SMALL = """env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 rollout.steps_per_iteration=32 total_iterations=1
    policy.hidden_sizes=[4] value.name=none evaluation.every=0 threads=1""".split()
VARIABLES = {"PROJECT": "theirs", "ENTITY": "team", "RUN_GROUP": "010", "TAGS": "a, 1.10,", "NAME": "my run"}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def variables(monkeypatch):
    for name, text in VARIABLES.items():
        monkeypatch.setenv(f"WANDB_{name}", text)


def test_variables_stand_in_for_defaults(variables):
    tracking = with_variables(from_keywords()).tracking
    assert (tracking.project, tracking.entity, tracking.group, tracking.tags) == (
        "theirs",
        "team",
        "010",
        ["a", "1.10"],
    )


def test_settings_go_before_variables(variables):
    mine = {"project": "mine", "entity": "me", "group": "g", "tags": ["t"]}
    before = from_keywords(tracking=mine)
    assert with_variables(before) == before


def test_without_variables_settings_are_as_they_were(monkeypatch):
    monkeypatch.setenv("WANDB_TAGS", " , ")
    monkeypatch.setenv("WANDB_PROJECT", "")
    assert with_variables(from_keywords()) == from_keywords() and recorded_variables() == {"WANDB_TAGS": ","}


def test_a_run_records_them_and_goes_on_under_them(variables, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    train_run(load_settings([*SMALL, "tracking.wandb=offline"]), tmp_path, quiet=True)
    wandb.teardown()
    settings = recorded_settings(tmp_path)
    assert (settings.tracking.project, settings.tracking.group) == ("theirs", "010")
    (record,) = json.loads((tmp_path / "provenance.json").read_text())
    assert record["wandb_variables"] == {f"WANDB_{name}": text.strip() for name, text in VARIABLES.items()}
    assert "f" * 40 not in (tmp_path / "provenance.json").read_text()
    monkeypatch.setenv("WANDB_PROJECT", "another")
    assert with_variables(settings).tracking.project == "theirs"


def test_runs_of_an_experiment_are_in_the_group_that_the_variable_names(monkeypatch):
    assert load_experiment("quickstart").cells()[0].settings.tracking.group == "quickstart"
    monkeypatch.setenv("WANDB_RUN_GROUP", "night")
    assert load_experiment("quickstart").cells()[0].settings.tracking.group == "night"


@pytest.mark.parametrize(
    ("text", "mode"), [("true", "disabled"), ("1", "disabled"), ("false", "offline"), ("", "offline")]
)
def test_disabled_is_disabled_where_the_setting_is_auto(monkeypatch, text, mode):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DISABLED", text)
    assert resolve_mode("auto") == mode and resolve_mode("online") == "online"


def test_records_are_where_the_variable_says_and_resuming_finds_them(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    elsewhere, run_dir = tmp_path / "node" / "scratch", tmp_path / "run"
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    small = [*SMALL, "tracking.wandb=offline", "checkpoint.every=1"]
    train_run(load_settings([*small, "total_iterations=1"]), run_dir, quiet=True)
    time.sleep(1.0)  # the client names its records by the second
    monkeypatch.delenv("WANDB_DIR")  # another machine, another job script
    train_run(load_settings([*small, "total_iterations=2"]), run_dir, resume=True, quiet=True)
    time.sleep(1.0)
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    train_run(load_settings([*small, "total_iterations=3"]), run_dir, resume=True, quiet=True)
    wandb.teardown()
    records = sorted((run_dir / "wandb").glob("offline-run-*"))
    assert [folder.resolve().parent for folder in records] == [
        elsewhere / "wandb",
        run_dir / "wandb",
        elsewhere / "wandb",
    ]
    assert [row["iteration"] for row in offline_history(run_dir)] == [1, 2, 3]  # what `wandb sync` sends


def test_records_that_are_gone_are_sent_again(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    elsewhere, run_dir = tmp_path / "scratch", tmp_path / "run"
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    small = [*SMALL, "tracking.wandb=offline", "checkpoint.every=1"]
    train_run(load_settings([*small, "total_iterations=1"]), run_dir, quiet=True)
    wandb.teardown()
    shutil.rmtree(elsewhere)
    time.sleep(1.0)  # the client names its records by the second
    train_run(load_settings([*small, "total_iterations=2"]), run_dir, resume=True, quiet=True)
    wandb.teardown()
    assert [row["iteration"] for row in offline_history(run_dir)] == [1, 2]


def test_a_folder_for_records_that_cannot_be_used_is_said(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file" / "below"))
    assert records_folder(tmp_path / "run") == tmp_path / "run"
    assert "is not used" in capsys.readouterr().out
