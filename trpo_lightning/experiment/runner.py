"""Does an experiment's missing runs with a launcher: what to start, what ended, what to tell."""

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trpo_lightning.errors import BUSY, UserError
from trpo_lightning.experiment.declaration import Cell
from trpo_lightning.experiment.launchers.launcher import Ending, Job, Launcher, PlannedRun
from trpo_lightning.experiment.launchers.local import LocalLauncher
from trpo_lightning.experiment.launchers.options import LauncherOptions
from trpo_lightning.experiment.progress import ProgressView
from trpo_lightning.experiment.states import has_begun, is_finished, is_locked, standing
from trpo_lightning.extras import check_extra
from trpo_lightning.output import print_what_there_is_no_letter_for
from trpo_lightning.runs.config import recorded_settings
from trpo_lightning.settings import changed_keys
from trpo_lightning.stopping import BREAK, handle_signals
from trpo_lightning.tracking.packages import check_loggers

INTERRUPTED = (130, 143)
"""Exit codes of a run stopped by Ctrl-C or SIGTERM."""
POLL_SECONDS = 0.2
MOST_LOSSES = 10
"""How often a run may lose its node before it is taken for the cause."""
HANG_UP: int = getattr(signal, "SIGHUP", signal.SIGTERM)


@dataclass(frozen=True)
class CellResult:
    """The state of a run: finished, interrupted, failed, missing, running, or elsewhere (another process has it)."""

    cell: Cell
    run_dir: Path
    state: str


@dataclass
class _Child:
    cell: Cell
    run_dir: Path
    job: Job
    shown: bool = False
    """Whether the view knows that it was started."""
    signals: int = 0
    """How often the child was told to stop."""


def run_cells(
    cells: list[Cell],
    root: Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    log_lines: bool | None = None,
    options: LauncherOptions | None = None,
) -> list[CellResult]:
    """Do the missing runs, `jobs` at a time.

    Finished runs are skipped, interrupted ones resumed, and a failed one does not stop the rest. Ctrl-C and SIGTERM
    stop all runs after their current iteration, a second Ctrl-C at once.

    Args:
        cells: The runs.
        root: Folder of all runs.
        jobs: Runs at a time; by default one for each core that a run leaves free, on a cluster as many as it takes.
        force: Move earlier runs away and repeat all of them.
        log_lines: Whether to print a line for each update; by default for up to 8 runs.
        options: Where the runs are done; by default on this machine.

    Raises:
        UserError: A run directory holds other settings, or the launcher cannot work; nothing has been started.
    """
    print_what_there_is_no_letter_for()
    for loggers in {tuple(cell.settings.tracking.loggers): cell.settings for cell in cells}.values():
        check_loggers(loggers)
    for cell in cells:
        _check(cell, root / cell.directory, force)
    with _launcher(options or LauncherOptions(), cells, root, jobs) as launcher:
        if force:
            for cell in cells:
                _check_job(root / cell.directory, launcher)
            for cell in cells:
                _move_away(root / cell.directory)
        return _Pool(cells, root, launcher, log_lines if log_lines is not None else len(cells) <= 8).run()


def _launcher(options: LauncherOptions, cells: list[Cell], root: Path, jobs: int | None) -> Launcher:
    settings = [cell.settings for cell in cells]
    if options.launcher != "local":
        check_extra(options.launcher, f"--launcher {options.launcher}")
    if options.launcher == "ray":
        from trpo_lightning.experiment.launchers.ray_cluster import RayLauncher

        return RayLauncher(options, settings, root, jobs)
    if options.launcher == "slurm":
        from trpo_lightning.experiment.launchers.slurm import SlurmLauncher

        return SlurmLauncher(options, settings, root, jobs)
    return LocalLauncher(settings, jobs)


