from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import experiment, learning, result, row

from trpo_lightning.experiment.claims import read_claims
from trpo_lightning.report.records import Record, numeric_columns, score_of
from trpo_lightning.report.statistics import bootstrap, interquartile_mean
from trpo_lightning.report.verdicts import FAILS, HOLDS, UNDECIDED, criterion, judge
from trpo_lightning.report.write import write_report

VARIANTS = {"a": {"rule.delta": 0.01}, "b": {"rule.delta": 0.02}, "c": {"rule.delta": 0.03}}
SEEDS = [0, 1, 2, 3, 4]
LEVELS = {"a": [1.0, 2.0, 3.0, 4.0, 5.0], "b": [7.0, 8.0, 9.0, 10.0, 11.0], "c": [0.0, 20.0, 0.0, 20.0, 0.0]}


def flat(level, iterations=3):
    """Rows of a run whose return is `level` from the first iteration to the last."""
    return [row(i + 1, level, 50) for i in range(iterations)]


def record(declared, cell, rows, state):
    columns = numeric_columns([{name: str(value) for name, value in line.items()} for line in rows], "rows")
    score = score_of(columns, declared.score, declared.metric)
    settings = cell.settings
    return Record(settings.env.id, settings.name, settings.seed, state, None, cell.levels, columns, score)


def declared_with(folder, claims, **facts):
    own = {"of": "a", "seeds": 5, "statistic": "score"}
    values = [{**own, "says": f"claim {i}", **claim} for i, claim in enumerate(claims)]
    claims = read_claims(Path("some.yaml"), values)
    return experiment(folder, **{"variants": VARIANTS, "seeds": SEEDS, "claims": claims, **facts})


def verdicts(folder, claims, rows=None, states=None, **facts):
    declared = declared_with(folder, claims, **facts)
    rows = rows or {name: [flat(level) for level in levels] for name, levels in LEVELS.items()}
    seeds = [(cell, cell.settings.seed) for cell in declared.cells()]
    found = [record(declared, c, rows[c.settings.name][s], (states or {}).get(s, "finished")) for c, s in seeds]
    return judge(declared, found)


def test_holds_does_not_hold_and_not_decided(tmp_path):
    claims = [
        *({"above": 0.5}, {"above": 5.5}, {"above": 3.0}),
        *({"below": 5.5}, {"below": 0.5}, {"below": 3.0}),
        *({"within": 5.5}, {"within": 0.5}, {"within": 3.0}, {"of": "b", "within": 5.5}),
    ]
    found = verdicts(tmp_path, claims)
    mirrored = [{"than": "b", "within": threshold} for threshold in (9.0, 3.0, 6.0)]
    assert [v.verdict for v in verdicts(tmp_path, mirrored)] == [HOLDS, FAILS, UNDECIDED]
    assert [v.verdict for v in found] == [HOLDS, FAILS, UNDECIDED] * 3 + [FAILS]
    assert all(v.estimate.value == 3.0 and v.seeds == 5 for v in found[:-1])
    assert all("straddles" in v.reason for v in found if v.verdict == UNDECIDED)
    assert not any(v.reason for v in found if v.verdict != UNDECIDED)


def test_a_difference_is_of_minus_than_with_its_bootstrap_interval(tmp_path):
    (found,) = verdicts(tmp_path, [{"than": "b", "below": 0, "confidence": 0.8}])
    assert (found.verdict, found.estimate.value) == (HOLDS, -6.0)
    generator = np.random.default_rng(0)
    a, b = (np.array(LEVELS[name])[generator.integers(5, size=(2000, 5))] for name in "ab")
    trimmed = [np.sort(x, axis=1)[:, 1:4].mean(axis=1) for x in (a, b)]
    expected = np.percentile(trimmed[0] - trimmed[1], [10, 90])
    assert (found.estimate.low, found.estimate.high) == pytest.approx(tuple(expected))


def test_of_several_variants_the_best_counts(tmp_path):
    found = verdicts(tmp_path, [{"of": ["a", "b"], "above": 0}, {"of": "a", "than": ["b", "c"], "above": 0}])
    assert [v.estimate.value for v in found] == [9.0, 3.0 - 9.0]  # the interquartile mean of c is 20 / 3
    own = bootstrap([np.array(LEVELS[n]) for n in "ab"], lambda s: np.maximum(*(interquartile_mean(x) for x in s)))
    assert found[0].estimate == own


