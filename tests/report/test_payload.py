import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_runs import experiment, finished, read_data

from trpo_lightning.report.page import payload as module
from trpo_lightning.report.page.payload import metric_names, rows_in_one, thinned
from trpo_lightning.report.records import read_record
from trpo_lightning.report.write import write_report


def records_of(folder, **facts):
    declared = experiment(folder, **facts)
    return [read_record(done, declared) for done in finished(folder, declared)]


def test_a_block_of_rows_is_its_last_number_and_the_last_row_stays():
    values = np.array([1, 2, 3, np.nan, 5, np.nan, np.nan, np.nan])
    assert thinned(values, 1) is values
    np.testing.assert_array_equal(thinned(values, 3), [2, 5, np.nan])
    np.testing.assert_array_equal(thinned(values[:4], 2), [2, 3])
    assert len(thinned(np.empty(0), 3)) == 0


def test_few_rows_are_all_in_the_page_and_many_are_thinned_evenly(tmp_path, monkeypatch):
    declared = experiment(tmp_path)
    results = finished(tmp_path, declared)  # 3 runs of 10 rows
    monkeypatch.setattr(module, "MOST_ROWS", 12)
    write_report(declared, results, tmp_path)
    data = read_data(tmp_path / "made_up/full/report/report.html")
    assert data["every"] == 3 and [run["columns"]["iteration"] for run in data["runs"]] == [[1, 4, 7, 10]] * 3
    assert rows_in_one(records_of(tmp_path)[:1]) == 1


def test_metrics_are_those_with_numbers_with_others_last(tmp_path):
    first, *rest = records_of(tmp_path)
    own = replace(first, columns={"mine/new": np.ones(10), "mine/empty": np.full(10, np.nan), **first.columns})
    names = metric_names([own, *rest])
    assert names[:3] == ["iteration", "env_steps", "episode/return_mean"] and names[-1] == "mine/new"
    assert "mine/empty" not in names and "policy/entropy" not in names


def test_rows_are_in_the_page_once_with_whole_numbers_whole(tmp_path):
    declared = experiment(tmp_path, seeds=[0])
    write_report(declared, finished(tmp_path, declared), tmp_path)
    data = read_data(tmp_path / "made_up/full/report/report.html")
    (run,) = data["runs"]
    assert run["columns"]["env_steps"] == list(range(100, 1100, 100)) and run["columns"]["seconds"][-1] == 20
    assert data["every"] == 1 and set(run["columns"]) - {"seconds"} == set(data["about"])
    assert (
        json.dumps(data).count("return_mean")
        == json.dumps({"a": data["about"], "n": data["names"]}).count("return_mean") + 2
    )  # its rows, and the name of the experiment's metric


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_null(value):
    assert module._number(value) is None
