"""Does an experiment's missing runs, several at a time, each in its own process with one thread."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpo_lightning.errors import BUSY, DiskError, UserError
from trpo_lightning.experiment.declaration import Cell
from trpo_lightning.experiment.progress import ProgressView
from trpo_lightning.output import print_what_there_is_no_letter_for
from trpo_lightning.runs.config import recorded_settings, write_config
from trpo_lightning.settings import RESUMABLE, changed_keys, covers, different_keys, get
from trpo_lightning.stopping import BREAK, OWN_GROUP, handle_signals
from trpo_lightning.storage.file_lock import try_lock
from trpo_lightning.threads import available_cores, thread_environment
from trpo_lightning.tracking.packages import check_loggers

INTERRUPTED = (130, 143)
"""Exit codes of a run stopped by Ctrl-C or SIGTERM."""
POLL_SECONDS = 0.2
PRIVATE_VARIABLES = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_NAME")
"""W&B variables not passed to children, which would otherwise write to the parent's W&B run or all share one name."""


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
    process: subprocess.Popen
    fresh: bool
    """Whether the child begins the run, rather than resuming it."""
    signals: int = 0
    """How often the child was told to stop."""


def run_cells(
    cells: list[Cell], root: Path, *, jobs: int | None = None, force: bool = False, log_lines: bool | None = None
) -> list[CellResult]:
    """Do the missing runs, `jobs` at a time (default: one for each core that a run leaves free).

    Finished runs are skipped, interrupted ones resumed, and a failed one does not stop the rest. Ctrl-C and SIGTERM
    stop all runs after their current iteration, a second Ctrl-C at once.

    Args:
        cells: The runs.
        root: Folder of all runs.
        jobs: Runs at a time.
        force: Move earlier runs away and repeat all of them.
        log_lines: Whether to print a line for each update; by default for up to 8 runs.

    Raises:
        UserError: A run directory holds other settings; nothing has been started.
    """
    print_what_there_is_no_letter_for()
    for loggers in {tuple(cell.settings.tracking.loggers): cell.settings for cell in cells}.values():
        check_loggers(loggers)
    for cell in cells:
        _check(cell, root / cell.directory, force)
    if force:
        for cell in cells:
            _move_away(root / cell.directory)
    threads = max((cell.settings.threads or available_cores()) for cell in cells)
    jobs = jobs or max(1, available_cores() // threads)
    pool = _Pool(cells, root, jobs, log_lines if log_lines is not None else len(cells) <= 8)
    return pool.run()


class _Pool:
    """At most `jobs` children at a time, and the results so far."""

    def __init__(self, cells: list[Cell], root: Path, jobs: int, log_lines: bool) -> None:
        self.root, self.jobs = root, jobs
        self.pending = deque(cells)
        self.children: list[_Child] = []
        self.results: dict[Path, CellResult] = {
            c.directory: CellResult(c, root / c.directory, "missing") for c in cells
        }
        self.stopping = 0
        """How many stop signals have arrived, and below, the last of them:"""
        self.signal_number = signal.SIGTERM
        self.view = ProgressView(cells, root, log_lines)

    def run(self) -> list[CellResult]:
        with self._signals(), self.view, tempfile.TemporaryDirectory() as folder:
            while self.children or (self.pending and not self.stopping):
                while self.pending and not self.stopping and len(self.children) < self.jobs:
                    self._start(self.pending.popleft(), Path(folder))
                self._tell_to_stop()
                self._reap()
                self.view.update([child.run_dir for child in self.children])
                time.sleep(POLL_SECONDS)
        return list(self.results.values())

    def _start(self, cell: Cell, folder: Path) -> None:
        run_dir = self.root / cell.directory
        if is_locked(run_dir):
            self._record(cell, "elsewhere", "another process is working on it")
            return
        threads = cell.settings.threads or available_cores()
        variables = {**os.environ, **thread_environment(threads)}
        for name in PRIVATE_VARIABLES:
            variables.pop(name, None)
        try:
            command = _command(cell, run_dir, folder)
            if command is None:
                self._record(cell, "finished", "finished before")
                return
            fresh = not _has_begun(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            with open(run_dir / "log.txt", "a", encoding="utf-8") as log:
                process = subprocess.Popen(
                    command, env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **OWN_GROUP
                )
        except (OSError, DiskError) as error:
            self._record(cell, "failed", f"failed: it could not be started: {error}")
            return
        self.children.append(_Child(cell, run_dir, process, fresh))
        self.view.started(run_dir)

    def _reap(self) -> None:
        for child in [c for c in self.children if c.process.poll() is not None]:
            self.children.remove(child)
            code = child.process.returncode
            if code == 0 or (code > 0 and is_finished(child.cell, child.run_dir)):
                self._record(child.cell, "finished")
            elif code in INTERRUPTED or (child.signals and code < 0) or child.signals > 1:
                self._record(child.cell, "interrupted", "stopped; the next call resumes it")
            elif code == BUSY:
                self._record(child.cell, "elsewhere", "another process is working on it")
            elif child.fresh and _begun_by_another(child):
                self.pending.append(child.cell)
            else:
                killed = f"killed by {signal.Signals(-code).name}; the last it said: " if code < 0 else ""
                told = f"failed: {killed}{_last_line(child.run_dir)} (see {child.run_dir}/log.txt)"
                self._record(child.cell, "failed", told)

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
                    child.process.kill()
                else:  # Windows offers only Ctrl-Break: anything else would end the run at once
                    child.process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", self.signal_number))

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


def run_state(run_dir: Path) -> str | None:
    """The state in a run directory's `status.json`, or None if no run began there."""
    status = _status(run_dir)
    return None if status is None else status["state"]


def _status(run_dir: Path) -> dict[str, Any] | None:
    try:
        status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
        return {**status, "state": str(status["state"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run_dir / 'status.json'}: cannot be read: delete the run directory to start over") from error


def standing(run_dir: Path) -> str:
    """The state of a run, as in `CellResult`: only the lock distinguishes a running run from a killed one."""
    state = run_state(run_dir) or "missing"
    if state != "running":
        return state
    return "elsewhere" if is_locked(run_dir) else "interrupted"


def is_locked(run_dir: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with open(run_dir / ".lock", encoding="utf-8") as file:
            return not try_lock(file, shared=True)
    except OSError:
        return False


def _has_begun(run_dir: Path) -> bool:
    """Whether the run recorded its settings; one that failed before that starts from scratch."""
    return run_state(run_dir) is not None and (run_dir / "config.yaml").is_file()


def _begun_by_another(child: _Child) -> bool:
    """Whether another runner's process began and left the run while this child was starting."""
    return _has_begun(child.run_dir) and (_status(child.run_dir) or {}).get("pid") != child.process.pid


def _check(cell: Cell, run_dir: Path, force: bool) -> None:
    if force and is_locked(run_dir):
        raise UserError(f"{run_dir}: another process is working on this run: stop it before --force moves it away")
    if force or not _has_begun(run_dir):
        return
    changed = changed_keys(recorded_settings(run_dir), cell.settings)
    if changed:
        raise UserError(
            f"{run_dir} was run with other settings ({', '.join(changed)}): --force moves it away and starts over"
        )


def is_finished(cell: Cell, run_dir: Path) -> bool:
    """Whether the run has done all the steps or iterations that the cell asks for."""
    return run_state(run_dir) == "finished" and covers(recorded_settings(run_dir), cell.settings)


def _move_away(run_dir: Path) -> None:
    if run_dir.exists():
        run_dir.rename(run_dir.with_name(f"{run_dir.name}.replaced-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"))


def _command(cell: Cell, run_dir: Path, folder: Path) -> list[str] | None:
    """The command that starts or continues the run; None if nothing is left to do."""
    train = [sys.executable, "-m", "trpo_lightning", "train"]
    if not _has_begun(run_dir):
        config = folder / f"{len(list(folder.iterdir()))}.yaml"
        write_config(cell.settings, config)
        return [*train, "--config", str(config), "--run-dir", str(run_dir), "--quiet"]
    if is_finished(cell, run_dir):
        return None
    before, after = recorded_settings(run_dir), cell.settings
    changed = [key for key in different_keys(before, after) if key.startswith(RESUMABLE)]
    return [*train, "--resume", str(run_dir), *(f"{key}={json.dumps(get(after, key))}" for key in changed), "--quiet"]


def _last_line(run_dir: Path) -> str:
    try:
        lines = (run_dir / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    return lines[-1] if lines else "it left no message"
