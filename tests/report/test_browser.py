import re
import time

import numpy as np
import pytest
from browsers import BROWSER, DRIVER, browser
from synthetic_runs import experiment, finished, learning, read_data, result
from test_html import write

from trpo_lightning.report.records import read_record
from trpo_lightning.report.summary import curves
from trpo_lightning.report.write import write_report

pytestmark = pytest.mark.skipif(DRIVER is None or BROWSER is None, reason="chromium and chromedriver are not installed")
TRACES = (
    "return (document.getElementById(arguments[0]).data ?? []).map(t => ({x: t.x, y: t.y, meta: t.meta, name: t.name}))"
)
PRESS = """
const box = document.querySelector(arguments[0]);
box.focus();
if (document.activeElement !== box) throw new Error('cannot be reached: ' + arguments[0]);
box.click();
"""
CHOOSE = """
const list = document.getElementById(arguments[0]);
list.value = arguments[1];
list.dispatchEvent(new Event('change', {bubbles: true}));
"""


class Reader:
    """Someone in front of a page."""

    def __init__(self, command, path):
        self.command = command
        command("POST", "url", {"url": path.as_uri()})
        deadline = time.monotonic() + 60
        while not self.script("return 'drawn' in document.documentElement.dataset"):
            assert time.monotonic() < deadline, command("POST", "se/log", {"type": "browser"})
            time.sleep(0.1)

    def script(self, text, *arguments):
        return self.command("POST", "execute/sync", {"script": text, "args": list(arguments)})

    def traces(self, figure, meta):
        return [trace for trace in self.script(TRACES, figure) if trace["meta"] == meta]

    def text(self, name):
        return self.script("return document.getElementById(arguments[0]).textContent", name)

    def errors(self):
        return [e for e in self.command("POST", "se/log", {"type": "browser"}) if e["level"] == "SEVERE"]


def test_a_reader_asks_the_page(tmp_path):
    path = write(tmp_path)
    with browser(tmp_path) as command:
        page = Reader(command, path)
        assert len(page.traces("learning-curves", "mean")) == 4 and len(page.traces("learning-curves", "band")) == 4
        assert len(page.traces("learning-curves", "run")) == 12  # one of them failed, and is in no mean
        assert len(page.traces("intervals", "middle")) == 2 and len(page.traces("sensitivity", "middle")) == 2
        shown = page.script("return [...document.querySelectorAll('.still')].map(i => i.offsetHeight)")
        assert shown == [0, 0]

        page.script(PRESS, "#raw")
        assert len(page.traces("learning-curves", "run")) == 1
        page.script(PRESS, "#legend .series[value='1']")
        assert len(page.traces("learning-curves", "mean")) == 2 and page.traces("learning-curves", "run") == []
        assert all(len(trace["x"]) == 1 for trace in page.traces("intervals", "middle"))
        page.script(PRESS, "#legend .series[value='1']")
        assert len(page.traces("learning-curves", "mean")) == 4

        page.script(CHOOSE, "y", "episode/count")
        assert {y for trace in page.traces("learning-curves", "mean") for y in trace["y"]} == {30}
        assert page.text("curves-caption").startswith("episode/count: how many episodes ended.")
        page.script(CHOOSE, "x", "seconds")
        assert page.traces("learning-curves", "mean")[0]["x"][-1] == 20 and "Seconds:" in page.text("curves-caption")
        page.script(PRESS, "#multiples")
        assert len(page.traces("learning-curves", "behind")) == 4

        assert page.script("return document.documentElement.scrollWidth <= innerWidth")
        assert page.script("return performance.getEntriesByType('resource').map(e => e.name)") == []
        assert page.errors() == []


