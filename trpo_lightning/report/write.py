"""Writes the runs so far as figures, tables and one self-contained page."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from trpo_lightning.experiment.declaration import Experiment, safe_name
from trpo_lightning.experiment.runner import CellResult
from trpo_lightning.report.diagnosis import diagnose
from trpo_lightning.report.external import external_records
from trpo_lightning.report.figures.curves import draw_curves
from trpo_lightning.report.figures.heat_map import draw_heat_map
from trpo_lightning.report.figures.reuse import reuse_panels
from trpo_lightning.report.figures.scores import draw_intervals, draw_sensitivity
from trpo_lightning.report.heat_map import heat_maps
from trpo_lightning.report.page.contents import Report
from trpo_lightning.report.page.document import write_page
from trpo_lightning.report.panels import own_panels
from trpo_lightning.report.provenance_summary import provenance_warnings
from trpo_lightning.report.records import Record, read_record
from trpo_lightning.report.references import chosen_references
from trpo_lightning.report.style import panel_of, references_caption, sensitivities, styles
from trpo_lightning.report.summary import by_cell, by_definition, curves, summarize
from trpo_lightning.report.tables import print_table, write_definitions, write_markdown, write_runs, write_scores
from trpo_lightning.report.tracked import tracked_records
from trpo_lightning.report.verdicts import judge

EQUAL = 0.95
"""Share of the longest run's env steps from which another one is as long."""
LONGEST_NAME = 200
"""Bytes of a report's folder name, from which on a hash stands for what was chosen; file systems take 255."""
FIGURES = ("learning_curves", "score_intervals", "sensitivity", "heat_map")
"""Names of the static figures, written as PNG and PDF."""


