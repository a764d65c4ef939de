"""Runs as jobs of Slurm, through submitit: arrays of them, queued again by themselves until the runs are finished."""

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import submitit
from submitit.core.utils import FailedJobError, pickle_load

from trpo_lightning.errors import BusyError, UserError
from trpo_lightning.experiment.launchers.launcher import Ending, Job, NeverStarted, PlannedRun
from trpo_lightning.experiment.launchers.options import LauncherOptions, minutes
from trpo_lightning.experiment.launchers.slurm_commands import (
    JOB_NAME,
    OVER,
    Queue,
    check_partition,
    largest_array,
    last_line,
    tell,
)
from trpo_lightning.experiment.launchers.slurm_job import QueuedRun
from trpo_lightning.experiment.launchers.versions import versions
from trpo_lightning.experiment.states import has_begun
from trpo_lightning.runs.config import config_text
from trpo_lightning.settings import RunSettings
from trpo_lightning.storage.files import write_atomically

FILES_SECONDS = 20.0
"""How long a job's result may take from its node to this machine, over a network's file system."""
LOST = {"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL"}
"""States of a job that ended through no fault of its run: another job goes on."""
INTERRUPTED = 128 + signal.SIGTERM
FOREVER = 10**6
"""How often submitit may queue a job again: `QueuedRun` stops where nothing is gained."""


class SlurmLauncher:
    """Queues runs in Slurm, all of them unless `jobs` limits how many; jobs of an earlier call are taken over."""

    def __init__(self, options: LauncherOptions, settings: list[RunSettings], root: Path, jobs: int | None) -> None:
        self.options, self.capacity = options, jobs or sys.maxsize
        self.cpus = max(options.cpus_of(each) for each in settings)
        self.folder = root.resolve() / ".slurm"
        self._queue = Queue()
        self._jobs: list[_SlurmJob] = []

    def __enter__(self) -> Self:
        if shutil.which("sinfo") is None or shutil.which("sbatch") is None:
            raise UserError("--launcher slurm: there is no Slurm here (no sinfo and sbatch): call it on a login node")
        check_partition(self.options, self.cpus)
        self._queue.look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = [job for job in self._jobs if not job.ended]
        for job in left:
            job.kill()

    def adopts(self, run_dir: Path) -> bool:
        """Whether a job of an earlier call waits for this run, or does it."""
        return self._earlier_job(run_dir) is not None

    def start(self, runs: list[PlannedRun]) -> list[Job]:
        """Submit a job array for runs that declare the same CPUs; take over jobs that are queued already."""
        found = {run.run_dir: self._earlier_job(run.run_dir) for run in runs}
        new = sorted((run for run in runs if found[run.run_dir] is None), key=self._cpus)
        for cpus, alike in groupby(new, key=self._cpus):
            for part in _parts([*alike], min(self.options.array_size, largest_array())):
                found |= dict(zip((run.run_dir for run in part), self._submit(part, cpus), strict=True))
        return [self._job(run, found[run.run_dir]) for run in runs]

    def _job(self, run: PlannedRun, note: "_Note | None") -> Job:
        assert note is not None
        if note.settings != _digest(config_text(run.settings)):
            return NeverStarted(BusyError(f"job {note.job} has it with other settings"))
        job = _SlurmJob(note.job, run, self.folder, self._queue)
        self._jobs.append(job)
        return job

    def _cpus(self, run: PlannedRun) -> int:
        return self.options.cpus_of(run.settings)

    def _submit(self, runs: list[PlannedRun], cpus: int) -> "list[_Note]":
        """Submit one job array; returns notes of its jobs, and writes them down for the next call."""
        options, executor = self.options, submitit.SlurmExecutor(self.folder, max_num_timeout=FOREVER)
        executor.update_parameters(
            job_name=JOB_NAME,
            partition=options.partition,
            time=minutes(options.time),
            cpus_per_task=cpus,
            signal_delay_s=options.notice,
            setup=options.setup,
            array_parallelism=len(runs),
            srun_args=[f"--cpus-per-task={cpus}"],  # since version 22.05, srun does not take it from the job
            stderr_to_stdout=True,
            additional_parameters={"requeue": True, **options.sbatch},
        )
        try:
            with executor.batch():
                jobs = [executor.submit(self._queued(run)) for run in runs]
            names = [job.job_id for job in jobs]
        except (FailedJobError, subprocess.CalledProcessError, OSError) as error:
            raise UserError(f"Slurm does not take the jobs: {last_line(str(error))}") from error
        self._queue.expect(names)
        notes = [_Note(name, _digest(config_text(run.settings))) for name, run in zip(names, runs, strict=True)]
        for run, note in zip(runs, notes, strict=True):
            write_atomically(self._file(run.run_dir), f"{note.job} {note.settings}".encode())
        return notes

    def _queued(self, run: PlannedRun) -> QueuedRun:
        return QueuedRun(config_text(run.settings), run.run_dir.resolve(), self.options.notice, versions())

    def _file(self, run_dir: Path) -> Path:
        """The file with the note of the run's latest job."""
        return self.folder / f"{_digest(str(run_dir.resolve()))}.job"

    def _earlier_job(self, run_dir: Path) -> "_Note | None":
        """The note of a job that has the run and is not over."""
        try:
            note = _Note(*self._file(run_dir).read_text(encoding="utf-8").split())
        except (OSError, TypeError):
            return None
        return note if self._queue.state(note.job) not in (None, *OVER) else None


