import numpy as np
import pytest
from synthetic_runs import experiment, finished, learning, read_data, result

from trpo_lightning.report.figures.heat_map import draw_heat_map
from trpo_lightning.report.heat_map import heat_maps
from trpo_lightning.report.records import read_record
from trpo_lightning.report.style import heat_axes, panel_of, styles
from trpo_lightning.report.summary import curves, summarize
from trpo_lightning.report.write import write_report

AXES = {"gamma": [0.99, 0.9], "gae_lambda": [0.5, 1.0]}


def records_of(declared, results):
    return [read_record(done, declared) for done in results]


def test_rows_are_the_first_axis_and_columns_the_second_in_rising_order(tmp_path):
    declared = experiment(tmp_path, axes=AXES, environments=["Hopper-v5", "Ant-v5"], seeds=[0, 1])
    levels = {c.settings.name: 100 * c.settings.gamma + 10 * c.settings.gae_lambda for c in declared.cells()}
    results = finished(tmp_path, declared, levels)
    results[6:] = [result(tmp_path, done.cell, [], "failed") for done in results[6:]]  # of seed 0 all but six
    summaries = summarize(records_of(declared, results), "gamma=0.99,gae_lambda=0.5")
    found = heat_maps(declared, summaries)
    assert [heat.env_id for heat in found] == ["Hopper-v5", "Ant-v5"]
    heat = found[0]
    assert (heat.keys, heat.rows, heat.columns) == (("gamma", "gae_lambda"), [0.9, 0.99], [0.5, 1.0])
    assert heat.default == (1, 0) and heat.runs.tolist() == [[1, 0], [1, 1]]
    assert np.isnan(heat.scores[0, 1]) and np.isfinite(heat.scores).sum() == 3
    by_name = {s.variant: s.score.value for s in summaries if s.env_id == "Hopper-v5"}
    assert heat.scores[1, 1] == by_name["gamma=0.99,gae_lambda=1"]
    assert heat.scores[0, 0] == by_name["gamma=0.9,gae_lambda=0.5"]
    assert draw_heat_map(declared, found, tmp_path / "new" / "map.png") and (tmp_path / "new" / "map.pdf").is_file()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"axes": AXES}, ("gamma", "gae_lambda")),
        ({"axes": {**AXES, "rule.delta": [0.1]}}, ("gamma", "gae_lambda")),
        ({"axes": {**AXES, "rule.delta": [0.1, 0.2]}}, None),
        ({"axes": {"gamma": [0.9, 0.99], "normalize.rewards": [True, False]}}, None),
        ({"axes": {"gamma": [0.9, 0.99]}}, None),
        ({"axes": AXES, "variants": {"a": {}}}, None),
        ({}, None),
    ],
)
def test_which_axes_span_a_heat_map(tmp_path, facts, expected):
    declared = experiment(tmp_path, **facts)
    assert heat_axes(declared) == expected
    if expected is None:
        assert not heat_maps(declared, []) and not draw_heat_map(declared, [], tmp_path / "map.png")
        assert not (tmp_path / "map.png").exists()


def test_curves_have_a_panel_for_each_level_of_the_first_axis_and_a_colour_for_each_of_the_second(tmp_path):
    declared = experiment(tmp_path, axes=AXES, x="iteration", seeds=[0, 1])
    records = records_of(declared, finished(tmp_path, declared))
    drawn = curves(records, declared.metric, declared.x, panel_of(declared, records))
    assert [curve.panel for curve in drawn] == ["gamma=0.99"] * 2 + ["gamma=0.9"] * 2
    assert (drawn[0].x[0], drawn[0].x[-1]) == (1, 10)
    found = styles(declared, records, "gamma=0.99,gae_lambda=0.5")
    assert [style.label for style in found.values()] == ["gae_lambda=0.5", "gae_lambda=1"] * 2
    assert len({(style.color, style.label) for style in found.values()}) == 2 == len({s.color for s in found.values()})
    assert [style.width > 2 for style in found.values()] == [True, False, False, False]


def test_with_several_environments_panels_name_both(tmp_path):
    declared = experiment(tmp_path, axes=AXES, environments=["Hopper-v5", "Ant-v5"], seeds=[0])
    records = records_of(declared, finished(tmp_path, declared))
    panel = panel_of(declared, records)
    assert {panel(record) for record in records} == {
        f"{env_id}, gamma={gamma}" for env_id in ("Hopper-v5", "Ant-v5") for gamma in (0.9, 0.99)
    }


def test_the_report_has_the_heat_map_as_long_as_it_is_true(tmp_path, capsys):
    declared = experiment(tmp_path, axes=AXES, x="iteration", seeds=[0])
    results = finished(tmp_path, declared)
    write_report(declared, results, tmp_path)
    folder = tmp_path / "made_up/full/report"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"figure  {folder / 'heat_map.png'}" in capsys.readouterr().out
    assert "<h2>Heat map</h2>" in page and '<option value="iteration" selected>' in page
    (heat,) = read_data(folder / "report.html")["heatMaps"]
    assert heat["keys"] == ["gamma", "gae_lambda"] and heat["rows"] == ["0.9", "0.99"] and heat["default"] == [1, 0]
    assert not (folder / "sensitivity.png").exists()
    nothing = [result(tmp_path, done.cell, learning()[:0]) for done in results]
    write_report(declared, nothing, tmp_path)
    assert not list(folder.glob("heat_map.*"))