def write_report(
    experiment: Experiment,
    results: list[CellResult],
    root: Path,
    external: Sequence[str] = (),
    panels: Sequence[str] = (),
    tracker: str | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """Write figures, tables and `report.html` to `report/` in the experiment's directory, and print a table.

    A report of some of the declared runs is written beside it, to a folder named after what they have in common.
    Missing, failed and running runs are shown as such everywhere.

    Args:
        experiment: The experiment.
        results: The states of its runs.
        root: Folder of all runs.
        external: Specifications of curves from elsewhere (see `external_records`).
        panels: Names of the user's functions for custom panels (see `own_panels`).
        tracker: Where to read the runs from instead of their directories (see `tracked_records`).
        arguments: What chose the runs, as for `Experiment.cells`.

    Raises:
        UserError: A file cannot be read, a user's function fails, or the tracker has none of the runs.
    """
    data = _gather(experiment, results, external, panels, tracker)
    folder = root / experiment.directory / _folder_name(experiment, results, arguments)
    folder.mkdir(parents=True, exist_ok=True)
    figures = [folder / f"{name}.png" for name in FIGURES]
    drawn = [
        draw_curves(experiment, data.curves, data.styles, data.references, figures[0]),
        draw_intervals(experiment, data.summaries, data.styles, figures[1]),
        draw_sensitivity(experiment, data.sensitivities, figures[2]),
        draw_heat_map(experiment, data.heat_maps, figures[3]),
    ]
    for figure, is_there in zip(figures, drawn, strict=True):
        if not is_there:  # left over from an earlier report
            for suffix in (".png", ".pdf"):
                figure.with_suffix(suffix).unlink(missing_ok=True)
    write_runs(data.records, folder / "runs.csv")
    write_scores(data.summaries, folder / "scores.csv")
    write_definitions(data.definitions, folder / "scores_by_definition.csv")
    captions = references_caption(data.references, [record.env_id for record in data.records])
    tables = (data.summaries, data.definitions, data.verdicts)
    write_markdown(experiment, *tables, data.warnings, captions, folder / "scores.md")
    stills = {figure.stem: figure for figure, is_there in zip(figures, drawn, strict=True) if is_there}
    write_page(data, stills, folder / "report.html")
    print()
    print_table(experiment, data.records, data.summaries, data.verdicts, data.warnings)
    _print_places(folder, list(stills.values()))
    declared = len(experiment.cells())
    if len(results) < declared:
        print(f"note    this report has {len(results)} of {declared} declared runs: `report` without arguments has all")


def _folder_name(experiment: Experiment, results: list[CellResult], arguments: Sequence[str]) -> str:
    """`report`, or that with what narrowed the runs, so that a report of all is not replaced by one of some."""
    if {cell.directory for cell in experiment.cells()} <= {result.cell.directory for result in results}:
        return "report"
    keys = ("seed", "env.id", "name", *experiment.axes, *experiment.search.get("ranges", {}))
    chosen = "_".join(text for text in arguments if text.partition("=")[0] in keys) or "some"
    name = safe_name(f"report_{chosen}")
    if len(name.encode()) > LONGEST_NAME:
        name = f"report_{hashlib.sha256(chosen.encode()).hexdigest()[:12]}"
    return name


def _gather(
    experiment: Experiment,
    results: list[CellResult],
    external: Sequence[str],
    panels: Sequence[str],
    tracker: str | None,
) -> Report:
    """Collect everything that the outputs show."""
    references = chosen_references(experiment)
    if tracker:
        records = tracked_records(tracker, experiment, results)
    else:
        records = [read_record(result, experiment) for result in results]
    records.sort(key=_order(results))
    wanted = {result.cell.directory for result in results}
    joined = [record for text in external for record in external_records(text, experiment, wanted)]
    records += joined
    default = "" if experiment.search else _compared(experiment.default_name(), records)
    return Report(
        experiment=experiment,
        records=records,
        summaries=(summaries := summarize(records, default)),
        definitions=by_definition(records),
        curves=curves(records, experiment.metric, experiment.x, panel_of(experiment, records)),
        styles=styles(experiment, records, default),
        sensitivities=sensitivities(experiment, summaries),
        heat_maps=heat_maps(experiment, summaries),
        verdicts=judge(experiment, records),
        diagnoses=diagnose(records),
        panels=[*reuse_panels(records), *own_panels(panels, records)],
        references=references,
        warnings=_warnings(records),
        default=default,
    )


def _compared(default: str, records: list[Record]) -> str:
    """The default's name if another variant shares one of its environments; else there is nothing to compare."""
    env_ids = {record.env_id for record in records if record.variant == default}
    others = any(record.env_id in env_ids and record.variant != default for record in records)
    return default if others else ""


def _order(results: list[CellResult]):
    """A sort key: environments and variants as declared, then seeds."""
    env_ids = list(dict.fromkeys(result.cell.settings.env.id for result in results))
    variants = list(dict.fromkeys(result.cell.settings.name for result in results))
    return lambda record: (env_ids.index(record.env_id), variants.index(record.variant), record.seed)


def _warnings(records: list[Record]) -> list[str]:
    """Warnings that a reader needs before believing the numbers."""
    notes: dict[str, list[str]] = {}
    for record in records:
        for note in record.notes:
            notes.setdefault(note, []).append(record.name)
    found = [f"{names[0] if len(names) == 1 else f'{len(names)} runs'} {note}" for note, names in notes.items()]
    if any(record.state == "failed" for record in records):
        found.append(
            "failed runs are in no statistic: if they failed because they learned badly, the scores are too good"
        )
    scoreless = [record.name for record in records if record.finished and record.score != record.score]
    if scoreless:
        found.append(f"finished without a score: {', '.join(scoreless)}")
    return found + _unequal(records) + provenance_warnings(records)


def _unequal(records: list[Record]) -> list[str]:
    """A warning for each variant that pools finished runs of unequal numbers of steps."""
    found = []
    for (env_id, variant), group in by_cell(records).items():
        steps = [record.env_steps for record in group if record.finished and record.env_steps]
        if steps and min(steps) < EQUAL * max(steps):
            name = f"{env_id} {variant}"
            found.append(f"{name}: its runs end after {min(steps):,} to {max(steps):,} env steps, and are pooled")
    return found


def _print_places(folder: Path, figures: list[Path]) -> None:
    print()
    for figure in figures:
        print(f"figure  {figure}")
    print(f"table   {folder / 'scores.csv'}")
    print(f"report  {folder / 'report.html'}")
    print(f"runs    {folder.parent}/<environment>/<variant>/seed_<n>")
