"""What the runner asks of a launcher, and of each run that it has started."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from trpo_lightning.settings import RunSettings


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to begin, or to go on if its directory holds one."""

    settings: RunSettings
    run_dir: Path


@dataclass(frozen=True)
class Ending:
    """How a run's process ended.

    Args:
        code: Its exit code, negative for a signal.
        reason: What happened outside of the process, where its log cannot tell.
        again: Whether the run has to be started once more: its node was lost, or another process began it meanwhile.
        lost: Whether that is because its node was lost.
    """

    code: int
    reason: str = ""
    again: bool = False
    lost: bool = False


class Job(Protocol):
    """A run that a launcher has taken over."""

    started: bool
    """Whether its process was started; before that it waits for a place."""

    def poll(self) -> Ending | None:
        """How it ended; None while it waits or runs. Called several times a second: it must not block."""
        ...

    def stop(self, number: int) -> None:
        """Ask it to stop, with SIGINT or SIGTERM: the first ends the run after its iteration. Give up waiting."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Launcher(Protocol):
    """Starts runs. `with launcher:` connects to a cluster and ends what is left of its jobs."""

    capacity: int
    """Most runs that may wait and run at a time."""

    def __enter__(self) -> Self:
        """Connect and check, before anything is started; raises `UserError`."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def adopts(self, run_dir: Path) -> bool:
        """Whether a job of an earlier call has this run; `start` then goes on with watching it."""
        ...

    def start(self, runs: list[PlannedRun]) -> list[Job]:
        """Start runs, at most `capacity` at a time, or queue them; none of them is finished or locked."""
        ...


class NeverStarted:
    """A job whose process could not be started, with the exit code that it would have had."""

    started = False

    def __init__(self, error: Exception) -> None:
        self._ending = Ending(getattr(error, "exit_code", 1), f"it could not be started: {error}")

    def poll(self) -> Ending:
        """The reason."""
        return self._ending

    def stop(self, number: int) -> None:
        """Nothing is there to be stopped."""

    def kill(self) -> None:
        """Nothing is there to be killed."""
