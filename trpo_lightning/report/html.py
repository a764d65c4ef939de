"""One self-contained page: figures, tables, definitions, origin and cost. It opens from disk and loads nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.heat_map import HeatMap, heat_map_caption, heat_map_html
from trpo_lightning.report.interactive import curves_html, javascript, sensitivity_html
from trpo_lightning.report.provenance_summary import commands, costs, duration, provenances
from trpo_lightning.report.records import Record, score_definition
from trpo_lightning.report.references import Reference, for_environment, letters
from trpo_lightning.report.style import Sensitivity, Style, curves_caption, steps_text, value_text
from trpo_lightning.report.summary import Curve, Summary
from trpo_lightning.report.tables import (
    HEADINGS,
    VERDICT_HEADINGS,
    explanation,
    number,
    readable,
    readable_verdict,
    unfinished,
)
from trpo_lightning.report.verdicts import FAILS, HOLDS, Verdict, explanation_of_verdicts
from trpo_lightning.storage.files import write_atomically

CSS = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d9dee3; --back: #f6f8fa; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink); background: white;
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 1180px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; } .soft { color: var(--soft); font-size: .88rem; } .lead { font-size: 1.05rem; max-width: 75ch; }
.soft, li { max-width: 110ch; } ul { padding-left: 1.2rem; margin: .4rem 0; }
.warn { background: #fff8e5; border: 1px solid #e8cf86; border-radius: 6px; padding: .6rem 1rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line);
  white-space: nowrap; }
th, td { padding: .3rem .9rem .3rem 0; vertical-align: top; } td { border-bottom: 1px solid #eceff2; }
td.n, th.n { text-align: right; white-space: nowrap; } tr.default td { background: var(--back); font-weight: 600; }
tr.env td { border-top: 2px solid var(--line); }
.state { border-radius: 9px; padding: .05rem .55rem; font-size: .8rem; background: #fbe9a7; white-space: nowrap; }
.finished, .holds { background: #d3f2dc; } .failed, .fails { background: #ffd8d3; }
.missing, .open { background: #e6e9ed; }
code, .code { font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; word-break: break-all; }
summary { cursor: pointer; color: var(--soft); margin: .5rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; }
"""
NUMERIC = (2, 3, 4, 5, 6, 7, 8)
"""Columns of the scores that are numbers."""


@dataclass(frozen=True)
class Report:
    """Everything that the outputs show; `default` is the variant that others are compared with, or empty."""

    experiment: Experiment
    records: list[Record]
    summaries: list[Summary]
    curves: list[Curve]
    styles: dict[str, Style]
    sensitivities: list[Sensitivity]
    heat_maps: list[HeatMap]
    verdicts: list[Verdict]
    references: list[Reference]
    warnings: list[str]
    default: str


def write_page(data: Report, path: Path) -> None:
    """Write `report.html`; the same runs give the same bytes."""
    experiment = data.experiment
    head = f"<title>{escape(experiment.title)}</title><style>{CSS}</style><script>{javascript()}</script>"
    sections = [
        _header(data),
        _section("Learning curves", _curves(data)),
        _section("Sensitivity", _sensitivity(data)),
        _section("Heat map", _heat_map(data)),
        _section("Claims", _claims(data)),
        _section("Scores", _scores(data)),
        _section("Published scores", _references(data)),
        _section("Known differences", _items(experiment.known_differences)),
        _section("Runs", _runs(data.records)),
        _section("Cost", _definitions(costs(data.records).items())),
        _section("Origin", _origin(data.records)),
    ]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'  # or a browser asks for one
    body = "\n".join(filter(None, sections))
    text = f'<!doctype html>\n<html lang="en"><head>{meta}{icon}{head}</head>\n<body>\n{body}\n</body></html>\n'
    write_atomically(path, text.encode())


def _header(data: Report) -> str:
    experiment = data.experiment
    finished = sum(record.finished for record in data.records)
    state = f"{finished} of {len(data.records)} runs finished"
    lines = [
        f"<h1>{escape(experiment.title)}</h1>",
        f'<p class="soft">experiment <code>{escape(experiment.name)}</code>, '
        f"scale <code>{escape(experiment.scale)}</code> &middot; {state}</p>",
        f'<p class="lead"><b>Hypothesis.</b> {escape(experiment.hypothesis)}</p>',
    ]
    notes = [*unfinished(data.records), *data.warnings]
    if notes:
        lines.append(f'<div class="warn">{_items(notes)}</div>')
    return "\n".join(lines)


def _curves(data: Report) -> str:
    figure = curves_html(data.experiment, data.curves, data.styles, data.references)
    if not figure:
        return "<p>No run has data yet.</p>"
    caption = curves_caption(data.experiment, data.curves)
    if data.references:
        caption += (
            " Dashed lines: published scores, see below; a diamond marks the end of their budget where it is in view."
        )
    caption += " Click a legend entry to hide or show it, double-click for it alone."
    return f'{figure}<p class="soft">{escape(caption)}</p>'