class _Pool:
    """The runs that wait, those that a launcher has, and the results so far."""

    def __init__(self, cells: list[Cell], root: Path, launcher: Launcher, log_lines: bool) -> None:
        self.root, self.launcher = root, launcher
        self.pending = deque(cells)
        self.children: list[_Child] = []
        self.losses: Counter[Path] = Counter()
        """How often each run has lost its node."""
        self.results: dict[Path, CellResult] = {
            c.directory: CellResult(c, root / c.directory, "missing") for c in cells
        }
        self.stopping = 0
        """How many stop signals have arrived, and below, the last of them:"""
        self.signal_number = signal.SIGTERM
        self.view = ProgressView(cells, root, log_lines)

    def run(self) -> list[CellResult]:
        with self._signals(), self.view:
            while self.children or (self.pending and not self.stopping):
                if not self.stopping:
                    self._start()
                self._tell_to_stop()
                self._reap()
                self.view.update([child.run_dir for child in self.children if child.shown])
                time.sleep(POLL_SECONDS)
        return list(self.results.values())

    def _start(self) -> None:
        """Hand as many runs to the launcher as it has room for."""
        cells, waiting = [], []
        while self.pending and len(self.children) + len(cells) < self.launcher.capacity:
            cell = self.pending.popleft()
            run_dir = self.root / cell.directory
            if not is_locked(run_dir) or self.launcher.adopts(run_dir):
                if is_finished(cell.settings, run_dir):
                    self._record(cell, "finished", "finished before")
                else:
                    cells.append(cell)
            elif self.losses[cell.directory]:
                waiting.append(cell)  # until the lost node's process is gone, too
            else:
                self._record(cell, "elsewhere", "another process is working on it")
        self.pending.extend(waiting)
        if cells:
            jobs = self.launcher.start([PlannedRun(cell.settings, self.root / cell.directory) for cell in cells])
            self.children += [_Child(c, self.root / c.directory, job) for c, job in zip(cells, jobs, strict=True)]

    def _reap(self) -> None:
        for child in list(self.children):
            ending = child.job.poll()
            if child.job.started and not child.shown:
                child.shown = True
                self.view.started(child.run_dir)
            if ending is not None:
                self.children.remove(child)
                self._ended(child, ending)

    def _ended(self, child: _Child, ending: Ending) -> None:
        code, lost = ending.code, self.losses[child.cell.directory]
        if code == 0 or (code > 0 and is_finished(child.cell.settings, child.run_dir)):
            self._record(child.cell, "finished")
        elif code in INTERRUPTED or (child.signals and (code < 0 or ending.again)) or child.signals > 1:
            if child.shown:
                self._record(child.cell, "interrupted", "stopped; the next call resumes it")
        elif ending.lost and lost < MOST_LOSSES:
            self.losses[child.cell.directory] += 1
            if child.shown:
                self.view.lost(child.run_dir, f"{ending.reason}: goes on elsewhere from its last barrier")
            self.pending.appendleft(child.cell)
        elif (ending.again and not ending.lost) or (code == BUSY and lost):
            self.pending.append(child.cell)
        elif code == BUSY:
            self._record(child.cell, "elsewhere", "another process is working on it")
        else:
            self._record(child.cell, "failed", f"failed: {_why(child.run_dir, ending)}")

    def _record(self, cell: Cell, state: str, message: str = "") -> None:
        run_dir = self.root / cell.directory
        self.results[cell.directory] = CellResult(cell, run_dir, state)
        self.view.ended(run_dir, state, message)

    def _tell_to_stop(self) -> None:
        """Pass on the stop signals: the first ends a run after its iteration, the third kills it."""
        for child in self.children:
            while child.signals < self.stopping:
                child.signals += 1
                if child.signals > 2:
                    child.job.kill()
                else:
                    child.job.stop(self.signal_number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Record Ctrl-C, SIGTERM and a closed terminal for the loop to act on; only the main thread can do so."""

        def handle(number: int, _: object) -> None:
            self.stopping += 1
            self.signal_number = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
            self.view.stopping = True

        before = handle_signals([*{signal.SIGTERM, signal.SIGINT, HANG_UP, BREAK}], handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def results_so_far(cells: list[Cell], root: Path) -> list[CellResult]:
    """The states of the runs, without starting any."""
    return [CellResult(cell, root / cell.directory, standing(root / cell.directory)) for cell in cells]


def _check(cell: Cell, run_dir: Path, force: bool) -> None:
    if force and is_locked(run_dir):
        raise UserError(f"{run_dir}: another process is working on this run: stop it before --force moves it away")
    if force or not has_begun(run_dir):
        return
    changed = changed_keys(recorded_settings(run_dir), cell.settings)
    if changed:
        raise UserError(
            f"{run_dir} was run with other settings ({', '.join(changed)}): --force moves it away and starts over"
        )


def _check_job(run_dir: Path, launcher: Launcher) -> None:
    if launcher.adopts(run_dir):
        raise UserError(f"{run_dir}: a job of an earlier call has this run: cancel it before --force moves it away")


def _move_away(run_dir: Path) -> None:
    if run_dir.exists():
        run_dir.rename(run_dir.with_name(f"{run_dir.name}.replaced-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"))


def _why(run_dir: Path, ending: Ending) -> str:
    """What is known of a failure: what the launcher says, else the last line of the run's log."""
    if ending.reason:
        return ending.reason
    killed = f"killed by {signal.Signals(-ending.code).name}; the last it said: " if ending.code < 0 else ""
    return f"{killed}{_last_line(run_dir)} (see {run_dir}/log.txt)"


def _last_line(run_dir: Path) -> str:
    try:
        lines = (run_dir / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    return lines[-1] if lines else "it left no message"
