"""Published numbers to compare results with, each with the definition of its score."""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.experiment.declaration import Experiment

COLUMNS = ("key", "env", "score", "low", "high", "env_steps", "label", "definition", "source", "version")


@dataclass(frozen=True)
class Reference:
    """A published score in one environment; `env` has no version, `version` is the one measured.

    `low` and `high` are NaN if the source gives no interval; `definition` says what they and the score mean.
    """

    key: str
    env: str
    score: float
    low: float
    high: float
    env_steps: int
    label: str
    definition: str
    source: str
    version: str

    @property
    def env_id(self) -> str:
        """The id of the environment that was measured, with its version."""
        return f"{self.env}-{self.version}" if self.version else self.env


def without_version(env_id: str) -> str:
    """`Hopper` for `Hopper-v5`: references match all versions of an environment."""
    return re.sub(r"-v\d+$", "", env_id)


def chosen_references(experiment: Experiment) -> list[Reference]:
    """The references that an experiment names, in its order. Raises `UserError` for an unknown key."""
    if not experiment.references:
        return []
    folder = experiment.file.parent / "references"
    known = [reference for file in sorted(folder.glob("*.csv")) for reference in read_references(file)]
    found = []
    for key in experiment.references:
        rows = [reference for reference in known if reference.key == key]
        if not rows:
            hint = nearest(str(key), sorted({reference.key for reference in known}))
            raise UserError(f"{experiment.file}: there is no reference {key} in {folder}{hint}")
        found += rows
    return found


def for_environment(references: list[Reference], env_id: str) -> list[Reference]:
    """The references for an environment, whatever its version."""
    return [reference for reference in references if reference.env == without_version(env_id)]


def letters(references: list[Reference]) -> dict[str, str]:
    """A letter for each key, to mark its line in all panels: A, B, ..., and numbers after Z."""
    keys = list(dict.fromkeys(reference.key for reference in references))
    return {key: chr(ord("A") + i) if i < 26 else str(i) for i, key in enumerate(keys)}


def read_references(file: Path) -> list[Reference]:
    """Read all rows of a reference file. Raises `UserError` naming the file and the line of an invalid row."""
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{file}: the column {missing[0]} is missing: it needs {', '.join(COLUMNS)}")
            return [_reference(row, f"{file}:{reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error


def _reference(row: dict[str, str], where: str) -> Reference:
    for name in ("key", "env", "label", "definition", "source"):
        if not row[name]:
            raise UserError(f"{where}: {name} is empty")
    try:
        numbers = {name: float(row[name] or "nan") for name in ("score", "low", "high")}
        env_steps = int(row["env_steps"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: score, low, high and env_steps must be numbers: {error}") from error
    if not math.isfinite(numbers["score"]):
        raise UserError(f"{where}: score is missing")
    texts = {name: row[name] or "" for name in ("key", "env", "label", "definition", "source", "version")}
    fields: dict[str, Any] = {**texts, **numbers}
    return Reference(**fields, env_steps=env_steps)
