"""All trackers of a run: W&B, whose config is the one that counts, and those of `tracking.loggers` beside it."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from trpo_lightning.errors import UserError, first_line
from trpo_lightning.settings import LOGGERS, RunSettings
from trpo_lightning.tracking.background_logger import FINISH_TIMEOUT, BackgroundLogger, Connection, RunFacts
from trpo_lightning.tracking.own_logger import OwnLogger, own_logger
from trpo_lightning.tracking.wandb_client import check_server, mode_of
from trpo_lightning.tracking.wandb_logger import RunTracker, start_tracking
from trpo_lightning.tracking.wandb_variables import variable

Rows = Callable[[], Iterable[Mapping[str, str]]]


def open_loggers(
    settings: RunSettings, facts: RunFacts, recorded: Rows, keep_iterations: int
) -> list[BackgroundLogger]:
    """Start the trackers besides W&B, each in its thread.

    Args:
        settings: The run's settings.
        facts: The run directory, title and tags.
        recorded: Reads the rows of `metrics.csv`.
        keep_iterations: How many of their iterations, from the first, a continued run keeps.

    Raises:
        UserError: A function of one's own returns no logger.
    """
    opened = [_open(name, settings, facts, recorded, keep_iterations) for name in settings.tracking.loggers]
    return [logger for logger in opened if logger is not None]


def _open(name: str, settings: RunSettings, facts: RunFacts, recorded: Rows, keep: int) -> BackgroundLogger | None:
    if name == "wandb":
        return None
    if name in LOGGERS:
        return BackgroundLogger(name, _connector(name, settings, facts, keep), recorded, keep, facts.run_dir)
    try:
        return OwnLogger(own_logger(name, settings, facts.run_dir), name, facts, recorded, keep)
    except UserError:
        raise
    except Exception as error:  # a tracker that is away stops no run
        print(f"warning: tracking.loggers={name} does not start ({first_line(error)}); {facts.run_dir} has it all")
        return None


def _connector(name: str, settings: RunSettings, facts: RunFacts, keep: int) -> Callable[[], Connection]:
    """What opens a tracker; its package is imported in the tracker's thread, which takes seconds."""
    barrier: list[int | None] = [keep]

    def connect() -> Connection:
        if name == "tensorboard":
            from trpo_lightning.tracking.tensorboard_logger import TensorBoardConnection

            connection = TensorBoardConnection(settings, facts, barrier[0])
            barrier[0] = None  # a later connection continues this process's own rows
            return connection
        if name == "mlflow":
            from trpo_lightning.tracking.mlflow_logger import MLflowConnection

            return MLflowConnection(settings, facts)
        from trpo_lightning.tracking.trackio_logger import TrackioConnection

        return TrackioConnection(settings, facts)

    return connect


class Trackers:
    """Those of one run, from its start to its end.

    Args:
        wandb: W&B's logger, if it takes part.
        others: The others.
    """

    def __init__(self, wandb: RunTracker | None, others: list[BackgroundLogger]) -> None:
        self.wandb, self.others = wandb, others

    @property
    def loggers(self) -> list[Logger]:
        """For the `Trainer`."""
        return [*([self.wandb] if self.wandb else []), *self.others]

    @property
    def run_id(self) -> str | None:
        """W&B's id of the run."""
        return self.wandb.run.id if self.wandb else None

    def log_policies(self, files: dict[str, Path], metadata: dict[str, Any]) -> None:
        """Upload the exported policies, each under its name."""
        for logger in [*([self.wandb] if self.wandb else []), *self.others]:
            logger.log_policies(files, metadata)

    def is_stopped(self) -> bool:
        """Whether W&B asked the run to end."""
        return self.wandb is not None and self.wandb.is_stopped()

    def finish(self, state: str, exit_code: int, *, preempting: bool = False) -> None:
        """End the run everywhere; the time limits run side by side."""
        deadline = time.monotonic() + FINISH_TIMEOUT
        for logger in self.others:
            logger.end(state)
        if self.wandb is not None:
            self.wandb.finish(exit_code, preempting=preempting)
        for logger in self.others:
            logger.wait(deadline)


def start_trackers(
    settings: RunSettings,
    facts: RunFacts,
    recorded: Rows,
    *,
    run_id: str | None,
    keep_iterations: int,
    resume: bool,
) -> tuple[Trackers, RunSettings]:
    """Open W&B, then the others with the settings that W&B's config gives back.

    Args:
        settings: The run's settings.
        facts: The run directory, title and version of the code.
        recorded: Reads the rows of `metrics.csv`.
        run_id: W&B's id of the run; None lets W&B choose one.
        keep_iterations: How many iterations, from the first, a continued run keeps of these rows.
        resume: Whether W&B may have the run already.

    Returns:
        The trackers, and the settings that count.

    Raises:
        UserError: W&B's config does not fit, or a function of one's own returns no logger.
    """
    wandb, settings = _wandb(settings, facts, recorded, run_id, keep_iterations, resume)
    try:
        return Trackers(wandb, open_loggers(settings, facts, recorded, keep_iterations)), settings
    except BaseException:
        if wandb is not None:
            wandb.finish(1)
        raise


def send_the_rest(
    settings: RunSettings, facts: RunFacts, recorded: Rows, files: dict[str, Path], *, run_id: str | None, done: int
) -> None:
    """Send to trackers what they lack of a finished run: they were away at its end, or are new.

    Args:
        settings: The run's settings.
        facts: The run directory, title and version of the code.
        recorded: Reads the rows of `metrics.csv`.
        files: The exported policies, by name.
        run_id: W&B's id of the run, if it has one.
        done: How many iterations the run has.
    """
    wandb = None
    if run_id is not None and mode_of(settings) == "online":
        try:
            check_server()
        except Exception as error:
            print(f"warning: W&B is out of reach ({first_line(error)}): what it lacks of {facts.run_dir} waits")
        else:
            wandb, _ = _wandb(settings, facts, recorded, run_id, done, resume=True)
    trackers = Trackers(wandb, open_loggers(settings, facts, recorded, done))
    trackers.log_policies(files, {})
    trackers.finish("finished", 0)


def _wandb(
    settings: RunSettings, facts: RunFacts, recorded: Rows, run_id: str | None, keep: int, resume: bool
) -> tuple[RunTracker | None, RunSettings]:
    return start_tracking(
        settings,
        facts.run_dir,
        run_id=run_id,
        name=facts.title,
        job_type="train",
        tags=[facts.code],
        rows=recorded(),
        keep_iterations=keep,
        resume=resume,
    )


def title_of(settings: RunSettings) -> str:
    """A run's name in trackers."""
    return variable("NAME") or f"{settings.env.id} {settings.name} seed {settings.seed}"