@dataclass(frozen=True)
class _Note:
    """A job's name, such as 12_3, and the digest of the settings of its run."""

    job: str
    settings: str


class _SlurmJob:
    """A job of Slurm, told from the queue while it is there, then from the result that it has left."""

    def __init__(self, name: str, run: PlannedRun, folder: Path, queue: Queue) -> None:
        self.started = self.ended = False
        self._name, self._run, self._queue, self._signals = name, run, queue, 0
        self._paths = submitit.SlurmJob(folder, name).paths
        self._over_since: float | None = None

    def poll(self) -> Ending | None:
        """How the job ended; None while Slurm has it, also if it was queued again."""
        state = self._queue.state(self._name)
        self.started = self.started or state in ("RUNNING", "COMPLETING")
        if state is not None and state not in OVER:
            self._over_since = None
            return None
        self._over_since = self._over_since or time.monotonic()
        ending = self._result() or self._without_result(state, time.monotonic() - self._over_since)
        if ending is not None and ending.code == INTERRUPTED and state in (*LOST, "COMPLETED") and not self._signals:
            ending = self._lost(state)  # preempted: it stopped in time, and so Slurm did not queue it again
        self.ended = ending is not None
        return ending

    def stop(self, number: int) -> None:
        """End the run after its iteration the first time; the second time, or while it waits, cancel the job."""
        self._signals += 1
        if self._signals == 1 and self._queue.state(self._name) == "RUNNING":
            tell("scancel", "--signal=TERM", self._name)
        else:
            tell("scancel", self._name)

    def kill(self) -> None:
        """Kill all processes of the job."""
        tell("scancel", "--signal=KILL", self._name)
        tell("scancel", self._name)

    def _result(self) -> Ending | None:
        try:
            outcome, value = pickle_load(self._paths.result_pickle)
        except (OSError, EOFError):
            return None
        return value if outcome == "success" else Ending(1, last_line(value))

    def _lost(self, state: str) -> Ending:
        told = "was told to end" if state == "COMPLETED" else f"ended with {state}"
        return Ending(1, f"job {self._name} {told}", again=True, lost=True)

    def _without_result(self, state: str | None, waited: float) -> Ending | None:
        if state == "CANCELLED":
            return Ending(INTERRUPTED)
        if state in LOST or (state == "FAILED" and has_begun(self._run.run_dir)):
            return self._lost(state)
        if waited < FILES_SECONDS:
            return None
        output = self._paths.stdout
        if not output.exists():
            raise UserError(
                f"job {self._name} has left nothing: --root must be a folder that is shared with the nodes, and "
                f"{output.parent} is not"
            )
        return Ending(1, f"job {self._name} ended with {state or 'an unknown state'}, see {output}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parts(runs: list[PlannedRun], size: int) -> Iterator[list[PlannedRun]]:
    for start in range(0, len(runs), size):
        yield runs[start : start + size]
