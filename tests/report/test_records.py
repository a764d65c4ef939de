import math
from typing import Any

import numpy as np
import pytest
from synthetic_runs import ORIGIN, experiment, learning, result, row

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.experiment_file import SCORES
from trpo_lightning.report.records import (
    iteration_seconds,
    kept,
    numeric_columns,
    read_record,
    score_definition,
    score_of,
    worst_stretch,
)


def columns(rows):
    return numeric_columns([{name: str(value) for name, value in r.items()} for r in rows], "a file")


def read(folder, rows, state="finished", **facts):
    declared = experiment(folder, **facts)
    return read_record(result(folder, declared.cells()[0], rows, state), declared)


def test_last_episodes_by_hand():
    rows = [row(1, 1000.0, 50), row(2), row(3, 10.0, 60), row(4, 20.0, 30), row(5)]
    assert score_of(columns(rows), "last_episodes") == (1000 * 50 + 10 * 60 + 20 * 30) / 140
    assert score_of(columns([*rows, row(6, 4.0, 10)]), "last_episodes") == (10 * 60 + 20 * 30 + 4 * 10) / 100
    assert score_of(columns([row(1, 3.0, 1)]), "last_episodes") == 3.0


def test_lifetime_is_the_area_over_env_steps():
    rows = [{"env_steps": 0, "x": 0.0}, {"env_steps": 10, "x": 10.0}, {"env_steps": 20, "x": ""}]
    rows += [{"env_steps": 40, "x": 10.0}]
    assert score_of(columns(rows), "lifetime", "x") == (5 * 10 + 10 * 30) / 40
    assert score_of(columns(rows[:1]), "lifetime", "x") == 0.0


def test_evaluations():
    rows = [{**row(i), "evaluation/return_mean": value} for i, value in enumerate(["", 5.0, 9.0, 7.0, ""])]
    assert score_of(columns(rows), "last_evaluation") == 7 and score_of(columns(rows), "best_evaluation") == 9


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("rows", [[], [row(1)], [row(1), row(2)]])
def test_nothing_to_score(score, rows):
    assert math.isnan(score_of(columns(rows), score))
    assert len(score_definition(score, "episode/return_mean")) > 20


def test_a_record(tmp_path):
    times: dict[str, Any] = {"time/collect": 3.0, "time/simulator": 2.0, "time/inference": 1.0, "time/cg": 0.5}
    rows = [row(1, **times), row(2, 5.0, 2, **{"evaluation/return_mean": 7.5}), row(3), row(4, 6.0, 2, **times)]
    found = read(tmp_path, rows)
    steps, returns = found.curve("episode/return_mean")
    assert steps.tolist() == [200, 400] and returns.tolist() == [5.0, 6.0]
    assert (found.score, found.evaluation, found.steps_per_second, found.env_steps) == (5.5, 7.5, 2500.0, 400)
    assert found.wall_seconds == pytest.approx(100 / 1000 + 100 / 2000 + 100 / 3000 + 100 / 4000)
    assert found.provenance == [ORIGIN] and found.notes == () and found.finished


def test_a_missing_run_is_a_record_without_rows(tmp_path):
    found = read(tmp_path, None, "missing")
    assert found.state == "missing" and found.env_steps == 0 and math.isnan(found.score) and not found.finished
    assert math.isnan(found.wall_seconds) and math.isnan(found.steps_per_second) and found.provenance == []
    assert found.curve("episode/return_mean")[0].size == 0


@pytest.mark.parametrize("torn", ["3,300", "3,300,8.5,1,1,,,", "3", "\x00\x00\x00"])
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    declared = experiment(tmp_path)
    done = result(tmp_path, declared.cells()[0], [row(1, 5.0, 1), row(2, 6.0, 1)])
    with open(done.run_dir / "metrics.csv", "a", encoding="utf-8") as file:
        file.write(torn)
    assert read_record(done, declared).curve("episode/return_mean")[1].tolist() == [5.0, 6.0]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "iteration,loss\n1,2\n", "\n", "", "PK\x03\x04\x00\xff"])
