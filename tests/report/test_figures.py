import numpy as np
import pytest
from synthetic_runs import experiment, finished, learning, result

from trpo_lightning.report.figures.canvas import Page
from trpo_lightning.report.figures.curves import _apart, draw_curves
from trpo_lightning.report.figures.scores import draw_intervals, draw_sensitivity
from trpo_lightning.report.records import read_record
from trpo_lightning.report.references import Reference
from trpo_lightning.report.style import (
    MOST_IN_A_PANEL,
    axis_scale,
    curves_caption,
    numeric_axis,
    seeds_text,
    sensitivities,
    steps_text,
    styles,
)
from trpo_lightning.report.summary import curves, summarize

REFERENCES = [
    Reference("a", "Hopper", 90.0, 80.0, 99.0, 1000, "A 2020", "mean of something", "a paper", "v2"),
    Reference("b", "Hopper", 91.0, float("nan"), float("nan"), 10**6, "B 2021", "maximum of something", "", "v5"),
]
DELTA = {"rule.delta": [0.001, 0.01, 0.1]}


def drawn(folder, **facts):
    declared = experiment(folder, **facts)
    records = [read_record(done, declared) for done in finished(folder, declared)]
    return declared, records, curves(records, declared.metric)


def test_a_curve_is_the_interquartile_mean_where_all_seeds_have_data(tmp_path):
    declared = experiment(tmp_path, seeds=[0, 1, 2, 3])
    rows = [learning(i) for i in range(4)]
    rows[0], rows[1], rows[3] = rows[0][2:], rows[1][:8], rows[3][:2]
    states = ["finished", "finished", "finished", "running"]
    results = [result(tmp_path, c, r, s) for c, r, s in zip(declared.cells(), rows, states, strict=True)]
    (curve,) = curves([read_record(done, declared) for done in results], declared.metric)
    assert (curve.x[0], curve.x[-1], curve.runs, curve.declared) == (300, 800, 3, 4)
    last = [r["episode/return_mean"] for row in rows[:3] for r in row if r["env_steps"] == 800]
    assert curve.middle[-1] == pytest.approx(np.mean(last))  # of three values
    assert np.all(curve.low <= curve.middle) and np.all(curve.middle <= curve.high)
    assert [line.state for line in curve.lines] == ["running"] and seeds_text(curve) == "3 of 4 seeds"
    assert "1 of 4 runs" in curves_caption(declared, [curve])


def test_one_seed_is_a_line_without_a_band(tmp_path):
    declared, _, (curve,) = drawn(tmp_path, seeds=[5])
    assert len(curve.x) == 0 and len(curve.lines) == 1 and seeds_text(curve) == "1 seed"
    assert "single seeds" in curves_caption(declared, [curve])


def test_seeds_without_common_steps_are_lines(tmp_path):
    declared = experiment(tmp_path, seeds=[0, 1])
    rows = [learning(0)[:3], learning(1)[5:]]
    results = [result(tmp_path, c, r) for c, r in zip(declared.cells(), rows, strict=True)]
    (curve,) = curves([read_record(done, declared) for done in results], declared.metric)
    assert len(curve.x) == 0 and len(curve.lines) == 2


