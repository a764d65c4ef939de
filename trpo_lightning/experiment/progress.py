"""One live view of all runs of an experiment; plain lines without a terminal."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from trpo_lightning.experiment.declaration import Cell
from trpo_lightning.runs.update_line import HEADER, update_line

COLORS = {"finished": "green", "failed": "red", "interrupted": "yellow", "elsewhere": "yellow"}
EVALUATION_WIDTH = 20
"""Columns kept free for the notes at the end of some lines."""
START_SECONDS = 5
"""Seconds that a process needs before its first iteration, mostly for imports (measured)."""


@dataclass
class _Watched:
    """A run's `metrics.csv`, read as it grows."""

    label: str
    env_id: str
    total: int
    file: int = 0
    """Inode of the file read so far: a resumed run replaces it with a shorter one, a new metric with a wider one."""
    columns: tuple[str, ...] = ()
    offset: int = 0
    iteration: int = 0
    env_steps: int = 0
    seconds: float = 0.0
    state: str = "waiting"

    @property
    def rate(self) -> float | None:
        """Env steps per second over all iterations so far."""
        return self.env_steps / self.seconds if self.seconds else None


class ProgressView:
    """Reads the runs' `metrics.csv` as they grow: a line for each update (if `log_lines`) and bars with time left."""

    def __init__(self, cells: list[Cell], root: Path, log_lines: bool, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.log_lines = log_lines
        self.stopping = False
        room = self.console.width - len(HEADER) - 2 - EVALUATION_WIDTH if self.console.is_terminal else 1000
        names = labels(cells, max(room, 20))
        self.width = max(map(len, names))
        self.runs = {
            root / cell.directory: _Watched(name.ljust(self.width), cell.settings.env.id, cell.settings.total_env_steps)
            for cell, name in zip(cells, names, strict=True)
        }
        bars = (TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.percentage:3.0f} %"))
        self._bars = Progress(*bars, console=self.console)
        self._tasks: dict[Path, TaskID] = {}
        self._live = Live(console=self.console, transient=True, refresh_per_second=4, get_renderable=self._render)
        self._told = False

    def __enter__(self) -> "ProgressView":
        if self.log_lines:
            self._print(f"[dim]{'run'.ljust(self.width)}  {HEADER}[/dim]")
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def started(self, run_dir: Path) -> None:
        """Note that a process has started; rows of an earlier one are counted but not shown."""
        run = self.runs[run_dir]
        run.state = "running"
        self._read(run_dir, show=False)
        self._tasks[run_dir] = self._bars.add_task(escape(run.label), total=run.total, completed=run.env_steps)
        if not self.log_lines and not self.console.is_terminal:
            self._print(f"{escape(run.label)}  started")

    def ended(self, run_dir: Path, state: str, message: str) -> None:
        """Note that a run has ended, or had nothing left to do."""
        run = self.runs[run_dir]
        if run_dir not in self._tasks and state == "finished":
            run.env_steps = run.total
        self._close(run_dir)
        run.state = state
        self._print(f"{escape(run.label)}  [{COLORS[state]}]{escape(message or state)}[/{COLORS[state]}]")

    def lost(self, run_dir: Path, message: str) -> None:
        """Note that a run's node is gone, and that the run waits for another."""
        self._close(run_dir)
        self.runs[run_dir].state = "waiting"
        self._print(f"{escape(self.runs[run_dir].label)}  [yellow]{escape(message)}[/yellow]")

    def update(self, running: list[Path]) -> None:
        """Read the new rows of the running runs and refresh the view."""
        if self.stopping and running and not self._told:
            self._told = True
            self._print("[yellow]stopping: each run ends after its iteration; Ctrl-C again ends them at once[/yellow]")
        for run_dir in running:
            self._read(run_dir, show=self.log_lines)
            self._bars.update(self._tasks[run_dir], completed=self.runs[run_dir].env_steps)

    def summary(self) -> str:
        """How many runs are in each state, share of env steps done, current env steps per second, and time left."""
        runs = self.runs.values()
        counts = {state: sum(run.state == state for run in runs) for state in ("running", *COLORS, "waiting")}
        done = sum(min(run.env_steps, run.total) for run in runs) / sum(run.total for run in runs)
        parts = [" · ".join(f"{number} {state}" for state, number in counts.items() if number), f"{done:.0%}"]
        rates = [run.rate for run in runs if run.state == "running" and run.rate]
        left = self._seconds_left()
        if rates:
            parts.append(f"{sum(rates):,.0f} steps/s")
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return "   ".join(parts)

    def _seconds_left(self) -> float | None:
        """Time left at each run's speed, else its environment's, else that of all runs; None while none is known."""
        runs = [run for run in self.runs.values() if run.state in ("running", "waiting")]
        known = [(run.env_id, run.rate) for run in self.runs.values() if run.rate]
        if not known or not runs:
            return None
        each = []
        for run in runs:
            alike = [rate for env_id, rate in known if env_id == run.env_id] or [rate for _, rate in known]
            rate = run.rate or sum(alike) / len(alike)
            start = START_SECONDS if run.state == "waiting" else 0
            each.append(start + max(run.total - run.env_steps, 0) / rate)
        return max(max(each), sum(each) / max(len(self._tasks), 1))

    def _close(self, run_dir: Path) -> None:
        """Show the last rows, and take the bar away."""
        if run_dir in self._tasks:
            self._read(run_dir, show=self.log_lines)
            self._bars.remove_task(self._tasks.pop(run_dir))

    def _read(self, run_dir: Path, show: bool) -> None:
        run = self.runs[run_dir]
        try:
            with open(run_dir / "metrics.csv", "rb") as file:
                inode, shown = os.fstat(file.fileno()).st_ino, 0
                if inode != run.file:  # new, or rewritten: its earlier rows were shown already
                    shown = run.iteration
                    run.file, run.columns, run.offset, run.env_steps, run.seconds = inode, (), 0, 0, 0.0
                file.seek(run.offset)
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        run.offset += len(whole)
        for values in csv.reader(whole.decode(errors="replace").splitlines()):
            row = dict(zip(run.columns, values, strict=False))
            if not run.columns:
                run.columns = tuple(values)
            elif len(values) == len(run.columns) and row.get("iteration", "").isdigit():
                self._take(run, row, show and int(row["iteration"]) > shown)

    def _take(self, run: _Watched, row: dict[str, str], show: bool) -> None:
        steps = int(row["env_steps"])
        run.seconds += (steps - run.env_steps) / max(float(row["time/steps_per_second"]), 1e-9)
        run.env_steps, run.iteration = steps, int(row["iteration"])
        if show:
            self._print(f"{escape(run.label)}  {update_line(row)}")

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def _render(self) -> Group:
        return Group(Text(self.summary(), style="bold", no_wrap=True, overflow="ellipsis"), self._bars)


def labels(cells: list[Cell], room: int) -> list[str]:
    """A name for each run, without the environment if it is the same for all and there is no room for it."""
    full = [f"{cell.settings.env.id} {cell.settings.name} seed {cell.settings.seed}" for cell in cells]
    if max(map(len, full)) <= room:
        return full
    if len({cell.settings.env.id for cell in cells}) == 1:
        full = [f"{cell.settings.name} seed {cell.settings.seed}" for cell in cells]
    tail = room // 2
    return [name if len(name) <= room else f"{name[: room - tail - 1]}…{name[-tail:]}" for name in full]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
