import csv
import math

import pytest
from synthetic_runs import ORIGIN, experiment, finished, learning, result, row

from trpo_lightning.errors import UserError
from trpo_lightning.report.write import write_report

FILES = {"learning_curves.png", "learning_curves.pdf", "runs.csv", "scores.csv", "scores.md", "report.html"}
SENSITIVITY = {"sensitivity.png", "sensitivity.pdf"}


def table(root, name):
    with open(root / "made_up/full/report" / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def two_levels(folder, **facts):
    axes = {"rule.delta": [0.01, 0.1]}
    return experiment(folder, **{"axes": axes, "environments": ["Hopper-v5", "Walker2d-v5"], **facts})


def test_all_outputs_of_an_ablation(tmp_path, capsys):
    declared = two_levels(tmp_path)
    results = finished(tmp_path, declared, {"delta=0.01": 100, "delta=0.1": 200})
    write_report(declared, results, tmp_path)
    folder = tmp_path / "made_up/full/report"
    assert {path.name for path in folder.iterdir()} == FILES | SENSITIVITY
    runs, scores = table(tmp_path, "runs.csv"), table(tmp_path, "scores.csv")
    assert len(runs) == 12 and all(line["state"] == "finished" and line["env_steps"] == "1000" for line in runs)
    assert all(float(line["wall_seconds"]) == 20 for line in runs)
    by_cell = {(line["env"], line["variant"]): line for line in scores}
    default, other = by_cell["Hopper-v5", "delta=0.01"], by_cell["Hopper-v5", "delta=0.1"]
    own = [float(line["score"]) for line in runs if (line["env"], line["variant"]) == ("Hopper-v5", "delta=0.1")]
    assert float(other["mean"]) == pytest.approx(sum(own) / 3, abs=0.02)
    assert float(other["iqm"]) == pytest.approx(sum(own) / 3, abs=0.02)  # of three values
    assert float(other["ci_low"]) <= float(other["iqm"]) <= float(other["ci_high"])
    assert (default["default"], default["improvement"], other["improvement"]) == ("yes", "", "1.0")
    assert by_cell["(all)", "delta=0.1"]["improvement"] == "1.0" and by_cell["(all)", "delta=0.1"]["mean"] == ""
    printed = capsys.readouterr().out
    assert max(map(len, printed.split("figure")[0].splitlines())) <= 80
    for name in ("learning_curves.png", "sensitivity.png", "scores.csv", "report.html"):
        assert f"{folder / name}\n" in printed
    assert printed.rstrip().endswith("seed_<n>")


def test_runs_in_any_state_are_in_every_output(tmp_path, capsys):
    declared = two_levels(tmp_path, environments=["Hopper-v5"], seeds=[0, 1, 2, 3])
    states = ["finished", "finished", "failed", "missing", "interrupted", "running", "finished", "elsewhere"]
    rows = [learning(i, iterations=3 if state != "finished" else 10) for i, state in enumerate(states)]
    cells = declared.cells()
    results = [result(tmp_path, c, r, s) for c, r, s in zip(cells, rows, states, strict=True)]
    write_report(declared, results, tmp_path)
    assert sorted(line["state"] for line in table(tmp_path, "runs.csv")) == sorted(states)
    assert sum(int(line["finished"]) for line in table(tmp_path, "scores.csv")) == 3
    printed = capsys.readouterr().out
    page = (tmp_path / "made_up/full/report/report.html").read_text(encoding="utf-8").partition("<body>")[2]
    for state in {*states} - {"finished"}:
        assert f"1 {state}: Hopper-v5 delta=" in printed and f'<span class="state {state}">' in page
    assert "failed runs are in no statistic" in printed and "failed runs are in no statistic" in page
    markdown = (tmp_path / "made_up/full/report/scores.md").read_text(encoding="utf-8")
    assert "2/4" in markdown and "1/4" in markdown and "failed runs are in no statistic" in markdown


@pytest.mark.parametrize(
    ("rows", "state"),
    [(None, "missing"), ([], "running"), ([row(1), row(2)], "finished"), ([row(1, 5.0, 1)], "finished")],
)
def test_hardly_any_data(tmp_path, capsys, rows, state):
    declared = experiment(tmp_path, seeds=[0])
    write_report(declared, [result(tmp_path, declared.cells()[0], rows, state)], tmp_path)
    (line,) = table(tmp_path, "runs.csv")
    assert line["state"] == state and line["score"] == ("5.0" if rows and rows[0]["episode/count"] else "")
    folder = tmp_path / "made_up/full/report"
    assert (folder / "learning_curves.png").exists() == (line["score"] != "")
    assert (folder / "report.html").exists()
    if state == "finished" and not line["score"]:
        assert "finished without a score: Hopper-v5 default seed 0" in capsys.readouterr().out


def test_a_figure_that_is_no_longer_true_is_removed(tmp_path):
    declared = experiment(tmp_path, seeds=[0])
    figure = tmp_path / "made_up/full/report/learning_curves.png"
    (cell,) = declared.cells()
    write_report(declared, [result(tmp_path, cell, learning())], tmp_path)
    assert figure.exists()
    write_report(declared, [result(tmp_path, cell, [])], tmp_path)
    assert not figure.exists()


def test_one_run_has_no_interval_and_that_is_said(tmp_path):
    declared = experiment(tmp_path, seeds=[0])
    write_report(declared, finished(tmp_path, declared), tmp_path)
    (line,) = table(tmp_path, "scores.csv")
    assert line["iqm"] == line["mean"] and (line["std"], line["ci_low"], line["ci_high"]) == ("", "", "")
    assert "none: one run" in (tmp_path / "made_up/full/report/scores.md").read_text()


def test_variants_without_a_common_environment_have_no_default(tmp_path, capsys):
    variants = {"a": {"env.id": "CartPole-v1"}, "b": {"env.id": "Hopper-v5"}}
    declared = experiment(tmp_path, variants=variants)
    write_report(declared, finished(tmp_path, declared), tmp_path)
    assert all(line["default"] == "" and line["improvement"] == "" for line in table(tmp_path, "scores.csv"))
    assert "P(>def)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"git": {**ORIGIN["git"], "commit": "f" * 40}}, "runs differ in code"),
        ({"packages": {"torch": "2.6.0"}}, "runs differ in packages"),
        ({"git": {**ORIGIN["git"], "diff_sha256": "a" * 64}}, "with uncommitted changes aaaaaaaaaaaa"),
        ({"machine": {"cpu": "Another"}}, "runs differ in machine"),
    ],
)
def test_runs_of_different_origin_are_a_warning(tmp_path, capsys, change, warning):
    declared = experiment(tmp_path, seeds=[0, 1])
    first, second = declared.cells()
    results = [result(tmp_path, first, learning()), result(tmp_path, second, learning(), origin={**ORIGIN, **change})]
    write_report(declared, results, tmp_path)
    assert warning in capsys.readouterr().out
    assert warning in (tmp_path / "made_up/full/report/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("iterations", "said"), [(20, True), (11, True), (10, False)])
def test_runs_that_learned_from_unequal_steps_are_a_warning(tmp_path, capsys, iterations, said):
    declared = experiment(tmp_path, seeds=[0, 1])
    first, second = declared.cells()
    results = [result(tmp_path, first, learning()), result(tmp_path, second, learning(iterations=iterations))]
    write_report(declared, results, tmp_path)
    warning = f"Hopper-v5 default: its runs end after 1,000 to {100 * iterations:,} env steps, and are pooled"
    assert (warning in capsys.readouterr().out) == said


def test_the_same_runs_give_the_same_bytes(tmp_path):
    declared = two_levels(tmp_path)
    results = finished(tmp_path, declared)
    folder = tmp_path / "made_up/full/report"
    write_report(declared, results, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_report(declared, results, tmp_path)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_runs_from_elsewhere_are_another_variant(tmp_path, capsys):
    declared = experiment(tmp_path)
    results = finished(tmp_path, declared)
    for seed in (0, 1):
        text = "".join(f"{i * 100},{i}\n" for i in range(1, 11))
        (tmp_path / f"theirs_{seed}.csv").write_text(f"step,reward\n{text}")
    write_report(declared, results, tmp_path, [f"Theirs={tmp_path}/theirs_*.csv:steps=step,return=reward"])
    rows = {line["variant"]: line for line in table(tmp_path, "scores.csv")}
    assert (rows["Theirs"]["finished"], rows["Theirs"]["improvement"], rows["default"]["default"]) == (
        "2",
        "0.0",
        "yes",
    )
    assert "2 runs came from elsewhere" in capsys.readouterr().out
    with pytest.raises(UserError, match="no file"):
        write_report(declared, results, tmp_path, [f"Theirs={tmp_path}/nothing.csv:steps=step,return=reward"])


def test_numbers_are_empty_not_nan(tmp_path):
    declared = experiment(tmp_path)
    write_report(declared, [result(tmp_path, cell, None, "missing") for cell in declared.cells()], tmp_path)
    for name in ("runs.csv", "scores.csv"):
        assert "nan" not in (tmp_path / "made_up/full/report" / name).read_text()
    assert math.isfinite(len(table(tmp_path, "runs.csv")))


def test_scores_by_definition_stand_side_by_side(tmp_path):
    declared = experiment(tmp_path)
    evaluated = [
        [{**line, "evaluation/return_mean": e} for line, e in zip(learning(i), [5, 40 + i] * 5, strict=True)]
        for i in range(3)
    ]
    for rows in evaluated:
        rows[4]["evaluation/return_mean"] = 400.0
    results = [result(tmp_path, cell, rows) for cell, rows in zip(declared.cells(), evaluated, strict=True)]
    write_report(declared, results, tmp_path)
    rows = {line["definition"]: line for line in table(tmp_path, "scores_by_definition.csv")}
    (scores,) = table(tmp_path, "scores.csv")
    assert [rows[name]["iqm"] for name in ("last_evaluation", "best_evaluation")] == ["41.0", "400.0"]
    assert rows["last_evaluation"]["std"] == "1.0" and rows["last_evaluation"]["runs"] == "3"
    shared = ("mean", "std", "iqm", "ci_low", "ci_high")
    assert [rows["last_episodes"][key] for key in shared] == [scores[key] for key in shared]
    assert "By definition" in (tmp_path / "made_up/full/report/scores.md").read_text()
    assert "best evaluation" in (tmp_path / "made_up/full/report/report.html").read_text(encoding="utf-8")
    write_report(declared, finished(tmp_path, declared), tmp_path)  # never evaluated
    assert not (tmp_path / "made_up/full/report/scores_by_definition.csv").exists()


def test_a_report_of_some_runs_leaves_that_of_all(tmp_path, capsys):
    declared = two_levels(tmp_path)
    write_report(declared, finished(tmp_path, declared), tmp_path)
    whole = table(tmp_path, "runs.csv")
    arguments = ["env.id=Hopper-v5", "seed=[0,1]", "tracking.wandb=disabled"]
    some = [result(tmp_path, cell, learning()) for cell in declared.cells(arguments)]
    write_report(declared, some, tmp_path, arguments=arguments)
    beside = tmp_path / "made_up/full/report_env.id=Hopper-v5_seed=_0,1_"
    assert table(tmp_path, "runs.csv") == whole and f"{beside / 'report.html'}\n" in capsys.readouterr().out
    assert (beside / "runs.csv").read_text(encoding="utf-8").count("\n") == 5
    write_report(declared, some, tmp_path, arguments=[f"seed={[*range(1000)]}", "env.id=Ü"])
    assert {len(path.name.encode()) <= 200 for path in beside.parent.glob("report*")} == {True}
    write_report(declared, finished(tmp_path, declared), tmp_path, arguments=["env.id=[Hopper-v5,Walker2d-v5]"])
    assert len([*beside.parent.glob("report*")]) == 3


def test_a_report_of_some_points_of_a_search_goes_beside_that_of_all(tmp_path):
    search = {"runs": 3, "ranges": {"rule.delta": {"min": 0.001, "max": 0.1}}}
    declared = experiment(tmp_path, environments=["Hopper-v5"], seeds=[0], search=search)
    write_report(declared, finished(tmp_path, declared), tmp_path)
    whole = table(tmp_path, "runs.csv")
    some = [result(tmp_path, cell, learning()) for cell in declared.cells(["rule.delta=0.05"])]
    write_report(declared, some, tmp_path, arguments=["rule.delta=0.05"])
    assert table(tmp_path, "runs.csv") == whole
    assert (tmp_path / "made_up/full/report_rule.delta=0.05/runs.csv").exists()