@pytest.mark.parametrize(
    "facts",
    [
        {"seeds": [0]},
        {"axes": DELTA, "environments": ["Hopper-v5", "Walker2d-v5", "Ant-v5", "HalfCheetah-v5"], "seeds": [0, 1]},
        {"variants": {f"variant {i}": {"rule.delta": 0.01 + i / 1000} for i in range(9)}, "seeds": [0, 1]},
    ],
)
def test_figures_are_written(tmp_path, facts):
    declared, records, found = drawn(tmp_path, **facts)
    path = tmp_path / "new" / "figure.png"
    default = declared.default_name()
    assert draw_curves(declared, found, styles(declared, records, default), REFERENCES, path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    summaries = summarize(records, default)
    groups = sensitivities(declared, summaries)
    assert draw_sensitivity(declared, groups, tmp_path / "sensitivity.png") == ("axes" in facts)
    assert (tmp_path / "sensitivity.pdf").exists() == ("axes" in facts)
    many = len(facts.get("variants", {})) > MOST_IN_A_PANEL
    drawn_styles = styles(declared, records, default)
    assert draw_intervals(declared, summaries, drawn_styles, tmp_path / "score_intervals.png") == many
    assert (tmp_path / "score_intervals.pdf").exists() == many


def panels_of(declared, found, records, monkeypatch, folder):
    """Titles and limits of the panels as they were drawn."""
    axes = []
    monkeypatch.setattr(Page, "__exit__", lambda page, *_: axes.extend(page.axes))
    draw_curves(declared, found, styles(declared, records, ""), REFERENCES, folder / "figure.png")
    return [(axis.get_title(), axis.get_ylim(), len(axis.lines)) for axis in axes]


def test_more_variants_than_a_panel_can_show_are_small_multiples_on_the_same_axes(tmp_path, monkeypatch):
    variants = {f"v{i}": {"rule.delta": 0.01 + i / 1000} for i in range(MOST_IN_A_PANEL + 1)}
    declared, records, found = drawn(tmp_path, variants=variants, environments=["Hopper-v5", "Ant-v5"], seeds=[0])
    panels = panels_of(declared, found, records, monkeypatch, tmp_path)
    assert [title for title, _, _ in panels[:2]] == ["Hopper-v5\nv0, 1 seed", "Hopper-v5\nv1, 1 seed"]
    assert len(panels) == 14 and len({limits for title, limits, _ in panels if "Hopper" in title}) == 1
    assert {lines for title, _, lines in panels if "Ant" in title} == {7}  # its own, and six behind it
    few = {name: variants[name] for name in list(variants)[:-1]}
    declared, records, found = drawn(tmp_path / "few", variants=few, seeds=[0])
    assert [title for title, _, _ in panels_of(declared, found, records, monkeypatch, tmp_path)] == ["Hopper-v5"]


def test_more_lines_of_scores_than_a_panel_can_show_are_small_multiples(tmp_path, monkeypatch):
    axes = {**DELTA, "policy.activation": ["tanh", "relu"], "rule.kl_direction": ["old_new", "new_old"]}
    declared, records, _ = drawn(tmp_path, axes={**axes, "normalize.observations": [True, False]}, seeds=[0])
    groups = sensitivities(declared, summarize(records, ""))
    shown = []
    monkeypatch.setattr(Page, "__exit__", lambda page, *_: shown.extend(page.axes))
    assert len(groups) == 8 and draw_sensitivity(declared, groups, tmp_path / "sensitivity.png")
    assert len(shown) == 8 and all(len(axis.lines) >= 8 for axis in shown)


def test_nothing_to_draw(tmp_path):
    declared = experiment(tmp_path)
    records = [read_record(result(tmp_path, cell, None, "missing"), declared) for cell in declared.cells()]
    found = curves(records, declared.metric)
    assert not draw_curves(declared, found, styles(declared, records, ""), [], tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists() and len(found) == 1


@pytest.mark.parametrize(
    ("axes", "key"),
    [
        (DELTA, "rule.delta"),
        ({**DELTA, "rule.name": ["trust_region"]}, "rule.delta"),
        ({**DELTA, "gae_lambda": [0.9, 1.0]}, None),
        ({**DELTA, "gae_lambda": [0.9]}, "rule.delta"),
        ({"normalize.observations": [True, False]}, None),
        ({"rule.delta": [0.1, None]}, None),
        ({}, None),
    ],
)
def test_the_numeric_axis(tmp_path, axes, key):
    assert numeric_axis(experiment(tmp_path, axes=axes)) == key


def test_colours_are_ordered_by_level_and_different(tmp_path):
    declared, records, _ = drawn(tmp_path, axes=DELTA, seeds=[0])
    found = styles(declared, records, "delta=0.01")
    colors = [found[f"delta={delta}"].color for delta in (0.001, 0.01, 0.1)]

    def lightness(color):
        return sum(int(color[i : i + 2], 16) * weight for i, weight in ((1, 0.3), (3, 0.6), (5, 0.1)))

    assert lightness(colors[0]) < lightness(colors[1]) < lightness(colors[2])
    assert found["delta=0.01"].label == "delta=0.01 (default)" and found["delta=0.01"].width > found["delta=0.1"].width


def test_a_second_axis_is_told_by_dashes(tmp_path):
    axes = {**DELTA, "normalize.observations": [True, False]}
    declared, records, _ = drawn(tmp_path, axes=axes, seeds=[0])
    found = styles(declared, records, "")
    assert len({(style.color, style.dash) for style in found.values()}) == 6
    assert len({style.color for style in found.values()}) == 3
    assert len(sensitivities(declared, summarize(records, ""))) == 2


def test_scales_and_texts():
    assert axis_scale([0.001, 0.1]) == "log" and axis_scale([1, 20]) == axis_scale([0, 1000]) == "linear"
    assert axis_scale([0, 0.9, 0.95, 0.98, 1.0]) == "even"
    assert axis_scale([0.0, 0.1, 1.0]) == axis_scale([3]) == "linear"
    assert [steps_text(x) for x in (0, 128, 2048, 300_000, 1.5e6)] == ["0", "128", "2.05k", "300k", "1.5M"]


def test_letters_are_moved_apart_in_order():
    values = np.array([5.0, 1.0, 5.1, 5.0])
    places = _apart(values, 1.0)
    assert np.diff(np.sort(places)).min() > 0.99 and places[1] == np.min(places) and places[2] == np.max(places)