def test_the_share_of_steps_to_the_final_returns_of_another_variant(tmp_path):
    def rising(top, after):
        return [row(i + 1, top if i >= after else 0.0, 100) for i in range(10)]

    rows = {
        "a": [rising(9.0, after) for after in (2, 3, 4, 5, 20)],  # the last one never has it
        "b": [rising(level, 9) for level in (5.0, 6.0, 7.0, 8.0, 9.0)],
        "c": [flat(1.0)] * 5,
    }
    claim = {"of": "a", "than": "b", "statistic": "share_of_steps"}
    found = verdicts(tmp_path, [{**claim, "below": 0.75}, {**claim, "above": 0.1}], rows)
    assert found[0].estimate.value == pytest.approx((0.4 + 0.5 + 0.6) / 3)  # 0.3 and 1.1 are not in the middle
    assert found[0].verdict == UNDECIDED and found[1].verdict == HOLDS
    assert "a beside b < 0.75" in criterion(found[0].claim, declared_with(tmp_path, []))


def test_the_least_score_ratio_is_relative_to_the_other_variants_score(tmp_path):
    claim = {"of": "a", "than": "b", "statistic": "least_score_ratio"}
    assert verdicts(tmp_path, [{**claim, "below": 0.95}])[0].estimate.value == pytest.approx(3.0 / 9.0)
    assert verdicts(tmp_path, [{**claim, "below": 0.95}])[0].verdict == HOLDS
    negative = {"a": [flat(-30.0)] * 5, "b": [flat(-20.0)] * 5, "c": [flat(1.0)] * 5}
    assert verdicts(tmp_path, [{**claim, "below": 0.95}], negative)[0].estimate.value == pytest.approx(0.5)


def test_the_probability_of_improvement(tmp_path):
    claim = {"of": "b", "than": "a", "statistic": "improvement", "above": 0.5}
    (found,) = verdicts(tmp_path, [claim])
    assert (found.verdict, found.estimate.value) == (HOLDS, 1.0)
    (found,) = verdicts(tmp_path / "two", [claim], environments=["Hopper-v5", "Ant-v5"])
    assert (found.verdict, found.estimate.value) == (HOLDS, 1.0)
    (found,) = verdicts(tmp_path / "c", [{**claim, "than": "c"}])
    assert (found.verdict, found.estimate.value) == (UNDECIDED, 0.6)


def test_the_area_is_the_mean_over_what_all_runs_have(tmp_path):
    """A line rising by 10 each iteration, from 1 to 9 or 5: the common part is [1, 5], of mean 30 and 60."""
    rows = {
        "a": [[row(i, 10.0 * i, 1) for i in range(1, 10)]] * 5,
        "b": [[row(i, 20.0 * i, 1, env_steps=1000 * i) for i in range(1, 6)]] * 5,
        "c": [flat(0.0)] * 5,
    }
    claim = {"statistic": "area", "than": "b", "above": -100}
    assert verdicts(tmp_path / "x", [claim], rows, x="iteration")[0].estimate.value == pytest.approx(30.0 - 60.0)
    (found,) = verdicts(tmp_path / "y", [claim], rows)  # a from 100 to 900 steps, b from 1000 to 5000: nothing common
    assert found.verdict == UNDECIDED and "10 of 10 runs have no such number" in found.reason
    (alone,) = verdicts(tmp_path / "z", [{**claim, "of": "b", "than": []}], rows)
    assert alone.estimate.value == pytest.approx(60.0)


def test_where_a_level_is_first_reached(tmp_path):
    rising = [[row(i, 1.0 if i < 4 + seed else 2.0, 1) for i in range(1, 11)] for seed in SEEDS]
    rows = {"a": rising, "b": [flat(1.0, 10)] * 5, "c": [flat(0.0)] * 5}
    first = {"statistic": "first", "level": 2.0}
    claims = [{**first, "below": 9}, {**first, "than": "b", "below": 0}, {**first, "of": ["a", "b"], "above": 3}]
    claims += [{**first, "of": "b", "above": 10}, {**first, "of": "b", "below": 20}]
    found = verdicts(tmp_path, claims, rows, x="iteration")
    assert [v.verdict for v in found] == [HOLDS, HOLDS, HOLDS, HOLDS, UNDECIDED]  # b may come later still
    assert [v.estimate.value for v in found[:3]] == [6.0, 6.0 - 11.0, 6.0]  # never: one iteration after the end
    assert "5 runs end before the threshold" in found[4].reason


