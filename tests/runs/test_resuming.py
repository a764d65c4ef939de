"""What cannot change a result may change on resume; the rest is refused with a list that is made from the code."""

import re

import pytest

from trpo_lightning.__main__ import main
from trpo_lightning.errors import UserError
from trpo_lightning.runs.config import recorded_settings
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.settings import RESUMABLE, RunSettings, changed_keys, from_keywords, keys, what_may_change

SMALL = """env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 env.max_episode_steps=20
    rollout.steps_per_iteration=32 policy.hidden_sizes=[4] value.name=none checkpoint.every=1
    evaluation.every=0 tracking.wandb=disabled threads=1""".split()
MAY = [
    *("env.timeout=7", "env.timeout=null", "env.restarts=2", "evaluation.every=1", "evaluation.episodes=2"),
    *("rule.max_rejections=null", "tracking.project=p", "tracking.tags=[a]", "tracking.group=g", "threads=2"),
]


@pytest.fixture
def run_dir(tmp_path):
    assert main(["train", "--quiet", *SMALL, "total_iterations=1", "--run-dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_a_run_goes_on_with_other_supervision_evaluation_tracking_and_threads(run_dir, capsys):
    assert main(["train", "--quiet", "--resume", str(run_dir), *MAY, "env.timeout=9", "total_iterations=2"]) == 0
    assert "threads changes: from here on the last bits" in capsys.readouterr().out
    settings = recorded_settings(run_dir)
    assert (settings.env.timeout, settings.env.restarts, settings.evaluation.every) == (9, 2, 1)
    rows = read_rows(run_dir / "metrics.csv")
    assert [bool(row["evaluation/return_mean"]) for row in rows] == [False, True]


@pytest.mark.parametrize("override", ["checkpoint.every=2", "rule.delta=0.5", "seed=1", "env.kwargs.a=1", "gamma=0.5"])
def test_what_changes_results_is_refused_with_what_may_change(run_dir, capsys, override):
    assert main(["train", "--resume", str(run_dir), override]) == 2
    told = capsys.readouterr().err
    key = "env.kwargs" if override.startswith("env.kwargs") else override.partition("=")[0]
    assert f"{key} cannot change" in told
    for free in ("env.timeout", "env.restarts", "evaluation.*", "tracking.*", "threads", "total_iterations"):
        assert free in told


def test_the_list_names_every_key_that_may_change_and_no_key_that_may_not():
    free = [key for key in keys() if key.startswith(RESUMABLE)]
    told = re.findall(r"[\w.]+", what_may_change().replace("rule.annealing_steps", ""))
    for key in free:
        group = f"{key.partition('.')[0]}.*"
        assert key in what_may_change() or group in what_may_change(), key
    assert not [key for key in keys() if key not in free and key in told]


def test_an_experiment_takes_runs_that_differ_in_such_keys_for_the_same(tmp_path):
    from trpo_lightning.experiment.declaration import Cell
    from trpo_lightning.experiment.launchers.launcher import PlannedRun
    from trpo_lightning.experiment.launchers.process import train_command
    from trpo_lightning.experiment.runner import _check

    before = from_keywords(threads=1)
    after = from_keywords(threads=1, env={"timeout": 7.0}, evaluation={"every": 3})
    from trpo_lightning.runs.config import write_config

    write_config(before, tmp_path / "config.yaml")
    (tmp_path / "status.json").write_text('{"state": "interrupted"}')
    cell = Cell(after, {}, tmp_path)
    _check(cell, tmp_path, False)
    command = train_command(PlannedRun(after, tmp_path), tmp_path)
    assert "env.timeout=7.0" in command and "evaluation.every=3" in command
    with pytest.raises(UserError, match=r"other settings \(gamma\)"):
        _check(Cell(from_keywords(threads=1, gamma=0.5), {}, tmp_path), tmp_path, False)
    assert changed_keys(RunSettings(), after) == []
