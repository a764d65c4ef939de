"""What an experiment's file declares, and functions of it for findings: title, settings, published scores."""

import functools
import re
from pathlib import Path
from typing import Any

from generate import findings
from generate.folder import ResultsFolder
from trpo_lightning.errors import UserError, nearest
from trpo_lightning.experiment.declaration import Experiment, load_experiment
from trpo_lightning.report.references import Reference, read_references
from trpo_lightning.settings import RunSettings, get, keys

ROOT = Path(__file__).parents[2]
FINDINGS = "findings.md"


def title(folder: ResultsFolder) -> str:
    """The experiment's title; for other runs the heading of their findings, or the folder's name as words."""
    experiment, text = declared(folder), folder.path / FINDINGS
    heading = re.match(r"# (.*)", text.read_text("utf-8")) if text.exists() else None
    if experiment:
        return experiment.title
    return heading[1] if heading else folder.name.replace("_", " ").capitalize()


@functools.cache
def declared(folder: ResultsFolder) -> Experiment | None:
    """The experiment at the scale that was run; None for results of single runs."""
    if not (folder.path.parents[1] / f"{folder.name}.yaml").exists():
        return None
    return load_experiment(folder.name, folder.scale)


def vocabulary(folder: ResultsFolder) -> dict[str, Any]:
    """Functions for findings: about their folder, the experiment's settings, and published scores."""

    def setting(key: str, env: str | None = None, variant: str | None = None) -> Any:
        values = {
            str(value): value
            for run in _declared_runs(folder)
            if env in (None, run.env.id) and variant in (None, run.name)
            for value in [_setting(run, key)]
        }
        if len(values) != 1:
            where = f"{env or 'all environments'}, {variant or 'all variants'}"
            found = ", ".join(values) or "there are no such runs"
            raise UserError(f"{folder.name}: {key} has {len(values)} values in {where}: {found}")
        return next(iter(values.values()))

    return findings.vocabulary(folder, published) | {"setting": setting}


def published(key: str, env: str) -> Reference:
    """The published score with a key in an environment of any version. Raises `UserError` if there is none."""
    known = _references()
    if (key, env) not in known:
        choices = [f"{key} {env}" for key, env in known]
        hint = nearest(f"{key} {env}", choices)
        raise UserError(f"experiments/references: there is no published score {key} of {env}{hint}")
    return known[key, env]


@functools.cache
def _references() -> dict[tuple[str, str], Reference]:
    found = [
        row for file in sorted((ROOT / "experiments" / "references").glob("*.csv")) for row in read_references(file)
    ]
    return {(reference.key, reference.env): reference for reference in found}


@functools.cache
def _declared_runs(folder: ResultsFolder) -> list[RunSettings]:
    """One run for each environment and variant, because the others differ only in the seed."""
    experiment = declared(folder)
    settings = [cell.settings for cell in experiment.cells()] if experiment else []
    return list({(run.env.id, run.name): run for run in settings}.values())


def _setting(settings: RunSettings, key: str) -> Any:
    if key not in keys(settings):
        raise UserError(f"there is no setting {key}{nearest(key, list(keys(settings)))}")
    return get(settings, key)
