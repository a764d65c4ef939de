"""`metrics.csv`: one row per iteration, whatever happens to other loggers."""

import csv
import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from trpo_lightning.errors import DiskError, UserError
from trpo_lightning.storage.files import write_atomically, writing
from trpo_lightning.training.metrics import METRICS


class MetricsFile(Logger):
    """Appends a row for each iteration; cells without a number are empty.

    The columns are those of `METRICS`, plus others as they appear: when a new name comes, the whole file is rewritten
    atomically with one more column. `keep_iterations` truncates an existing file: rows after the barrier from which a
    run resumes are dropped, because the run writes them again.
    """

    accepts_text = True

    def __init__(self, path: Path, keep_iterations: int = 0) -> None:
        super().__init__()
        self.path = path
        rows = [row for row in read_rows(path) if int(row["iteration"]) <= keep_iterations]
        further = [name for name in (rows[0] if rows else {}) if name not in METRICS and any(row[name] for row in rows)]
        self._write_anew([*METRICS, *further], rows)

    def _write_anew(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """Replace the file with these rows and columns, and open it for appending."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())
        with writing(self.path):
            self._file = open(self.path, "a", encoding="utf-8", newline="")
        self._columns = columns
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")

    @property
    def name(self) -> str:
        """The logger's name, which Lightning requires."""
        return "metrics_file"

    @property
    def version(self) -> int:
        """A constant, because Lightning requires a version."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the settings are in `config.yaml`."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row and flush it to the operating system: a killed process loses nothing. Raises `DiskError`."""
        if not self._is_there():
            raise DiskError(f"{self.path}: is no longer this run's file: was its folder removed or moved?")
        new = [name for name in metrics if name not in self._columns]
        if new:
            self.close()
            self._write_anew([*self._columns, *new], read_rows(self.path))
        with writing(self.path):
            self._writer.writerow({name: "" if value != value else value for name, value in metrics.items()})
            self._file.flush()

    def save(self) -> None:
        """Force the rows to disk: a barrier must not exist without them. Raises `DiskError`."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def _is_there(self) -> bool:
        """Whether the path still leads to the open file: rows written to a deleted file would be lost silently."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; complete rows are already written."""
        with suppress(OSError):
            self._file.close()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The complete rows of a metrics file as text, with all columns of `METRICS` and its own, without a torn last line.

    Raises:
        UserError: The file is not a metrics file.
    """
    if not path.exists():
        return []
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in ("iteration", "env_steps") if name not in (reader.fieldnames or [])]
        if lacking:
            raise UserError(f"{path}: is not a metrics file of trpo_lightning: it has no column named {lacking[0]}")
        rows = []
        for row in reader:
            if None in row or None in row.values() or not row["iteration"].isdigit():
                break
            rows.append({**dict.fromkeys(METRICS, ""), **row})
        return rows