@pytest.mark.parametrize(
    ("of", "than", "bound", "expected"),
    [
        ("b", "c", {"within": 2}, UNDECIDED),  # neither ever does
        ("b", "a", {"below": 8}, UNDECIDED),  # at least 5 later
        ("b", "a", {"above": 3}, HOLDS),
        ("b", "a", {"below": 3}, FAILS),
        ("b", "a", {"within": 3}, FAILS),
        ("a", "b", {"above": -8}, UNDECIDED),  # at least 5 earlier
        ("a", "b", {"above": -3}, FAILS),
        ("a", "b", {"below": -3}, HOLDS),
    ],
)
def test_a_level_that_is_never_reached_is_known_from_below_only(tmp_path, of, than, bound, expected):
    rising = [[row(i, 1.0 if i < 6 else 2.0, 1) for i in range(1, 11)] for _ in SEEDS]
    rows = {"a": rising, "b": [flat(1.0, 10)] * 5, "c": [flat(0.0, 10)] * 5}
    claim = {"statistic": "first", "level": 2.0, "of": of, "than": than, **bound}
    (found,) = verdicts(tmp_path, [claim], rows, x="iteration")
    assert found.verdict == expected
    assert ("never reach the level" in found.reason) == (expected == UNDECIDED)


@pytest.mark.parametrize("state", ["running", "failed", "missing", "interrupted"])
def test_a_claim_with_runs_missing_is_not_decided(tmp_path, state):
    (found,) = verdicts(tmp_path, [{"above": 0.5, "seeds": 2}], states={4: state})
    assert found.verdict == UNDECIDED and found.reason == "1 of 5 runs are not finished"
    assert found.seeds == 4 and found.estimate.value == 2.5


def test_a_claim_with_too_few_seeds_is_not_decided(tmp_path):
    few, none, one = verdicts(
        tmp_path, [{"above": 0.5, "seeds": 6}, {"above": 0.5, "of": "z"}, {"above": 0.5, "than": "z"}]
    )
    assert (few.verdict, few.reason) == (UNDECIDED, "5 of at least 6 seeds")
    assert none.verdict == one.verdict == UNDECIDED and "no run of z in Hopper-v5 is declared" in none.reason
    (single,) = verdicts(tmp_path / "single", [{"above": 0.5}], seeds=[0])
    assert (single.verdict, single.seeds) == (UNDECIDED, 1) and not single.estimate.has_interval


def test_a_run_without_a_number_leaves_it_open(tmp_path):
    rows = {name: [flat(level) for level in levels] for name, levels in LEVELS.items()}
    rows["a"][2] = flat("")
    (found,) = verdicts(tmp_path, [{"above": 0.5, "seeds": 2}], rows)
    assert (found.verdict, found.reason) == (UNDECIDED, "1 of 5 runs have no such number")


def test_all_outputs_tell_verdict_statistic_and_criterion(tmp_path, capsys):
    claims = [{"above": 0.5}, {"above": 5.5}, {"above": 3}, {"statistic": "area", "than": "b", "below": 0}]
    declared = declared_with(tmp_path, claims, x="iteration")
    rows = {name: [flat(level) for level in levels] for name, levels in LEVELS.items()}
    results = [result(tmp_path, c, rows[c.settings.name][c.settings.seed]) for c in declared.cells()]
    write_report(declared, results, tmp_path)
    folder = tmp_path / "made_up/full/report"
    page, table = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "scores.md"))
    printed = capsys.readouterr().out
    for verdict, kind in ((HOLDS, "holds"), (FAILS, "fails"), (UNDECIDED, "open")):
        assert f'<span class="state {kind}">{verdict}</span>' in page and f": {verdict} (" in printed
        assert f"| {verdict}" in table
    for text in (page, table):
        assert "area: a minus b over iteration" in text and "straddles" in text and "5 (least 5)" in text
    assert "claim 3: holds (-6.000 [" in printed and "| -6.000 [" in table