def _sensitivity(data: Report) -> str:
    figure = sensitivity_html(data.experiment, data.sensitivities)
    if not figure:
        return ""
    caption = (
        "Interquartile mean over finished runs, 95 % bootstrap interval; dots are runs, the framed point the default."
    )
    definition = score_definition(data.experiment.score, data.experiment.metric)
    return f'{figure}<p class="soft">{caption} Score: {escape(definition)}.</p>'


def _scores(data: Report) -> str:
    rows, before = [], None
    for summary, texts in zip(data.summaries, readable(data.summaries), strict=True):
        kinds = [*(["default"] if summary.is_default else []), *(["env"] if summary.env_id != before else [])]
        rows.append((" ".join(kinds), [escape(text) for text in texts]))
        before = summary.env_id
    return f'{_table(HEADINGS, rows, NUMERIC)}<p class="soft">{escape(explanation(data.experiment))}</p>'


def _heat_map(data: Report) -> str:
    figure = heat_map_html(data.heat_maps)
    return f'{figure}<p class="soft">{escape(heat_map_caption(data.experiment))}</p>' if figure else ""


def _claims(data: Report) -> str:
    if not data.verdicts:
        return ""
    rows = []
    for verdict in data.verdicts:
        says, decided, *rest = map(escape, readable_verdict(verdict, data.experiment))
        kind = {HOLDS: "holds", FAILS: "fails"}.get(verdict.verdict, "open")
        why = decided.removeprefix(verdict.verdict)
        rows.append(("", [says, f'<span class="state {kind}">{escape(verdict.verdict)}</span>{why}', *rest]))
    note = escape(explanation_of_verdicts(data.verdicts, data.experiment))
    return f'{_table(VERDICT_HEADINGS, rows, ())}<p class="soft">{note}</p>'


def _references(data: Report) -> str:
    marks, rows = letters(data.references), []
    env_ids = list(dict.fromkeys(record.env_id for record in data.records))
    for key, mark in marks.items():
        group = [r for e in env_ids for r in for_environment(data.references, e) if r.key == key]
        if group:
            scores = "<br>".join(f"{escape(r.env_id)}: {value_text(r)}" for r in group)
            steps = " or ".join(dict.fromkeys(steps_text(r.env_steps) for r in group))
            texts = [escape(text) for text in (mark, group[0].label, steps, group[0].definition, group[0].source)]
            rows.append(("", [*texts[:2], scores, *texts[2:]]))
    if not rows:
        return ""
    headings = ("", "source", "score [interval]", "env steps", "definition", "where")
    note = "Each number has its own definition of a score: compare like with like."
    others = [e for e in env_ids if any(r.env_id != e for r in for_environment(data.references, e))]
    if others:
        note += f" Not measured on {', '.join(others)} but on the versions named: returns may differ for that alone."
    return f'{_table(headings, rows, (2, 3))}<p class="soft">{escape(note)}</p>'


def _runs(records: list[Record]) -> str:
    headings = (
        "environment",
        "variant",
        "seed",
        "state",
        "score",
        "evaluation",
        "env steps",
        "steps/s",
        "time",
        "notes",
    )
    rows, before = [], None
    for r in records:
        state = f'<span class="state {escape(r.state)}">{escape(r.state)}</span>'
        numbers = (number(r.score), number(r.evaluation), f"{r.env_steps:,}", number(r.steps_per_second))
        texts = [escape(r.env_id), escape(r.variant), str(r.seed), state, *numbers, duration(r.wall_seconds)]
        rows.append(("env" if r.env_id != before else "", [*texts, escape("; ".join(r.notes))]))
        before = r.env_id
    table = _table(headings, rows, (2, 4, 5, 6, 7, 8))
    note = "The score of a run that is not finished is that of what it has done; it is in no statistic."
    is_open = " open" if len(records) <= 30 else ""
    return f'<details{is_open}><summary>{len(records)} runs</summary>{table}<p class="soft">{note}</p></details>'


def _origin(records: list[Record]) -> str:
    found = []
    for fact in provenances(records):
        several = len(fact.values) > 1
        texts = [f"{value} ({len(runs)} runs)" if several else value for value, runs in fact.values.items()]
        found.append((fact.name, "; ".join(texts)))
    if not found:
        return "<p>Unknown: no run has a <code>provenance.json</code>.</p>"
    rows = [
        ("", [escape(name), escape(start), f"<code>{escape(text)}</code>"]) for name, start, text in commands(records)
    ]
    table = _table(("run", "started", "command"), rows, ())
    return f"{_definitions(found)}<details><summary>{len(rows)} commands</summary>{table}</details>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>" if content else ""


def _items(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(str(text))}</li>' for text in texts)}</ul>" if texts else ""


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in pairs)}</dl>"


def _table(headings: Sequence[str], rows: list[tuple[str, list[str]]], numeric: Sequence[int]) -> str:
    """A table of cells that are HTML already; each row has its class in front."""
    kinds = [' class="n"' if index in numeric else "" for index in range(len(headings))]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, headings, strict=True))
    lines = []
    for name, cells in rows:
        inner = "".join(f"<td{kind}>{text}</td>" for kind, text in zip(kinds, cells, strict=True))
        lines.append(f'<tr class="{name}">{inner}</tr>' if name else f"<tr>{inner}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
