"""What a job of Slurm does: a run, ended ahead of the job's limit, and queued again until it is finished."""

import os
import signal
import tempfile
import time
from pathlib import Path

import submitit
from submitit.core.utils import UncompletedJobError

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.launchers.launcher import Ending, PlannedRun
from trpo_lightning.experiment.launchers.process import RunProcess, die_with_parent
from trpo_lightning.experiment.launchers.versions import check_versions, versions
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.files import checkpoint_files

POLL_SECONDS = 0.2
SHARE_OF_NOTICE = 0.7
"""The part of the notice in which the current iteration may end; the rest is for queueing the job again."""
MOST_FRUITLESS = 3
"""How often in a row a job may end without a new barrier: it would be queued for ever."""


class QueuedRun:
    """A run, as submitit pickles and calls it: once, and once more whenever the job was queued again.

    Args:
        config: The run's settings, as in its `config.yaml`.
        run_dir: The run's directory, which all nodes have.
        notice: Seconds between `checkpoint` and the job's end.
        expected: The versions on the machine of the experiment.
        fruitless: How many jobs before this one, in a row, ended without a new barrier.
    """

    def __init__(
        self, config: str, run_dir: Path, notice: int, expected: dict[str, str | None], fruitless: int = 0
    ) -> None:
        self.config, self.run_dir, self.notice, self.expected = config, run_dir, notice, expected
        self.fruitless = fruitless
        self._process: RunProcess | None = None
        self._barrier: Path | None = None

    def __call__(self) -> Ending:
        """Do the run, from its last barrier on; returns how it ended."""
        submitit.JobEnvironment().paths.result_pickle.unlink(missing_ok=True)  # of the job before it was queued again
        try:
            check_versions(self.expected, versions(), f"node {os.uname().nodename}")
            return self._run()
        except UserError as error:
            return Ending(error.exit_code, str(error))
        except UncompletedJobError:
            return Ending(
                1,
                f"no barrier was reached in {MOST_FRUITLESS} jobs: give more time than --time, or a smaller "
                "checkpoint.every",
            )

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """End the run after its iteration, because the job's limit is near; returns what the next job is to call.

        submitit calls this in a signal handler, and queues the job again unless the answer is None.
        """
        if self._process is not None:
            self._process.stop(signal.SIGTERM)
            end = time.monotonic() + SHARE_OF_NOTICE * self.notice
            while time.monotonic() < end and not _has_ended(self._process.process.pid):
                time.sleep(POLL_SECONDS)
        fruitless = self.fruitless + 1 if self._newest_barrier() == self._barrier else 0
        if fruitless >= MOST_FRUITLESS:
            return None
        again = QueuedRun(self.config, self.run_dir, self.notice, self.expected, fruitless)
        return submitit.helpers.DelayedSubmission(again)

    def _newest_barrier(self) -> Path | None:
        return next(iter(checkpoint_files(self.run_dir / "checkpoints")), None)

    def _run(self) -> Ending:
        self._barrier = self._newest_barrier()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            file.write_text(self.config, encoding="utf-8")
            run = PlannedRun(load_settings([], file), self.run_dir)
        while True:
            self._process = RunProcess(run, before_exec=_prepare)
            while (ending := self._process.poll()) is None:
                time.sleep(POLL_SECONDS)
            if not ending.again:
                early = ending.code == -signal.SIGTERM  # before Python could listen
                return Ending(128 + signal.SIGTERM) if early else ending


def _prepare() -> None:
    """In the run's process: Slurm sends its notice to all processes of a job, and most of them would die of it."""
    die_with_parent()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, without taking its exit code away from who waits for it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
