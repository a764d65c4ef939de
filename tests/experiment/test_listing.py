import json
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from trpo_lightning.experiment.experiment_file import experiment_names
from trpo_lightning.experiment.listing import print_list

HEAD = "title: T\nhypothesis: H\nminutes: 1\n"
AXES = HEAD + "axes: {gamma: [0.9, 0.99]}\nenvironments: [A-v0]\nseeds: [0, 1]\nscales: {quick: {seeds: [0]}}\n"
WHEN = datetime(2026, 3, 4, 5, 6).timestamp()


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("b_axes", "c_axes"):
        (tmp_path / "experiments" / f"{name}.yaml").write_text(AXES)
    (tmp_path / "experiments" / "a_plain.yaml").write_text(HEAD)
    return tmp_path


def ran(folder, path, state, when=WHEN):
    run = folder / "runs" / path
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"state": state}))
    os.utime(run / "status.json", (when, when))


def listed(here, capsys):
    """The printed lines, without those of the checkout's own experiments."""
    print_list(here / "runs")
    printed = capsys.readouterr()
    shipped = {file.stem for file in (Path(__file__).parents[2] / "experiments").glob("*.yaml")}
    lines = [*printed.out.splitlines(), *printed.err.splitlines()]
    return [line for line in lines if line.split()[0] not in shipped]


def test_what_ran_last_stands_first_and_the_rest_by_name(here, capsys):
    ran(here, "b_axes/full/A-v0/gamma=0.9/seed_0", "finished")
    ran(here, "c_axes/quick/A-v0/gamma=0.99/seed_0", "failed", WHEN + 60)
    ran(here, "c_axes/full/A-v0/gamma=0.5/seed_0", "finished", WHEN + 90)  # not declared
    heading, *lines = listed(here, capsys)
    assert heading.split() == ["experiment", "finished/declared", "last"]
    assert [line.split() for line in lines[:3]] == [
        ["c_axes", "full", "0/4", "quick", "0/2", "2026-03-04", "05:07", "quick"],
        ["b_axes", "full", "1/4", "quick", "0/2", "2026-03-04", "05:06", "full"],
        ["a_plain", "full", "0/1"],
    ]
    assert lines[3:] == [
        "c_axes quick: 1 failed",
        f"last: {here}/runs/c_axes/quick/A-v0/gamma=0.99/seed_0 (failed)",
    ]


def test_nothing_has_run(here, capsys):
    assert [line.split()[0] for line in listed(here, capsys)] == ["experiment", "a_plain", "b_axes", "c_axes"]


def test_a_file_that_does_not_fit_is_named_below(here, capsys):
    (here / "experiments" / "b_axes.yaml").write_text("titel: T\nhypothesis: H\n")
    lines = listed(here, capsys)
    assert [line.split()[0] for line in lines[1:3]] == ["a_plain", "c_axes"]
    assert lines[3].startswith("error: ") and "unknown key titel (did you mean title?)" in lines[3]


def test_the_shipped_experiments_fit_a_terminal_and_take_a_second(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[2])
    began = time.process_time()
    print_list(tmp_path)
    assert time.process_time() - began < 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(experiment_names()) and max(map(len, lines)) + len("  2026-03-04 05:06 quick") <= 100
