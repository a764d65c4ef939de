"""Runs on this machine, several at a time, each in its own process."""

from pathlib import Path
from types import TracebackType
from typing import Self

from trpo_lightning.errors import DiskError
from trpo_lightning.experiment.launchers.launcher import Job, NeverStarted, PlannedRun
from trpo_lightning.experiment.launchers.process import RunProcess
from trpo_lightning.settings import RunSettings
from trpo_lightning.threads import available_cores


class LocalLauncher:
    """Starts processes on this machine, `jobs` at a time (default: one for each core that a run leaves free)."""

    def __init__(self, settings: list[RunSettings], jobs: int | None) -> None:
        threads = max((each.threads or available_cores()) for each in settings)
        self.capacity = jobs or max(1, available_cores() // threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the processes: they end by themselves, or go on if this one crashed."""

    def adopts(self, run_dir: Path) -> bool:
        """Never: a process that outlives its runner has the lock."""
        return False

    def start(self, runs: list[PlannedRun]) -> list[Job]:
        """Start a process for each run."""
        return [_started(run) for run in runs]


def _started(run: PlannedRun) -> Job:
    try:
        return RunProcess(run)
    except (OSError, DiskError) as error:
        return NeverStarted(error)
