import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest
from synthetic_runs import experiment, finished, learning, result

from trpo_lightning.experiment.declaration import Cell
from trpo_lightning.report.references import COLUMNS
from trpo_lightning.report.write import write_report

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
EVIL = "</script><b>&"


class Page(HTMLParser):
    """Addresses that a page would load, its texts, and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def write(folder, **facts):
    (folder / "experiments" / "references").mkdir(parents=True)
    row = "theirs,Hopper,90,80,99,500,Theirs 2020,mean of theirs,their paper,v2"
    (folder / "experiments" / "references" / "some.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    values = {"axes": {"rule.delta": [0.01, 0.1]}, "environments": ["Hopper-v5", "Walker2d-v5"]}
    declared = experiment(
        folder, **{**values, "references": ["theirs"], "known_differences": ["Not the same."], **facts}
    )
    results = finished(folder, declared)
    results[-1] = result(folder, results[-1].cell, learning(1), "failed")
    write_report(declared, results, folder)
    return folder / "made_up/full/report/report.html"


def test_the_page_says_everything_and_loads_nothing(tmp_path):
    text = write(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and page.loads == ["data:,"]
    assert not re.search(r"@import|url\((?!['\"]?(data:|#))", text[: text.index("</style>")])
    words = " ".join(page.text)
    expected = [
        "A title",
        "It learns.",
        "Not the same.",
        "mean return of the last 100",
        "Theirs 2020",
        "mean of theirs",
    ]
    expected += ["their paper", "Hopper-v2", "Not measured on Hopper-v5", "0123456789ab", "torch 2.13.0", "A CPU"]
    expected += ["python -m trpo_lightning train", "failed", "delta=0.01 (default)", "env steps"]
    for part in expected:
        assert part in words, part


def test_names_are_text_not_markup(tmp_path):
    declared = experiment(tmp_path, title=EVIL, hypothesis=EVIL, known_differences=[EVIL], seeds=[0, 1])
    named = type(declared.cells()[0].settings)
    results = []
    for done in finished(tmp_path, declared):
        settings = done.cell.settings
        assert isinstance(settings, named)
        object.__setattr__(settings, "name", EVIL)
        cell = Cell(settings, {"variant": EVIL}, done.cell.directory)
        results.append(type(done)(cell, done.run_dir, done.state))
    write_report(declared, results, tmp_path)
    page = Page((tmp_path / "made_up/full/report/report.html").read_text(encoding="utf-8"))
    assert not page.open and "".join(page.text).count(EVIL) >= 4


@contextmanager
def browser(folder):
    """A function that sends a WebDriver command to a headless Chromium, as `command(method, path, body)`."""
    log = open(folder / "driver.log", "w+", encoding="utf-8")
    process = subprocess.Popen([str(DRIVER), "--port=0"], stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{_port(folder / 'driver.log')}"
        options = {"binary": BROWSER, "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = _send("POST", f"{base}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield lambda method, path, body=None: _send(method, f"{base}/session/{session}/{path}", body)
        finally:
            _send("DELETE", f"{base}/session/{session}")
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _port(log):
    for _ in range(300):
        found = re.search(r"successfully on port (\d+)", log.read_text(encoding="utf-8"))
        if found:
            return found.group(1)
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))


def _send(method, url, body=None):
    data = json.dumps(body or {}).encode() if method == "POST" else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


COUNT = """
const plot = document.getElementById(arguments[0]);
return plot.calcdata.map(d => d[0].trace).filter(t => t.legendgroup === arguments[1])
    .map(t => t.visible === true && t.x.length > 0);
"""
CLICK = """
const entries = [...document.querySelectorAll(`#${arguments[0]} .legend .traces`)];
const entry = entries.find(e => e.textContent.includes(arguments[1]));
const toggle = entry.querySelector('.legendtoggle');
for (const kind of ['mousedown', 'mouseup'])
    toggle.dispatchEvent(new MouseEvent(kind, {bubbles: true, button: 0, view: window}));
return entries.length;
"""


@pytest.mark.skipif(DRIVER is None or BROWSER is None, reason="chromium and chromedriver are not installed")
def test_the_page_works_in_a_browser(tmp_path):
    path = write(tmp_path)
    with browser(tmp_path) as command:

        def script(text, *arguments):
            return command("POST", "execute/sync", {"script": text, "args": list(arguments)})

        command("POST", "url", {"url": path.as_uri()})
        group = "variant delta=0.1"
        assert script(COUNT, "learning-curves", group).count(True) == 5  # a band and a line in each panel, a failed run
        drawn = "return document.querySelectorAll('#learning-curves .scatterlayer .js-line').length"
        before = script(drawn)
        assert before >= 10 and script("return document.querySelectorAll('#sensitivity .errorbar').length") == 4
        assert script(CLICK, "learning-curves", "delta=0.1") == 3
        deadline = time.monotonic() + 20
        while any(script(COUNT, "learning-curves", group)) and time.monotonic() < deadline:
            time.sleep(0.1)  # a click waits for a double click
        assert not any(script(COUNT, "learning-curves", group))
        assert script(drawn) == before - 5
        assert script(COUNT, "learning-curves", "variant delta=0.01").count(True) == 4
        assert script("return performance.getEntriesByType('resource').map(e => e.name)") == []
        errors = [entry for entry in command("POST", "se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
        assert errors == []
