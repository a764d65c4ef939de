"""A Lightning logger of one's own, named `module:function`, with the promises of the others."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from trpo_lightning.errors import UserError
from trpo_lightning.settings import RunSettings
from trpo_lightning.tracking.background_logger import BackgroundLogger, RunFacts
from trpo_lightning.tracking.notes import Note
from trpo_lightning.tracking.packages import logger_function
from trpo_lightning.tracking.rows import Row

STATUS = {"finished": "success"}
"""Lightning's word for how a run ended; for the others it is `failed`."""


class OwnConnection:
    """A user's logger; which rows it has is noted after each call, unless it has `logged_iterations` itself."""

    def __init__(self, logger: Logger, name: str, facts: RunFacts) -> None:
        self._logger = logger
        self._note = Note(facts.run_dir, name)

    def logged_iterations(self, recorded: list[Row]) -> set[int]:
        """What the logger says, or what is noted."""
        if hasattr(self._logger, "logged_iterations"):
            return set(self._logger.logged_iterations())  # pyright: ignore[reportAttributeAccessIssue]
        return set(range(1, 1 + self._note.read().get("iterations", 0)))

    def log_rows(self, rows: list[Row]) -> None:
        """Log rows one by one, with `env_steps` as step."""
        for row in rows:
            self._logger.log_metrics(row, step=int(row["env_steps"]))
            self._note.write(iterations=int(row["iteration"]))

    def log_files(self, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Give it the policies if it takes them: Lightning's loggers have no method for files."""
        log_files = getattr(self._logger, "log_files", None)
        if callable(log_files):
            log_files(dict(files), dict(metadata))

    def close(self, state: str) -> None:
        """Save and finalize."""
        self._logger.save()
        self._logger.finalize(STATUS.get(state, "failed"))


class OwnLogger(BackgroundLogger):
    """Hands on what Lightning tells a logger; everything else is the logger's own."""

    def __init__(
        self,
        logger: Logger,
        name: str,
        facts: RunFacts,
        recorded: Callable[[], Iterable[Mapping[str, str]]],
        keep_iterations: int,
    ) -> None:
        self.own = logger
        self.accepts_text = bool(getattr(logger, "accepts_text", False))
        connection = OwnConnection(logger, name, facts)
        super().__init__(name, lambda: connection, recorded, keep_iterations, facts.run_dir)

    @property
    def experiment(self) -> Any:
        """The logger's own, for callbacks that draw into it."""
        return getattr(self.own, "experiment", None)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Hand on the settings."""
        self.call(lambda connection: self.own.log_hyperparams(*args, **kwargs))

    def save(self) -> None:
        """Have it save, at each barrier."""
        self.call(lambda connection: self.own.save())


def own_logger(name: str, settings: RunSettings, run_dir: Path) -> Logger:
    """What the function returns for these settings and this run directory. Raises `UserError` if it is no logger."""
    logger = logger_function(name)(settings, run_dir)
    if not isinstance(logger, Logger):
        kind = type(logger).__name__
        raise UserError(f"tracking.loggers={name}: returned a {kind}, not a pytorch_lightning.loggers.Logger")
    return logger