def test_the_pages_statistics_are_those_of_the_tables(tmp_path):
    declared = experiment(tmp_path, seeds=list(range(5)))
    results = finished(tmp_path, declared)
    write_report(declared, results, tmp_path)
    (curve,) = curves([read_record(done, declared) for done in results], declared.metric)
    with browser(tmp_path) as command:
        page = Reader(command, tmp_path / "made_up/full/report/report.html")
        (mean,) = page.traces("learning-curves", "mean")
        (band,) = page.traces("learning-curves", "band")
        high, low = band["y"][: len(curve.x)], band["y"][len(curve.x) :][::-1]
        assert np.allclose(mean["x"], curve.x) and np.allclose(mean["y"], curve.middle, rtol=1e-4)
        wide = (curve.high - curve.low).max()
        assert np.abs(high - curve.high).max() < 0.2 * wide and np.abs(low - curve.low).max() < 0.2 * wide

        page.script(CHOOSE, "smoothing", "5")
        (smooth,) = page.traces("learning-curves", "mean")
        runs = [run["columns"]["episode/return_mean"] for run in read_data(page_of(tmp_path))["runs"]]
        assert smooth["y"][0] == pytest.approx(middle_of([np.mean(run[:3]) for run in runs]), rel=1e-4)
        assert smooth["y"][-1] == pytest.approx(middle_of([np.mean(run[-3:]) for run in runs]), rel=1e-4)
        assert "centred mean over 5" in page.text("curves-caption")


def page_of(folder):
    return folder / "made_up/full/report/report.html"


def middle_of(values):
    return np.mean(sorted(values)[1:-1])  # of five values the interquartile mean is that of three


def test_many_variants_have_a_panel_each_and_rejections_their_reasons(tmp_path):
    variants = {f"v{i} <b>": {"rule.delta": 0.01 + i / 1000} for i in range(7)}
    declared = experiment(tmp_path, variants=variants, seeds=[0, 1])
    trust = {"trust_region/delta": 0.01, "trust_region/kl": 0.005, "line_search/backtracks": 1, "mine/new": 3}
    rows = [r | trust | {"update/rejected": max(0, i - 7)} for i, r in enumerate(learning())]
    for r in rows[8:]:
        r["update/rejection_reason"] = "no <b> step"
    rows = [{k: v for k, v in r.items() if k != "mine/new"} for r in rows]
    write_report(declared, [result(tmp_path, cell, rows) for cell in declared.cells()], tmp_path)
    with browser(tmp_path, "--window-size=400,800") as command:
        page = Reader(command, page_of(tmp_path))
        assert page.script("return document.getElementById('multiples').checked")
        assert len(page.traces("learning-curves", "behind")) == 42  # six others behind each of seven
        (rejections,) = page.script(TRACES, "diagnosis-rejections")
        assert rejections["x"] == [0.2] * 7 and rejections["name"] == "no &lt;b> step"
        assert [trace["x"][0] for trace in page.script(TRACES, "diagnosis-backtracks")] == [0, 1, 0, 0, 0]
        assert len(page.script(TRACES, "diagnosis-kl")) == 7 and len(page.script(TRACES, "diagnosis-time")) >= 1
        assert page.script("return document.documentElement.scrollWidth <= innerWidth")
        assert page.errors() == []


def test_without_scripts_the_still_figures_are_there(tmp_path):
    path = write(tmp_path)
    text = path.read_text(encoding="utf-8")
    quiet = re.sub(r"<script[^>]*>[^<]*(?:<(?!/script)[^<]*)*</script>", "", text)
    path.write_text(quiet, encoding="utf-8")
    with browser(tmp_path) as command:
        command("POST", "url", {"url": path.as_uri()})
        script = {
            "script": "return [...document.images].map(i => [i.naturalWidth > 500, i.offsetHeight > 100])",
            "args": [],
        }
        assert command("POST", "execute/sync", script) == [[True, True], [True, True]]
        hidden = "return ['controls', 'intervals'].map(name => document.getElementById(name).offsetHeight)"
        assert command("POST", "execute/sync", {"script": hidden, "args": []}) == [0, 0]
