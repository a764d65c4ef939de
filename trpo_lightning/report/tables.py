"""Tables of a report: every run and every comparison, as CSV and Markdown, and the short one on the console."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.records import Record, score_definition
from trpo_lightning.report.statistics import RESAMPLES, Estimate
from trpo_lightning.report.summary import ALL, DEFINITIONS, Defined, Summary
from trpo_lightning.report.verdicts import Verdict, criterion, explanation_of_verdicts
from trpo_lightning.storage.files import write_atomically

RUN_COLUMNS = (
    *("env", "variant", "seed", "state", "score", "evaluation"),
    *("env_steps", "steps_per_second", "wall_seconds", "final_over_best", "worst_stretch", "notes"),
)
SCORE_COLUMNS = (
    *("env", "variant", "default", "finished", "declared", "scored", "mean", "std", "iqm", "ci_low", "ci_high"),
    *("evaluation", "steps_per_second", "improvement", "improvement_low", "improvement_high"),
)
DEFINITION_COLUMNS = ("env", "variant", "definition", "runs", "mean", "std", "iqm", "ci_low", "ci_high")
HEADINGS = (
    *("environment", "variant", "runs", "mean ± std", "IQM", "95 % interval", "evaluation", "steps/s"),
    "P(better than default)",
)
"""Headings of the tables for readers."""
DEFINITION_HEADINGS = ("environment", "variant", "definition", "runs", "mean ± std", "IQM", "95 % interval")
VERDICT_HEADINGS = ("claim", "verdict", "if", "measured", "seeds")
NONE = "-"
WIDE = 400
"""Columns that the console's table may always use, whatever the terminal's width."""


def write_runs(records: list[Record], path: Path) -> None:
    """Write a row for each run, including missing and failed ones; cells without a number are empty."""
    _write(path, RUN_COLUMNS, map(_run_row, records))


def write_scores(summaries: list[Summary], path: Path) -> None:
    """Write a row for each environment and variant; `scored` counts the finished runs that have a score."""
    _write(path, SCORE_COLUMNS, map(_score_row, summaries))


def write_definitions(definitions: list[Defined], path: Path) -> None:
    """Write a row for each environment, variant and definition of a score; without any, there is no file."""
    if definitions:
        _write(path, DEFINITION_COLUMNS, map(_definition_row, definitions))
    else:
        path.unlink(missing_ok=True)  # left over from an earlier report


def write_markdown(
    experiment: Experiment,
    summaries: list[Summary],
    definitions: list[Defined],
    verdicts: list[Verdict],
    warnings: list[str],
    references: list[str],
    path: Path,
) -> None:
    """Write the scores and claims for readers, with explanations."""
    lines = [f"# {experiment.title}", "", *_markdown(HEADINGS, readable(summaries)), "", explanation(experiment), ""]
    if definitions:
        lines += ["## By definition", "", *_markdown(DEFINITION_HEADINGS, readable_definitions(definitions)), ""]
    if verdicts:
        table = _markdown(VERDICT_HEADINGS, [readable_verdict(verdict, experiment) for verdict in verdicts])
        lines += ["## Claims", "", *table, "", explanation_of_verdicts(verdicts, experiment), ""]
    for heading, items in (("Published scores", references), ("Warnings", warnings)):
        lines += [f"## {heading}", "", *(f"- {item}" for item in items), ""] if items else []
    write_atomically(path, ("\n".join(lines).rstrip() + "\n").encode())


def readable(summaries: list[Summary]) -> list[tuple[str, ...]]:
    """The rows under `HEADINGS`, as text."""
    rows = []
    for s in summaries:
        whole = s.env_id != ALL
        rows.append(
            (
                s.env_id,
                f"{s.variant} (default)" if s.is_default else s.variant,
                f"{s.finished}/{s.declared}",
                f"{number(s.mean)} ± {number(s.std)}" if s.std == s.std else number(s.mean),
                number(s.score.value),
                interval(s.score, len(s.scores)) if whole else NONE,
                number(s.evaluation) if whole else NONE,
                number(s.steps_per_second),
                improvement(s.improvement, s),
            )
        )
    return rows


def readable_definitions(definitions: list[Defined]) -> list[tuple[str, ...]]:
    """The rows under `DEFINITION_HEADINGS`, as text."""
    return [
        (
            d.env_id,
            d.variant,
            DEFINITIONS[d.definition],
            str(len(d.scores)),
            f"{number(d.mean)} ± {number(d.std)}" if d.std == d.std else number(d.mean),
            number(d.iqm.value),
            interval(d.iqm, len(d.scores)),
        )
        for d in definitions
    ]


def readable_verdict(verdict: Verdict, experiment: Experiment) -> tuple[str, ...]:
    """The row under `VERDICT_HEADINGS`, as text."""
    why = f" ({verdict.reason})" if verdict.reason else ""
    return (
        verdict.claim.says,
        f"{verdict.verdict}{why}",
        criterion(verdict.claim, experiment),
        measured(verdict),
        f"{verdict.seeds} (least {verdict.claim.seeds})",
    )


def measured(verdict: Verdict) -> str:
    """A claim's statistic with its interval."""
    estimate = verdict.estimate
    ends = f" [{number(estimate.low)}, {number(estimate.high)}]" if estimate.has_interval else ""
    return f"{number(estimate.value)}{ends}"


