"""A tracker behind a thread: whatever it does, the run neither waits for it nor ends with it, and loses nothing.

`metrics.csv` is the record. Whenever a connection to the tracker is made, at the start or after a failure, it says
which iterations it has, and gets the others from that file; from then on, rows come from the run. So the tracker shows
each iteration once, also after a kill or an outage, and no row has to be kept for it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from pytorch_lightning.loggers import Logger

from trpo_lightning.errors import first_line
from trpo_lightning.settings import RunSettings
from trpo_lightning.tracking.rows import Row, only_numbers, parsed

INTERVAL = 1.0
"""Seconds between two calls of a tracker: rows go together, because one by one a fast run would wait for its core."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds until a tracker that failed is tried again; each time twice as long."""
FINISH_TIMEOUT = 60.0
"""Seconds that a run waits at its end for a tracker to take the remaining rows."""


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run besides its settings."""

    run_dir: Path
    title: str
    code: str = ""
    """What git says of the version of the code."""

    def tags(self, settings: RunSettings) -> list[str]:
        """The code's version and `tracking.tags`."""
        return [tag for tag in (self.code, *settings.tracking.tags) if tag]


class Connection(Protocol):
    """An open tracker. Every method may raise anything, or take for ever."""

    def logged_iterations(self, recorded: list[Row]) -> set[int]:
        """Return which iterations the tracker has and is to keep; `recorded` are the rows of `metrics.csv`."""
        ...

    def log_rows(self, rows: list[Row]) -> None:
        """Log rows, oldest first. Those of a call that fails are sent again, unless the tracker has them by then."""
        ...

    def log_files(self, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Keep files, by name, where the tracker keeps files."""
        ...

    def close(self, state: str) -> None:
        """End the run as `finished`, `interrupted` or `failed`."""
        ...


Task = Row | Callable[[Connection], None]


class BackgroundLogger(Logger):
    """Hands everything on to a tracker, in a thread of its own.

    Args:
        name: The tracker's name, for people.
        connect: Opens the tracker.
        recorded: Reads the rows of `metrics.csv`.
        keep_iterations: How many iterations, from the first, a continued run keeps of these rows.
        run_dir: The run directory, which a warning names.
    """

    accepts_text = False

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        recorded: Callable[[], Iterable[Mapping[str, str]]],
        keep_iterations: int,
        run_dir: Path,
    ) -> None:
        super().__init__()
        self._name, self._connect, self._recorded, self._run_dir = name, connect, recorded, run_dir
        self._newest = keep_iterations
        self._connection: Connection | None = None
        self._has: set[int] = set()
        self._rows: list[Row] = []
        self._calls: list[Callable[[Connection], None]] = []
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._ending = threading.Event()
        self._complete = self._over = self._warned = False
        self._retry_at, self._pause = 0.0, FIRST_PAUSE
        self._tasks.put(lambda connection: None)  # connects at once
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._worker.start()

    @property
    def name(self) -> str:
        """The tracker's name."""
        return self._name

    @property
    def version(self) -> int:
        """Lightning asks for one."""
        return 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Queue one row."""
        self._tasks.put(dict(metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the tracker gets the settings when it is opened."""

    def call(self, function: Callable[[Connection], None]) -> None:
        """Queue a call of something that the tracker can do without: it is not repeated if it fails."""
        self._tasks.put(function)

    def log_policies(self, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Queue the upload of those of the exported policies that exist."""
        found = {f"{name}{path.suffix}": path for name, path in files.items() if path.is_file()}
        self.call(lambda connection: connection.log_files(found, metadata))

    def end(self, state: str) -> None:
        """Have the tracker take the remaining rows and end the run as `finished`, `interrupted` or `failed`."""
        self._tasks.put(lambda connection: connection.close(state))
        self._tasks.put(None)
        self._ending.set()

    def wait(self, deadline: float) -> None:
        """Wait until that is done; at most until a second of `time.monotonic`."""
        self._worker.join(max(0.0, deadline - time.monotonic()))
        if not self._complete:
            self._warn("it did not answer in time")

    def _work(self) -> None:
        while not self._over:
            self._take()
            if self._ending.is_set() or time.monotonic() >= self._retry_at:
                self._send()
            self._ending.wait(INTERVAL)

    def _take(self) -> None:
        """Wait for a task, then take all that there are."""
        task = self._tasks.get()
        while True:
            if task is None:
                self._over = True
                return
            if callable(task):
                self._calls.append(task)
            elif self._connection is not None or not self._retry_at:
                self._rows.append(task)
            if not callable(task):
                self._newest = max(self._newest, int(task["iteration"]))
            try:
                task = self._tasks.get_nowait()
            except Empty:
                return

    def _send(self) -> None:
        """Send what there is, over a new connection if need be; a failure is for the next time."""
        try:
            if self._connection is None:
                self._open()
            assert self._connection is not None
            rows = [self._accepted(row) for row in self._rows if int(row["iteration"]) not in self._has]
            if rows:
                self._connection.log_rows(rows)
            self._has |= {int(row["iteration"]) for row in rows}
            self._rows, self._pause = [], FIRST_PAUSE
            self._run_calls(self._connection)
            self._complete = self._over
        except Exception as error:  # whatever a tracker, its network or its disk raises
            self._connection, self._rows = None, []
            self._retry_at, self._pause = time.monotonic() + self._pause, min(2 * self._pause, LONGEST_PAUSE)
            self._warn(first_line(error))

    def _open(self) -> None:
        """Connect, and gather the rows that the tracker lacks."""
        connection = self._connect()
        recorded = [row for row in map(parsed, self._recorded()) if row["iteration"] <= self._newest]
        self._has = connection.logged_iterations(recorded)
        known = {row["iteration"] for row in recorded}
        self._rows = recorded + [row for row in self._rows if row["iteration"] not in known]
        self._connection = connection

    def _run_calls(self, connection: Connection) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            try:
                call(connection)
            except Exception as error:
                self._warn(first_line(error))

    def _accepted(self, row: Row) -> Row:
        if self.accepts_text:
            return {name: value for name, value in row.items() if value is not None}
        return only_numbers(row)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            print(
                f"warning: {self._name} does not take everything ({reason[:200]}); {self._run_dir} has it all, and "
                f"what is missing follows, at the latest by: python -m trpo_lightning train --resume {self._run_dir}"
            )
            self._warned = True