def test_a_foreign_file_is_one_line(tmp_path, text):
    declared = experiment(tmp_path)
    done = result(tmp_path, declared.cells()[0], None)
    (done.run_dir / "metrics.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_record(done, declared)
    assert str(done.run_dir / "metrics.csv") in str(error.value) and "\n" not in str(error.value)


def test_a_text_among_numbers_names_file_and_column(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.csv: column episode/return_mean: .*'many'"):
        read(tmp_path, [row(1, "many", 1)])


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]"])
def test_a_foreign_provenance_is_one_line(tmp_path, text):
    declared = experiment(tmp_path)
    done = result(tmp_path, declared.cells()[0], learning())
    (done.run_dir / "provenance.json").write_text(text)
    with pytest.raises(UserError, match=r"provenance\.json"):
        read_record(done, declared)


def test_a_run_with_other_settings_or_a_smaller_budget_says_so(tmp_path):
    before = experiment(tmp_path)
    done = result(tmp_path, before.cells()[0], learning())
    now = experiment(tmp_path, overrides={"total_env_steps": 5000, "gamma": 0.9})
    later = type(done)(now.cells()[0], done.run_dir, "finished")
    found = read_record(later, now)
    assert found.state == "unfinished" and not found.finished and len(found.notes) == 2
    assert "gamma" in found.notes[0] and "1,000 of the 5,000" in found.notes[1]


@pytest.mark.parametrize(("iterations", "told"), [(9, "5 of the 9 iterations"), (None, "5 of all iterations")])
def test_a_run_with_fewer_iterations_says_so(tmp_path, iterations, told):
    before = experiment(tmp_path, overrides={"total_iterations": 5})
    done = result(tmp_path, before.cells()[0], learning())
    now = experiment(tmp_path, overrides={"total_iterations": iterations})
    found = read_record(type(done)(now.cells()[0], done.run_dir, "finished"), now)
    assert found.state == "unfinished" and told in found.notes[0]


def test_the_x_axis_may_be_iterations(tmp_path):
    found = read(tmp_path, [row(1, 1.0, 1), row(2), row(3, 3.0, 1)])
    assert [list(values) for values in found.curve("episode/return_mean", "iteration")] == [[1, 3], [1, 3]]
    del found.columns["iteration"]  # as of a curve from elsewhere
    assert len(found.curve("episode/return_mean", "iteration")[0]) == 0


def test_the_last_iteration_that_has_the_metric_as_score():
    columns = {"episode/return_mean": np.array([1.0, 5.0, 3.0, np.nan]), "episode/count": np.array([9, 9, 9, 0.0])}
    assert score_of(columns, "last_iteration") == 3.0
    assert np.isnan(score_of(columns, "last_iteration", "policy/entropy"))


def test_texts_are_no_columns(tmp_path):
    found = read(tmp_path, [row(1, 1.0, 1, **{"update/rejection_reason": "not finite"})])
    assert "update/rejection_reason" not in found.columns
    assert all(isinstance(values, np.ndarray) and values.dtype == np.float64 for values in found.columns.values())


def test_seconds_are_those_of_the_rate_and_else_of_the_parts_without_counting_twice():
    times = {"time/collect": 3.0, "time/simulator": 2.0, "time/cg": 0.5, "time/own": 1.0}
    rows = [{"env_steps": 100, "time/steps_per_second": 20.0, **times}, {"env_steps": 200, **times}]
    rows = [{"time/steps_per_second": "", **r} for r in rows]
    assert iteration_seconds(columns(rows)).tolist() == [5.0, 3.5]  # overhead would hold a part of a rule's own
    assert np.isnan(iteration_seconds(columns([{"env_steps": 100}]))).all()


@pytest.mark.parametrize(
    ("final", "best", "share"),
    [
        *[(200, 400, 0.5), (400, 400, 1), (-400, -200, 0.5), (-200, -200, 1), (-100, 400, -0.25), (-5, 0, 0)],
        *[(0, 0, 1), (500, 400, 1), (0.0, -3.0, 1), (2, -3, 1), (-100, -200, 1)],
    ],
)
def test_what_a_run_kept_of_its_best_is_one_at_best_and_less_is_worse(final, best, share):
    assert kept(final, best) == share and not math.copysign(1, kept(-5, 0)) < 0


def test_a_collapse_is_seen_in_the_record(tmp_path):
    rows = [{**row(i), "evaluation/return_mean": value} for i, value in enumerate([10.0, 400.0, "", 100.0])]
    assert read(tmp_path, rows).final_over_best == 0.25
    assert math.isnan(read(tmp_path, [row(1, 1.0, 1)]).final_over_best)


def slow_worst_stretch(steps, means, counts, length):
    """Every pair of stretches, episode by episode."""

    def stretch(end):
        inside = [(m, c) for s, m, c in zip(steps, means, counts, strict=True) if end - length < s <= end and c]
        episodes = [m for m, c in inside for _ in range(int(c))]
        return sum(episodes) / len(episodes) if episodes else None

    ends = [s for s, c in zip(steps, counts, strict=True) if s >= length and c]
    pairs = [(a, b) for a in ends for b in ends if a <= b - length]
    later = {b for _, b in pairs}
    return min(kept(stretch(b), max(stretch(a) for a, other in pairs if other == b)) for b in later)


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_stretch_equals_the_slow_definition(seed):
    generator = np.random.default_rng(seed)
    steps = np.cumsum(generator.integers(10, 60, size=60)).astype(float)
    means, counts = generator.normal(20.0, 30.0, size=60), generator.integers(0, 4, size=60).astype(float)
    means[counts == 0] = np.nan
    found = worst_stretch({"env_steps": steps, "episode/return_mean": means, "episode/count": counts}, 150)
    assert found == pytest.approx(slow_worst_stretch(steps, means, counts, 150))


def test_a_fall_between_two_evaluations_is_a_bad_stretch(tmp_path):
    means = [100.0] * 10 + [20.0] * 5 + [100.0] * 10
    rows = [{**row(i + 1, mean, 5), "env_steps": 10_000 * (i + 1)} for i, mean in enumerate(means)]
    assert read(tmp_path, rows).worst_stretch == pytest.approx(0.2)
    assert math.isnan(read(tmp_path, rows[:5]).worst_stretch)
    assert math.isnan(read(tmp_path, []).worst_stretch)


def test_metrics_of_others_are_columns_and_their_texts_are_not():
    rows = [{"env_steps": 1, "mine/number": 2.5, "mine/text": "a"}]
    assert set(columns(rows)) == {"env_steps", "mine/number"} and columns(rows)["mine/number"].tolist() == [2.5]
    with pytest.raises(UserError, match="column policy/entropy"):
        columns([{"env_steps": 1, "policy/entropy": "a"}])


def test_reasons_of_rejections_are_counted(tmp_path):
    reasons = ["", "not finite", "not finite", "no step"]
    found = read(tmp_path, [row(i, **{"update/rejection_reason": reason}) for i, reason in enumerate(reasons)])
    assert found.reasons == {"not finite": 2, "no step": 1}