def test_without_claims_there_is_no_section(tmp_path):
    declared = experiment(tmp_path, seeds=[0])
    write_report(declared, [result(tmp_path, declared.cells()[0], learning())], tmp_path)
    folder = tmp_path / "made_up/full/report"
    for name in ("report.html", "scores.md"):
        assert "Claims" not in (folder / name).read_text(encoding="utf-8").partition("</script>")[2 * (name[0] == "r")]


def test_criteria_are_readable(tmp_path):
    declared = declared_with(
        tmp_path,
        [
            {"of": ["a", "b"], "than": "c", "environment": "Hopper-v5", "within": 2},
            {"statistic": "improvement", "than": "b", "above": 0.5},
            {"statistic": "first", "level": 100, "below": 7},
            {"of": list("abcdefg"), "below": 7},
        ],
    )
    assert [criterion(claim, declared) for claim in declared.claims] == [
        "score of the best: a or b minus c in Hopper-v5 in [-2, 2]",
        "P(a > b) > 0.5",
        "first 100: a over env_steps < 7",
        "score of the best: a or b or c or d or e or 2 more < 7",
    ]


def test_a_claim_on_every_run_is_decided_by_the_worst_one(tmp_path):
    claims = [{"above": 0.5}, {"above": 1.5}, {"below": 5.5}, {"below": 4.5}, {"within": 5.5}, {"within": 4.5}]
    found = verdicts(tmp_path, [{**claim, "every_run": True} for claim in claims])
    assert [v.verdict for v in found] == [HOLDS, FAILS] * 3
    assert [v.estimate.value for v in found] == [1.0, 1.0, 5.0, 5.0, 5.0, 5.0]
    assert not any(v.estimate.has_interval for v in found)
    assert "of the worst run" in criterion(found[0].claim, declared_with(tmp_path, []))


def test_claims_on_what_a_run_kept(tmp_path):
    evaluations = {"a": [1.0, 0.99, 0.98, 0.97, 0.96], "b": [1.0, 1.0, 1.0, 1.0, 0.4], "c": [0.5] * 5}
    rows = {
        name: [
            [
                {**row(1, 1.0, 50), "evaluation/return_mean": 100.0},
                {**row(2, 1.0, 50), "evaluation/return_mean": 100.0 * s},
            ]
            for s in shares
        ]
        for name, shares in evaluations.items()
    }
    every = {"statistic": "final_over_best", "above": 0.95, "every_run": True}
    found = verdicts(tmp_path, [every, {**every, "of": "b"}, {**every, "of": "b", "every_run": False}], rows)
    assert [v.verdict for v in found] == [HOLDS, FAILS, UNDECIDED]
    assert [v.estimate.value for v in found] == pytest.approx([0.96, 0.4, 1.0])


def test_claims_on_the_worst_stretch(tmp_path):
    def run(low):
        means = [100.0] * 10 + [low] * 5 + [100.0] * 5
        return [{**row(i + 1, mean, 5), "env_steps": 10_000 * (i + 1)} for i, mean in enumerate(means)]

    rows = {"a": [run(60.0 + i) for i in range(5)], "b": [run(10.0) for _ in range(5)], "c": [run(1.0)] * 5}
    claim = {"statistic": "worst_stretch", "above": 0.5, "every_run": True}
    found = verdicts(tmp_path, [claim, {**claim, "of": "b"}], rows)
    assert [v.verdict for v in found] == [HOLDS, FAILS]
    assert [v.estimate.value for v in found] == pytest.approx([0.6, 0.1])


def test_claims_on_evaluations(tmp_path):
    evaluations = {"a": (9.0, 4.0), "b": (9.0, 9.0), "c": (1.0, 1.0)}
    rows = {
        name: [[{**row(i + 1, 1.0, 50), "evaluation/return_mean": e + s} for i, e in enumerate(ends)] for s in range(5)]
        for name, ends in evaluations.items()
    }
    found = verdicts(tmp_path, [{"statistic": f"{which}_evaluation", "above": 8.5} for which in ("last", "best")], rows)
    assert [(v.verdict, v.estimate.value) for v in found] == [(FAILS, 6.0), (HOLDS, 11.0)]
