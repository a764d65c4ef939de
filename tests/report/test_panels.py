"""Panels of one's own: the program of examples/, what the page holds of it, and functions that do not work."""

from pathlib import Path

import pytest
from browsers import BROWSER, DRIVER, browser
from synthetic_runs import read_data, result, row
from test_browser import Reader

from trpo_lightning import UserError
from trpo_lightning.__main__ import main
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.report.panels import own_panels

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The report of the example's experiment, made where the example says, with made-up runs."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(EXAMPLES)
    rows = [row(i, 20.0 * i, 5, **{"trust_region/kl": 0.01 * i}) for i in (1, 2, 3)]
    for cell in load_experiment("kl_penalty", "quick").cells():
        result(tmp_path, cell, rows)
    root = ["--scale", "quick", "--root", str(tmp_path)]
    assert main(["report", "kl_penalty", *root, "--panel", "own_report_panel:kl_of_updates"]) == 0
    return tmp_path / "kl_penalty" / "quick" / "report" / "report.html"


def test_the_page_has_its_title_its_text_and_its_figure(page):
    text, (figure,) = page.read_text(encoding="utf-8"), read_data(page)["ownPanels"]
    assert "<h2>KL of single updates</h2>" in text and "3 of trust_region, 3 of kl_penalty." in text
    assert [trace["name"] for trace in figure["data"]] == ["trust_region", "kl_penalty"]


@pytest.mark.skipif(DRIVER is None or BROWSER is None, reason="chromium and chromedriver are not installed")
def test_the_figure_is_drawn(page, tmp_path):
    with browser(tmp_path) as command:
        reader = Reader(command, page)
        drawn = reader.script("return [...document.querySelectorAll('#own-panel-0 .violin')].length")
        assert drawn == 2 and not reader.errors()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:panel", "module no_such_module cannot be imported"),
        ("math", "write module:function"),
        ("math:no_such", "module math has no function no_such"),
        ("math:sqrt", "TypeError: must be real number, not list"),
        ("builtins:len", "returned int, not a trpo_lightning.report.panels.Panel"),
    ],
)
def test_a_function_that_does_not_work_is_one_line(name, said):
    with pytest.raises(UserError) as error:
        own_panels([name], [])
    assert str(error.value).startswith(f"--panel {name}: ") and said in str(error.value)
