"""`metrics.csv` takes any metric, at any time, and never loses a row."""

import os
import signal
import subprocess
import sys

import pytest

from trpo_lightning.report.records import numeric_columns
from trpo_lightning.runs.metrics_file import MetricsFile, read_rows
from trpo_lightning.training.metrics import METRICS


def row(iteration, **more):
    return {"iteration": iteration, "env_steps": 64 * iteration, **more}


def write(path, *rows, keep=0):
    file = MetricsFile(path, keep)
    for one in rows:
        file.log_metrics(one)
    file.close()


def test_a_name_that_nobody_declared_becomes_a_column_in_the_middle_of_a_run(tmp_path):
    path = tmp_path / "metrics.csv"
    write(path, row(1), row(2, **{"my/metric": 0.5}), row(3), row(4, **{"my/text": "a, b", "my/metric": 1.5}))
    assert path.read_text().splitlines()[0].split(",") == [*METRICS, "my/metric", "my/text"]
    rows = read_rows(path)
    assert [one["my/metric"] for one in rows] == ["", "0.5", "", "1.5"]
    assert [one["my/text"] for one in rows] == ["", "", "", "a, b"]
    assert [one["iteration"] for one in rows] == ["1", "2", "3", "4"]


def test_a_resumed_file_keeps_the_columns_of_the_rows_it_keeps(tmp_path):
    path = tmp_path / "metrics.csv"
    write(path, row(1, **{"my/kept": 1.0}), row(2), row(3, **{"my/cut": 1.0}))
    write(path, row(3, **{"my/new": 2.0}), keep=2)
    assert path.read_text().splitlines()[0].split(",") == [*METRICS, "my/kept", "my/new"]
    assert [one["my/kept"] for one in read_rows(path)] == ["1.0", "", ""]


def test_older_files_lack_columns_and_that_is_no_error(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,env_steps,their/own\n1,64,7\n")
    assert read_rows(path) == [{**dict.fromkeys(METRICS, ""), "iteration": "1", "env_steps": "64", "their/own": "7"}]


@pytest.mark.parametrize("at", range(3))
def test_a_process_killed_while_the_header_grows_leaves_the_old_file_or_the_new_one(tmp_path, at):
    """Killed before the temporary file is written, before it is renamed, and right after."""
    path = tmp_path / "metrics.csv"
    program = f"""
import os, signal, sys
from pathlib import Path
from trpo_lightning.runs.metrics_file import MetricsFile
file = MetricsFile(Path({str(path)!r}))
file.log_metrics({{"iteration": 1, "env_steps": 64}})
kill, rename, sync = (lambda *_: os.kill(os.getpid(), signal.SIGKILL)), os.replace, os.fsync
if {at} == 0: os.fsync = kill
if {at} == 1: os.replace = kill
if {at} == 2: os.replace = lambda *names: (rename(*names), kill())
file.log_metrics({{"iteration": 2, "env_steps": 128, "my/metric": 1.0}})
"""
    done = subprocess.run([sys.executable, "-c", program], env=os.environ.copy(), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (only,) = read_rows(path)
    assert (only["iteration"], only["env_steps"]) == ("1", "64")
    write(path, row(2, **{"my/metric": 1.0}), keep=1)
    assert [one["my/metric"] for one in read_rows(path)] == ["", "1.0"]


def test_the_report_has_numbers_of_any_name_and_leaves_texts_out(tmp_path):
    path = tmp_path / "metrics.csv"
    write(path, row(1, **{"my/metric": 0.5, "my/text": "words"}), row(2, **{"my/metric": 1.5}))
    columns = numeric_columns(read_rows(path), path)
    assert columns["my/metric"].tolist() == [0.5, 1.5] and "my/text" not in columns