def explanation(experiment: Experiment) -> str:
    """Explains the numbers in the table of scores."""
    definition = score_definition(experiment.score, experiment.metric)
    return (
        f"Score of a run: {definition}. IQM: interquartile mean over finished runs; runs: finished/declared. "
        "Intervals: "
        f"95 %, percentile bootstrap over runs ({RESAMPLES} resamples), too narrow for few runs, none for one. "
        "evaluation: median over runs of the last evaluation (deterministic policy). P(better than default): "
        "probability that a run scores higher than one of the default variant in the same environment, ties counting "
        f"half; {ALL}: mean over environments."
    )


def print_table(
    experiment: Experiment,
    records: list[Record],
    summaries: list[Summary],
    verdicts: list[Verdict],
    warnings: list[str],
) -> None:
    """Print the short table that ends an experiment, with its claims and the unfinished runs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("environment", "variant"):
        table.add_column(column)
    for column in ("runs", "score*", "95 %", "eval", "steps/s", "P(>def)"):
        table.add_column(column, justify="right")
    rows = [s for s in summaries if s.env_id != ALL]
    compared = any(s.is_default for s in rows)
    for s in rows:
        ends = f"{number(s.score.low, 3)}..{number(s.score.high, 3)}" if s.score.has_interval else NONE
        better = "default" if s.is_default else probability(s.improvement.value)
        numbers = (number(s.score.value), ends, number(s.evaluation), number(s.steps_per_second), better)
        table.add_row(escape(s.env_id), escape(s.variant), f"{s.finished}/{s.declared}", *numbers)
    if not compared:
        table.columns.pop()
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, WIDE)  # names too long for a terminal wrap there instead of being cut
    console.print(table)
    definition = score_definition(experiment.score, experiment.metric).partition(" (")[0]
    console.print(f"[dim]* {definition}; interquartile mean over runs[/dim]")
    if compared:
        console.print("[dim]P(>def): probability that a run scores higher than one of the default[/dim]")
    for verdict in verdicts:
        why = f"; {verdict.reason}" if verdict.reason else ""
        console.print(escape(f"claim: {verdict.claim.says.rstrip('.')}: {verdict.verdict} ({measured(verdict)}{why})"))
    for line in [*unfinished(records), *(f"warning: {warning}" for warning in warnings)]:
        console.print(f"[yellow]{escape(line)}[/yellow]")


def unfinished(records: list[Record], most: int = 6) -> list[str]:
    """A line for each state except finished: the number of runs, and the first of them."""
    counts = Counter(record.state for record in records if not record.finished)
    lines = []
    for state, count in counts.items():
        names = [record.name for record in records if record.state == state]
        rest = f" and {count - most} more" if count > most else ""
        lines.append(f"{count} {state}: {', '.join(names[:most])}{rest}")
    return lines


def number(value: float, digits: int = 4) -> str:
    """A number with at least `digits` digits and no more decimals than they need; a dash for NaN."""
    if value != value:
        return NONE
    whole = len(f"{abs(value):.0f}")
    return f"{value:,.{max(0, digits - whole)}f}" if abs(value) >= 1 or value == 0 else f"{value:.{digits - 1}g}"


def interval(estimate: Estimate, runs: int) -> str:
    """Both ends of an interval, or why there is none."""
    if estimate.has_interval:
        return f"[{number(estimate.low)}, {number(estimate.high)}]"
    return "none: one run" if runs == 1 else NONE


def probability(value: float) -> str:
    """A probability with two decimals; a dash for NaN."""
    return NONE if value != value else f"{value:.2f}"


def improvement(estimate: Estimate, summary: Summary) -> str:
    """The probability with its interval."""
    if estimate.value != estimate.value:
        return NONE
    ends = f"[{estimate.low:.2f}, {estimate.high:.2f}]" if estimate.has_interval else "(no interval: one run)"
    return f"{estimate.value:.2f} {ends}"


def _run_row(r: Record) -> list[Any]:
    numbers = (_plain(r.score), _plain(r.evaluation), r.env_steps, _plain(r.steps_per_second, 1))
    notes = "; ".join(r.notes)
    return [
        r.env_id,
        r.variant,
        r.seed,
        r.state,
        *numbers,
        _plain(r.wall_seconds, 1),
        _plain(r.final_over_best, 3),
        _plain(r.worst_stretch, 3),
        notes,
    ]


def _score_row(s: Summary) -> list[Any]:
    counts = ("yes" if s.is_default else "", s.finished, s.declared, len(s.scores))
    estimates = (s.mean, s.std, s.score.value, s.score.low, s.score.high, s.evaluation)
    p = s.improvement
    ends = (_plain(p.value, 4), _plain(p.low, 4), _plain(p.high, 4))
    return [s.env_id, s.variant, *counts, *map(_plain, estimates), _plain(s.steps_per_second, 1), *ends]


def _definition_row(d: Defined) -> list[Any]:
    numbers = (d.mean, d.std, d.iqm.value, d.iqm.low, d.iqm.high)
    return [d.env_id, d.variant, d.definition, len(d.scores), *map(_plain, numbers)]


def _plain(value: float, digits: int = 2) -> float | str:
    return "" if value != value else round(value, digits)


def _markdown(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]
    return [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}", *lines]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[list[Any]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, file.getvalue().encode())
