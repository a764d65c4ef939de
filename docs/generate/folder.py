"""A folder of results, `experiments/results/<name>/`: its tables, the report's text about them, and their origin.

Asking for something that is not there is a one-line error that names the file and what it has instead.
"""

import csv
import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpo_lightning.errors import UserError, nearest


@dataclass(frozen=True)
class Claim:
    """A claim that the report judged: the statistic `value` with its interval, NaN where there is none."""

    says: str
    verdict: str
    criterion: str
    measured: str
    seeds: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ResultsFolder:
    """The files of one folder."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name, which is also the experiment's, if one is declared."""
        return self.path.name

    def rows(self, file: str) -> list[dict[str, str]]:
        """All rows of a CSV file. Raises `UserError` if there is no such file."""
        with open(self._file(file), encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    def column(self, file: str, column: str, **where: Any) -> list[float]:
        """A column's numbers in the rows where other columns have the given values, without cells that hold no number.

        Raises:
            UserError: There is no such file, column or row.
        """
        rows = self.rows(file)
        for name, value in where.items():
            self._know(file, "column", name, rows[0])
            self._know(file, name, str(value), [row[name] for row in rows])
            rows = [row for row in rows if row[name] == str(value)]
        self._know(file, "column", column, rows[0])
        return [float(row[column]) for row in rows if row[column] != ""]

    def number(self, file: str, column: str, **where: Any) -> float:
        """The only number that matches. Raises `UserError` if there is none, or more than one."""
        found = self.column(file, column, **where)
        if len(found) != 1:
            chosen = ", ".join(f"{name}={value}" for name, value in where.items())
            raise UserError(f"{self.path / file}: {column} has {len(found)} numbers where {chosen}: one is needed")
        return found[0]

    def claim(self, says: str) -> Claim:
        """The claim whose sentence begins with `says`. Raises `UserError` if none does, or more than one."""
        found = [claim for claim in self.claims if claim.says.startswith(says)]
        if len(found) != 1:
            known = "; ".join(claim.says for claim in self.claims) or "no claims"
            raise UserError(f"{self.path / 'scores.md'}: {len(found)} claims begin with {says!r}: it has {known}")
        return found[0]

    @functools.cached_property
    def claims(self) -> list[Claim]:
        """All claims, in order; empty if the experiment has none."""
        return [_claim(row) for row in _table(self.section("Claims"))]

    def section(self, heading: str) -> str:
        """The text of the report's `scores.md` under a heading, or before the first one; empty without that heading."""
        file = self.path / "scores.md"
        if not file.exists():
            return ""
        first, *others = re.split(r"^## ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found = {"": first.partition("\n")[2]} | dict(other.split("\n", 1) for other in others)
        return found.get(heading, "").strip()

    @functools.cached_property
    def provenances(self) -> list[dict[str, Any]]:
        """Commit, versions, machine and command of the runs, one entry for each group of runs that share them."""
        record = json.loads(self._file("provenance.json").read_text(encoding="utf-8"))
        return record.get("groups", [record])

    @functools.cached_property
    def command(self) -> str:
        """The command as it was typed."""
        return json.loads(self._file("provenance.json").read_text(encoding="utf-8"))["command"]

    @property
    def scale(self) -> str:
        """The scale at which the experiment was run."""
        found = re.search(r"SCALE=(\w+)", self.command)
        return found[1] if found else "full"

    def figures(self) -> list[Path]:
        """The folder's figures, that of the hypothesis first."""
        order = ("heat_map.png", "sensitivity.png", "learning_curves.png")
        found = sorted(self.path.glob("*.png"), key=lambda file: order.index(file.name) if file.name in order else -1)
        return found

    def _file(self, name: str) -> Path:
        file = self.path / name
        if not file.is_file():
            known = sorted(path.name for path in self.path.iterdir() if path.suffix in (".csv", ".json"))
            raise UserError(f"{file}: there is no such file: {self.path} has {', '.join(known)}")
        return file

    def _know(self, file: str, what: str, name: str, known: Iterable[str]) -> None:
        choices = list(dict.fromkeys(known))
        if name not in choices:
            hint = nearest(name, choices) or f": it has {', '.join(choices)}"
            raise UserError(f"{self.path / file}: there is no {what} {name}{hint}")


def _table(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without its heading."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in lines[2:]]
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]


def _claim(row: list[str]) -> Claim:
    says, verdict, criterion, measured, seeds = row
    numbers = [float(text.replace(",", "")) for text in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", measured)]
    value, low, high = [*numbers, *[float("nan")] * 3][:3]
    return Claim(says, verdict.partition(" (")[0], criterion, measured, seeds, value, low, high)
