"""The command: its options, what it keeps, and one run of it that measures."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from trpo_lightning import __main__
from trpo_lightning.__main__ import build_parser, main
from trpo_lightning.benchmark import command, configurations, report
from trpo_lightning.benchmark.results import Result, Target


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def options(*arguments) -> Namespace:
    return build_parser().parse_args(["benchmark", *arguments])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--sections", "ceilng"], ["--sections ceilng", "did you mean ceiling?"]),
        (["--sections", "xyz"], ["--sections xyz", "there are ceiling, peers"]),
        (["--sections", ","], ["--sections is empty"]),
        (["--repeats", "0"], ["--repeats 0 is too small"]),
        (["--steps", "-5"], ["--steps -5 is too small"]),
        (["--num-envs", "0"], ["--num-envs 0"]),
        (["--max-batch", "x"], ["--max-batch", "'x'"]),
        (["--threads", "1,two"], ["--threads two is not a number of threads"]),
        (["--threads", ","], ["--threads"]),
        (["--env", "Hoper-v5"], ["env.id=Hoper-v5", "did you mean", "Hopper-v5"]),
        (["ceiling"], ["unknown argument ceiling"]),
        (["--fast"], ["unknown option --fast"]),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, parts, capsys):
    assert main(["benchmark", *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert all(part in line for part in parts), line
    assert captured.out == "" and not Path("experiments").exists()


def test_a_foreign_result_file_is_refused_before_anything_is_measured(capsys):
    Path("out").mkdir()
    Path("out/results.json").write_text("{}")
    assert main(["benchmark", "--out", "out", "--env", "CartPole-v1"]) == 2
    assert "out/results.json: is not a result of this benchmark" in capsys.readouterr().err


def test_returns_are_measured_on_demand_only():
    everything = command.chosen_sections(None, False)
    assert everything == [name for name in command.SECTIONS if name not in ("returns", "time_to_return")]
    assert command.chosen_sections(None, True) == [name for name in command.SECTIONS if name != "time_to_return"]
    assert command.chosen_sections("update, ceiling", False) == ["ceiling", "update"]
    assert command.chosen_sections("update", True) == ["returns", "update"]
    assert command.chosen_sections("returns", False) == ["returns"]


def test_the_help_names_every_section():
    (help_text,) = (a.help for a in _actions() if "--sections" in a.option_strings)
    assert all(name in help_text for name in command.SECTIONS)


def _actions():
    return build_parser()._subparsers._group_actions[0].choices["benchmark"]._actions


def test_options_become_what_is_measured():
    bench = command.bench_of(options("--env", "CartPole-v1, Pendulum-v1", "--threads", "2,1", "--steps", "7"))
    assert bench.environments == bench.peer_environments == ["CartPole-v1", "Pendulum-v1"]
    assert bench.threads == [2, 1] and bench.steps == 7 and bench.repeats == 3
    default = command.bench_of(options())
    assert default.environments == ["Hopper-v5", "HalfCheetah-v5", "Humanoid-v5"]
    assert default.peer_environments == ["Hopper-v5", "HalfCheetah-v5"] and 1 in default.threads


def test_sections_that_are_not_measured_again_keep_their_results(monkeypatch, capsys):
    value = [1.0]

    def section(bench):
        bench.note("take care")
        return [Result("where", "what", "x", (value[0],), Target(2.0))]

    monkeypatch.setattr(command, "SECTIONS", {"ceiling": section, "update": section})
    arguments = ["benchmark", "--env", "CartPole-v1", "--out", "out"]
    monkeypatch.setattr("sys.argv", [__main__.__file__, *arguments])
    assert main([*arguments, "--sections", "ceiling,update"]) == 0
    value[0] = 3.0
    assert main([*arguments, "--sections", "update"]) == 0
    kept = json.loads(Path("out/results.json").read_text())["sections"]
    assert [kept[name]["results"][0]["values"] for name in ("ceiling", "update")] == [[1.0], [3.0]]
    assert kept["ceiling"]["notes"] == ["take care"] and (
        kept["ceiling"]["command"] == "python -m trpo_lightning benchmark --env CartPole-v1 --out out"
    )
    assert kept["ceiling"]["provenance"]["packages"]["torch"]
    shown = capsys.readouterr().out
    assert "note: take care" in shown and "1 of 1 targets met; everything is in out" in shown
    table = Path("out/table.md").read_text()
    assert "| ceiling |" in table and "| missed |" in table and "| met |" in table


def test_no_number_at_all_is_a_failure(monkeypatch):
    monkeypatch.setattr(command, "SECTIONS", {"update": lambda bench: [Result("", "", "x")]})
    assert main(["benchmark", "--env", "CartPole-v1", "--out", "out", "--sections", "update"]) == 1


def test_the_ceiling_is_measured_in_processes_of_their_own(monkeypatch, capsys):
    for key, small in {"rollout.steps_per_iteration": 64, "tracking.wandb": "disabled"}.items():
        monkeypatch.setitem(configurations.BENCHMARK, key, small)
    sizes = ("--num-envs", "4", "--steps", "300", "--repeats", "1", "--threads", "1")
    assert main(["benchmark", "--sections", "ceiling", "--env", "CartPole-v1", "--out", "out", *sizes]) == 0
    captured = capsys.readouterr()
    assert "note:" not in captured.out and captured.err == ""
    alone, training, ratio = report.read(Path("out"))["ceiling"]["results"]
    assert alone.values[0] > 0 and training.values[0] > 0
    assert ratio.median == pytest.approx(training.median / alone.median)
    assert "CartPole-v1, 1 thread" in Path("out/table.md").read_text()
    assert not list(Path().rglob("run_*"))
