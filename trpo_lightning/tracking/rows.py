"""Rows of `metrics.csv` on their way to a tracker, and as columns on their way back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]
Columns = dict[str, np.ndarray]


def parsed(row: Mapping[str, str]) -> Row:
    """A row without its empty cells."""
    return {name: value_of(text) for name, text in row.items() if text}


def value_of(text: str) -> int | float | str:
    """Parse a cell as an int, a float or text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def only_numbers(row: Mapping[str, Any]) -> Row:
    """The numbers of a row as Python's own: no texts, nothing that is missing."""
    own = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {name: value for name, value in own.items() if isinstance(value, int | float) and value == value}


@dataclass(frozen=True)
class TrackedRun:
    """One run of a tracker.

    Args:
        place: Where it is, for people.
        parameters: Its settings by dotted key, as `tracking.parameters` writes them.
        began: When it began, in any unit; larger is later.
        read: Reads its metrics as columns, with a place for each iteration, NaN where it has no number.
    """

    place: str
    parameters: Mapping[str, str]
    began: float
    read: Callable[[], Columns]


def columns_of(rows: list[dict[str, float]]) -> Columns:
    """Rows as columns, in the order of `env_steps`."""
    rows = sorted(rows, key=lambda row: row["env_steps"])
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
