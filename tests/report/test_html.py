import re
from html.parser import HTMLParser

from synthetic_runs import experiment, finished, learning, result

from trpo_lightning.experiment.declaration import Cell
from trpo_lightning.report.references import COLUMNS
from trpo_lightning.report.write import write_report

EVIL = "</script><b>&"


class Page(HTMLParser):
    """Addresses that a page would load, its texts, and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "link", "br", "img", "input"):
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
    assert not page.open and page.loads[0] == "data:,"
    assert all(address.startswith("data:image/png;base64,") for address in page.loads[1:]) and len(page.loads) == 3
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
