"""The parts of the page that consist of text and tables."""

from html import escape

from trpo_lightning.report.diagnosis import Diagnosis
from trpo_lightning.report.page.contents import Report
from trpo_lightning.report.page.markup import definitions, items, table
from trpo_lightning.report.provenance_summary import commands, duration, provenances
from trpo_lightning.report.records import STRETCH, Record, score_of
from trpo_lightning.report.references import for_environment, letters
from trpo_lightning.report.style import steps_text, value_text
from trpo_lightning.report.tables import (
    DEFINITION_HEADINGS,
    HEADINGS,
    NONE,
    VERDICT_HEADINGS,
    explanation,
    number,
    probability,
    readable,
    readable_definitions,
    readable_verdict,
    unfinished,
)
from trpo_lightning.report.verdicts import FAILS, HOLDS, explanation_of_verdicts

NUMERIC = (2, 3, 4, 5, 6, 7, 8)
"""Numeric columns of the table of scores."""
KEPT = (
    "the last evaluation over the best one of the same run (best over last where the best is not above 0, so that less "
    "is always worse). 1: as good as ever; the best is a maximum over noisy evaluations, so a healthy run is a bit "
    "below 1."
)


def header(data: Report) -> str:
    """Title, hypothesis, and the warnings a reader needs before believing the rest."""
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
        lines.append(f'<div class="warn">{items(notes)}</div>')
    return "\n".join(lines)


def scores(data: Report) -> str:
    """The table of statistics."""
    rows, before = [], None
    for summary, texts in zip(data.summaries, readable(data.summaries), strict=True):
        kinds = [*(["default"] if summary.is_default else []), *(["env"] if summary.env_id != before else [])]
        rows.append((" ".join(kinds), [escape(text) for text in texts]))
        before = summary.env_id
    return f'{table(HEADINGS, rows, NUMERIC)}<p class="soft">{escape(explanation(data.experiment))}</p>'


def by_definition(data: Report) -> str:
    """The same runs by each definition of a score."""
    rows, before = [], None
    for d, texts in zip(data.definitions, readable_definitions(data.definitions), strict=True):
        rows.append(("env" if d.env_id != before else "", [escape(text) for text in texts]))
        before = d.env_id
    note = (
        "Training episodes: sampled actions. Evaluations: the deterministic policy. The best one is a MAXIMUM over "
        "training, so it flatters. Compare a published number with the row of its own definition."
    )
    return f'{table(DEFINITION_HEADINGS, rows, (3, 4, 5, 6))}<p class="soft">{note}</p>' if rows else ""


def claims(data: Report) -> str:
    """Each claim with its verdict."""
    if not data.verdicts:
        return ""
    rows = []
    for verdict in data.verdicts:
        says, decided, *rest = map(escape, readable_verdict(verdict, data.experiment))
        kind = {HOLDS: "holds", FAILS: "fails"}.get(verdict.verdict, "open")
        why = decided.removeprefix(verdict.verdict)
        rows.append(("", [says, f'<span class="state {kind}">{escape(verdict.verdict)}</span>{why}', *rest]))
    note = escape(explanation_of_verdicts(data.verdicts, data.experiment))
    return f'{table(VERDICT_HEADINGS, rows, ())}<p class="soft">{note}</p>'


def diagnosis(found: list[Diagnosis]) -> str:
    """Numbers about what happened inside the updates."""
    headings = ("environment", "variant", "updates", "rejected", "reasons", "backtracks", "KL / delta", "KL > delta")
    headings = (*headings, "CG residual", "explained variance")
    rows, before = [], None
    for d in found:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in d.reasons.items())
        share = f"{d.rejected} ({d.rejected / d.iterations:.1%})" if d.rejected else "0"
        spread = f"{d.kl[2]:.2f} [{d.kl[0]:.2f}, {d.kl[-1]:.2f}]" if d.kl else NONE
        above = NONE if d.above != d.above else f"{d.above:.1%}"
        numbers = (number(d.mean_backtracks, 3), spread, above, number(d.residual, 3), number(d.explained_variance, 3))
        texts = (d.env_id, d.variant, f"{d.iterations:,}", share, reasons or NONE, *numbers)
        rows.append(("env" if d.env_id != before else "", [escape(text) for text in texts]))
        before = d.env_id
    note = (
        "All iterations of all runs, also of those that are not finished. Backtracks: mean over updates. KL / delta: "
        "median [5 %, 95 %] of the updates that were made. Residual and explained variance: medians."
    )
    return f'{table(headings, rows, (2, 3, 5, 6, 7, 8, 9))}<p class="soft">{note}</p>'


def published_scores(data: Report) -> str:
    """The references behind the dashed lines."""
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
    return f'{table(headings, rows, (2, 3))}<p class="soft">{escape(note)}</p>'


def runs(records: list[Record]) -> str:
    """Every run, however it ended."""
    names = "environment variant seed state score evaluation best final/best worst_stretch env_steps steps/s time notes"
    headings = [name.replace("_", " ") for name in names.split()]
    rows, before = [], None
    for r in records:
        state = f'<span class="state {escape(r.state)}">{escape(r.state)}</span>'
        best = score_of(r.columns, "best_evaluation")
        numbers = (
            *map(number, (r.score, r.evaluation, best)),
            probability(r.final_over_best),
            probability(r.worst_stretch),
        )
        numbers = (*numbers, f"{r.env_steps:,}", number(r.steps_per_second))
        texts = [escape(r.env_id), escape(r.variant), str(r.seed), state, *numbers, duration(r.wall_seconds)]
        rows.append(("env" if r.env_id != before else "", [*texts, escape("; ".join(r.notes))]))
        before = r.env_id
    listed = table(headings, rows, (2, 4, 5, 6, 7, 8, 9, 10, 11))
    note = (
        "The score of a run that is not finished is that of what it has done; it is in no statistic. "
        f"Evaluation: the last one. Final/best: {KEPT} Worst stretch: the same for the mean training returns of "
        f"{STRETCH:,} env steps in a row and the best such mean before them."
    )
    is_open = " open" if len(records) <= 30 else ""
    return f'<details{is_open}><summary>{len(records)} runs</summary>{listed}<p class="soft">{note}</p></details>'


def provenance(records: list[Record]) -> str:
    """Code, versions, machines and command lines."""
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
    listed = table(("run", "started", "command"), rows, ())
    return f"{definitions(found)}<details><summary>{len(rows)} commands</summary>{listed}</details>"
