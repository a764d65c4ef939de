"""Assembles `report.html`: data, scripts, styles, controls, figures and text."""

import functools
import json
from html import escape
from importlib.resources import files
from pathlib import Path

from trpo_lightning.report.heat_map import heat_map_caption
from trpo_lightning.report.page import sections
from trpo_lightning.report.page.contents import Report
from trpo_lightning.report.page.markup import definitions, figure, items, packed, section
from trpo_lightning.report.page.payload import X_AXES, metric_names, payload
from trpo_lightning.report.panels import Panel
from trpo_lightning.report.provenance_summary import costs
from trpo_lightning.report.records import score_definition
from trpo_lightning.report.style import INTERVALS_CAPTION, curves_caption
from trpo_lightning.storage.files import write_atomically

SCRIPTS = ("statistics", "plots", "curves", "scores", "diagnosis", "own_panels", "main")
"""Our scripts in the order in which they form one module in the page."""
SMOOTHING = (5, 11, 25, 51)
"""Iterations that a reader can choose to average over."""


def write_page(data: Report, stills: dict[str, Path], path: Path) -> None:
    """Write `report.html`; the same runs give the same bytes.

    Args:
        data: The page's contents.
        stills: PNG files by figure name, shown until the interactive figures are drawn, or if they cannot be.
        path: The file to write.
    """
    parts = [
        sections.header(data),
        section("Learning curves", _curves(data, stills)),
        section("Scores, best first", _ranking(data, stills)),
        section("Sensitivity", _sensitivity(data, stills)),
        section("Heat map", _heat_map(data, stills)),
        section("Claims", sections.claims(data)),
        section("Scores", sections.scores(data)),
        section("Scores by definition", sections.by_definition(data)),
        section("Diagnosis", _diagnosis(data)),
        *(section(escape(panel.title), _own_panel(panel, index)) for index, panel in enumerate(data.panels)),
        section("Published scores", sections.published_scores(data)),
        section("Known differences", items(data.experiment.known_differences)),
        section("Runs", sections.runs(data.records)),
        section("Cost", definitions(costs(data.records).items())),
        section("Origin", sections.provenance(data.records)),
    ]
    body = "\n".join(filter(None, parts))
    parts = ("<!doctype html>", f'<html lang="en">{_head(data)}', "<body><main>", body, "</main>", _scripts(data))
    text = "\n".join([*parts, "</body></html>\n"])
    write_atomically(path, text.encode())


def _head(data: Report) -> str:
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    scheme = '<meta name="color-scheme" content="light dark">'
    icon = '<link rel="icon" href="data:,">'  # otherwise browsers request one
    title = f"<title>{escape(data.experiment.title)}</title>"
    return f"<head>{meta}{scheme}{icon}{title}<style>{_asset('report.css')}</style></head>"


def _scripts(data: Report) -> str:
    """Plotly and the data, compressed, and our own scripts, readable."""
    text = json.dumps(payload(data), separators=(",", ":"), allow_nan=False)
    own = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return f'{_plotly()}\n{packed("data", text)}\n<script type="module">\n{own}</script>'


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return packed("plotly", get_plotlyjs())


def _asset(name: str) -> str:
    return (files("trpo_lightning.report.page") / name).read_text(encoding="utf-8")


def _curves(data: Report, stills: dict[str, Path]) -> str:
    names = metric_names(data.records)
    if not names:
        return "<p>No run has data yet.</p>"
    caption = escape(curves_caption(data.experiment, data.curves))
    drawn = figure("learning-curves", "Learning curves", stills.get("learning_curves"))
    return f'{_controls(data, names)}{drawn}<p class="soft" id="curves-caption">{caption}</p>'


