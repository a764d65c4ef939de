import csv
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.experiment.progress import ProgressView, labels
from trpo_lightning.training.metrics import METRICS


def cells_of(**keywords):
    heads = {"title": "T", "hypothesis": "H", "minutes": 1.0}
    overrides = {"env.id": "CartPole-v1", "total_env_steps": 1000, **keywords.pop("overrides", {})}
    return Experiment(name="e", scale="full", file=Path("e.yaml"), overrides=overrides, **heads, **keywords).cells()


class Screen:
    """A view of runs below a folder, and what it printed."""

    def __init__(self, root, cells, *, terminal=False, log_lines=True, width=100):
        self.root, self.cells = root, cells
        self.text = StringIO()
        console = Console(file=self.text, force_terminal=terminal, width=width, highlight=False, color_system=None)
        self.view = ProgressView(cells, root, log_lines, console)
        self.run_dirs = [root / cell.directory for cell in cells]

    def lines(self):
        return [line.rstrip() for line in self.text.getvalue().splitlines()]


def row(iteration, env_steps, rate=100.0, **more):
    values = {"iteration": iteration, "env_steps": env_steps, "time/steps_per_second": rate, **more}
    return [str(values.get(name, "")) for name in METRICS]


def write_rows(run_dir, *rows, tail=""):
    run_dir.mkdir(parents=True, exist_ok=True)
    temporary = run_dir / "new"
    with open(temporary, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([list(METRICS), *rows])
        file.write(tail)
    temporary.replace(run_dir / "metrics.csv")


def append(run_dir, text):
    with open(run_dir / "metrics.csv", "a") as file:
        file.write(text)


def test_each_new_row_is_one_line(tmp_path):
    screen = Screen(tmp_path, cells_of(seeds=[0, 12]))
    with screen.view as view:
        for run_dir in screen.run_dirs:
            view.started(run_dir)
        write_rows(screen.run_dirs[0], row(1, 64, **{"episode/return_mean": 19.5, "trust_region/kl": 0.0098}))
        view.update(screen.run_dirs)
        view.update(screen.run_dirs)
        append(screen.run_dirs[0], ",".join(row(2, 128)) + "\n")
        reason = 'a reason, "quoted"'
        write_rows(screen.run_dirs[1], row(1, 64, **{"update/rejection_reason": reason, "update/rejected": 1}))
        view.update(screen.run_dirs)
        view.ended(screen.run_dirs[0], "finished", "")
        view.ended(screen.run_dirs[1], "failed", "failed: [Errno 2] no [/such] file")
    header, *lines = screen.lines()
    assert header.split() == ["run", "iteration", "env", "steps", "return", "KL", "steps/s"]
    assert [line.split() for line in lines] == [
        ["CartPole-v1", "default", "seed", "0", "1", "64", "19.5", "0.0098", "100"],
        ["CartPole-v1", "default", "seed", "0", "2", "128", "-", "-", "100"],
        ["CartPole-v1", "default", "seed", "12", "1", "64", "-", "-", "100", "rejected:", *reason.split()],
        ["CartPole-v1", "default", "seed", "0", "finished"],
        ["CartPole-v1", "default", "seed", "12", "failed:", "[Errno", "2]", "no", "[/such]", "file"],
    ]


def test_many_runs_only_say_when_they_start_and_end(tmp_path):
    screen = Screen(tmp_path, cells_of(), log_lines=False)
    with screen.view as view:
        view.started(screen.run_dirs[0])
        write_rows(screen.run_dirs[0], row(1, 64))
        view.update(screen.run_dirs)
        view.ended(screen.run_dirs[0], "finished", "")
    assert screen.lines() == ["CartPole-v1 default seed 0  started", "CartPole-v1 default seed 0  finished"]


def test_a_last_line_that_is_not_whole_waits_for_its_rest(tmp_path):
    screen = Screen(tmp_path, cells_of())
    (run_dir,) = screen.run_dirs
    second = ",".join(row(2, 128)) + "\n"
    with screen.view as view:
        view.started(run_dir)
        write_rows(run_dir, row(1, 64), tail=second[:5])
        view.update([run_dir])
        assert view.runs[run_dir].env_steps == 64
        append(run_dir, second[5:])
        view.update([run_dir])
        assert view.runs[run_dir].env_steps == 128
    assert len(screen.lines()) == 3


@pytest.mark.parametrize("kept_rows_are_longer", [False, True])
def test_a_file_cut_on_resume_is_read_anew_and_its_old_rows_are_not_shown_again(tmp_path, kept_rows_are_longer):
    screen = Screen(tmp_path, cells_of())
    (run_dir,) = screen.run_dirs
    write_rows(run_dir, row(1, 60), row(2, 120), row(3, 180))
    with screen.view as view:
        view.started(run_dir)
        assert view.runs[run_dir].env_steps == 180
        long = {"episode/return_mean": 1 / 3, "trust_region/kl": 1 / 3, "policy/entropy": 1 / 3, "value/loss": 1 / 3}
        more = long if kept_rows_are_longer else {}
        write_rows(run_dir, row(1, 60, **more), row(2, 120, **more))
        view.update([run_dir])
        assert view.runs[run_dir].env_steps == 120
        append(run_dir, ",".join(row(3, 181)) + "\n")
        view.update([run_dir])
        assert view.runs[run_dir].env_steps == 181
    assert [line.split()[4:6] for line in screen.lines()[1:]] == [["3", "181"]]


def test_rows_of_another_version_are_left_out(tmp_path):
    screen = Screen(tmp_path, cells_of())
    (run_dir,) = screen.run_dirs
    with screen.view as view:
        view.started(run_dir)
        write_rows(run_dir, ["1", "64"], row(1, 64))
        view.update([run_dir])
    assert len(screen.lines()) == 2


def test_the_summary_counts_runs_and_tells_speed_and_time_left(tmp_path):
    cells = cells_of(seeds=[0, 1, 2, 3, 4])
    screen = Screen(tmp_path, cells)
    view, dirs = screen.view, screen.run_dirs
    assert view.summary() == "5 waiting   0%"
    view.ended(dirs[0], "finished", "finished before")
    view.ended(dirs[1], "elsewhere", "another process is working on it")
    view.started(dirs[2])
    view.started(dirs[3])
    assert view.summary() == "2 running · 1 finished · 1 elsewhere · 1 waiting   20%"
    write_rows(dirs[2], row(1, 100, rate=50.0), row(2, 200, rate=25.0))  # 6 seconds for 200 steps
    write_rows(dirs[3], row(1, 400, rate=100.0))
    view.update(dirs[2:4])
    # 800 steps at 33.3/s are 24 s, 600 at 100/s 6 s, and 1000 at their mean 15 s and 5 to start: 50 s for two at a time
    assert view.summary() == "2 running · 1 finished · 1 elsewhere · 1 waiting   32%   133 steps/s   25 s left"
    view.ended(dirs[3], "failed", "failed: so")
    view.ended(dirs[2], "interrupted", "stopped")
    assert view.summary().startswith("1 finished · 1 failed · 1 interrupted · 1 elsewhere · 1 waiting")


def test_time_left_goes_by_the_speed_of_the_same_environment(tmp_path):
    cells = cells_of(variants={"slow": {"env.id": "Hopper-v5"}, "fast": {}}, seeds=[0, 1])
    screen = Screen(tmp_path, cells)
    view, dirs = screen.view, screen.run_dirs
    for run_dir, rate in zip(dirs[:2], (1.0, 1000.0), strict=True):
        view.started(run_dir)
        write_rows(run_dir, row(1, 500, rate=rate))
    view.update(dirs[:2])
    assert view.summary().endswith("17 min left")  # the slow one that waits: 1005 s


def test_earlier_work_does_not_count_as_speed(tmp_path):
    screen = Screen(tmp_path, cells_of())
    write_rows(screen.run_dirs[0], row(1, 500, rate=10.0))
    screen.view.started(screen.run_dirs[0])
    assert screen.view.summary() == "1 running   50%   10 steps/s   50 s left"


def test_a_terminal_shows_bars_below_the_lines_and_leaves_none(tmp_path):
    screen = Screen(tmp_path, cells_of(seeds=[0, 1]), terminal=True)
    with screen.view as view:
        view.started(screen.run_dirs[0])
        write_rows(screen.run_dirs[0], row(1, 250, rate=50.0))
        view.update(screen.run_dirs[:1])
        view._live.refresh()
        shown = screen.text.getvalue()
        assert "1 running · 1 waiting   12%   50 steps/s   40 s left" in shown
        assert re.search(r"CartPole-v1 default seed 0 .*25 %", shown)
        assert len(re.findall(r"CartPole-v1 default seed 0 +1 +250 ", shown)) == 1
        view.ended(screen.run_dirs[0], "finished", "")
    assert screen.text.getvalue().endswith("\x1b[2K")  # the last thing is that the bars are erased


def test_stopping_is_said_once(tmp_path):
    screen = Screen(tmp_path, cells_of())
    with screen.view as view:
        view.started(screen.run_dirs[0])
        view.stopping = True
        for _ in range(3):
            view.update(screen.run_dirs)
    assert screen.text.getvalue().count("stopping: each run ends after its iteration") == 1


def test_lines_fit_100_columns_in_a_terminal_and_are_whole_in_a_file(tmp_path):
    axes = {"rule.delta": [0.01, 0.02], "rule.damping": [0.1, 0.05], "rollout.steps_per_iteration": [2048, 4096]}
    cells = cells_of(axes=axes)
    lines = {}
    for terminal in (False, True):
        screen = Screen(tmp_path / str(terminal), cells, terminal=terminal)
        with screen.view as view:
            for run_dir in screen.run_dirs:
                view.started(run_dir)
                values = {"evaluation/return_mean": 4999.9, "episode/return_mean": 4999.9, "trust_region/kl": 0.0099}
                write_rows(run_dir, row(10_000, 10_000_000, rate=10_000.0, **values))
            view.update(screen.run_dirs)
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.text.getvalue()).replace("\r", "\n")
        lines[terminal] = [line for line in plain.split("\n") if "evaluation 4999.9" in line]
        assert len(lines[terminal]) == 8
    assert max(map(len, lines[True])) <= 100
    assert any("delta=0.02,damping=0.05,steps_per_iteration=4096 seed 0 " in line for line in lines[False])


def test_labels_leave_out_an_environment_that_all_share_before_they_are_cut():
    short = cells_of(seeds=[0, 1])
    assert labels(short, 26) == ["CartPole-v1 default seed 0", "CartPole-v1 default seed 1"]
    assert labels(short, 25) == ["default seed 0", "default seed 1"]
    assert labels(short, 11) == ["defau…eed 0", "defau…eed 1"]


@pytest.mark.parametrize(
    ("steps", "told"),
    [(89, "89 s left"), (600, "10 min left"), (5000, "83 min left"), (12_000, "3 h 20 min left")],
)
def test_time_left_is_told_in_fitting_units(tmp_path, steps, told):
    screen = Screen(tmp_path, cells_of(overrides={"total_env_steps": steps + 1}))
    screen.view.started(screen.run_dirs[0])
    write_rows(screen.run_dirs[0], row(1, 1, rate=1.0))
    screen.view.update(screen.run_dirs)
    assert screen.view.summary().endswith(told)