def _controls(data: Report, names: list[str]) -> str:
    """Controls of what is drawn, also by keyboard; hidden until the script that handles them runs."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("/")[0] or "run", []).append(name)
    chosen = data.experiment.metric if data.experiment.metric in names else names[0]
    options = "".join(
        f'<optgroup label="{escape(group)}">{"".join(_option(name, name, chosen) for name in members)}</optgroup>'
        for group, members in groups.items()
    )
    places = "".join(_option(key, label, data.experiment.x) for key, label in X_AXES.items())
    means = _option("1", "off", "1") + "".join(_option(str(n), f"mean of {n} iterations", "1") for n in SMOOTHING)
    boxes = {"raw": "single runs", "multiples": "a panel each", "log": "log y"}
    checks = "".join(
        f'<label class="check"><input type="checkbox" id="{k}">{text}</label>' for k, text in boxes.items()
    )
    return (
        '<form class="controls" id="controls" autocomplete="off">'
        f'<label>y <select id="y">{options}</select></label><label>x <select id="x">{places}</select></label>'
        f'<label>smoothing <select id="smoothing">{means}</select></label>{checks}'
        '<fieldset id="legend"><legend>variants, in all figures</legend></fieldset></form>'
    )


def _option(value: str, text: str, chosen: str) -> str:
    selected = " selected" if value == chosen else ""
    return f'<option value="{escape(value)}"{selected}>{escape(text)}</option>'


def _ranking(data: Report, stills: dict[str, Path]) -> str:
    if not any(len(summary.scores) for summary in data.summaries):
        return ""
    definition = escape(score_definition(data.experiment.score, data.experiment.metric))
    caption = f'<p class="soft">Score: {definition}. {INTERVALS_CAPTION}'
    pictures = figure("intervals", "Scores of all variants with intervals, best first", stills.get("score_intervals"))
    if any(record.final_over_best == record.final_over_best for record in data.records):
        pictures += figure("final-over-best", "Final over best evaluation of each run")
        caption += f" Final/best, a dot for each run: {sections.KEPT}"
    return f'<div class="pair">{pictures}</div>{caption}</p>'


def _sensitivity(data: Report, stills: dict[str, Path]) -> str:
    if not data.sensitivities:
        return ""
    drawn = figure("sensitivity", "Scores against the level of the axis", stills.get("sensitivity"))
    definition = score_definition(data.experiment.score, data.experiment.metric)
    caption = (
        "Interquartile mean over finished runs, 95 % bootstrap interval; dots are runs, the framed point the default."
    )
    return f'{drawn}<p class="soft">{caption} Score: {escape(definition)}.</p>'


def _heat_map(data: Report, stills: dict[str, Path]) -> str:
    if not data.heat_maps:
        return ""
    drawn = figure("heat-map", "Scores over the levels of two axes", stills.get("heat_map"))
    return f'{drawn}<p class="soft">{escape(heat_map_caption(data.experiment))}</p>'


def _diagnosis(data: Report) -> str:
    if not data.diagnoses:
        return ""
    env_ids = list(dict.fromkeys(diagnosis.env_id for diagnosis in data.diagnoses))
    options = "".join(_option(env_id, env_id, env_ids[0]) for env_id in env_ids)
    where = f'<label>environment <select id="where">{options}</select></label>'
    choice = f'<form class="controls" autocomplete="off"{" hidden" if len(env_ids) == 1 else ""}>{where}</form>'
    says = {
        "rejections": "Rejected updates by reason, share of iterations",
        "backtracks": "Backtracks of the line search, share of updates",
        "kl": "KL over delta of the updates that were made",
        "time": "Share of the wall clock of each part of an iteration",
    }
    pictures = "".join(figure(f"diagnosis-{name}", text) for name, text in says.items())
    return f'{choice}<div class="pair">{pictures}</div>{sections.diagnosis(data.diagnoses)}'


def _own_panel(panel: Panel, index: int) -> str:
    drawn = figure(f"own-panel-{index}", panel.title) if panel.figure is not None else ""
    caption = f'<p class="soft">{escape(panel.text)}</p>' if panel.text else ""
    return f"{drawn}{panel.html}{caption}" or "<p>Nothing.</p>"
