"""Console output of a run: a line for each update and, on a terminal, a progress bar."""

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trpo_lightning.runs.update_line import HEADER, update_line
from trpo_lightning.settings import PathSettings, RolloutSettings
from trpo_lightning.training.module import TRPO


class ConsoleCallback(pl.Callback):
    """Prints the iteration, env steps, mean return of the episodes that ended, KL and steps/s."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = title
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the title and the header, and start the progress bar."""
        assert isinstance(pl_module, TRPO)
        spec, settings = pl_module.spec, pl_module.settings
        self.console.print(
            f"[bold]{self.title}[/bold]: {settings.env.num_envs} environments on {spec.backend}, "
            f"{_ranks(settings.devices)}{_size(settings.rollout)}barriers every {pl_module.barrier_interval}"
        )
        self.console.print(f"[dim]{HEADER}[/dim]")
        if self.console.is_terminal:
            parts = (BarColumn(40), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn(), TimeRemainingColumn())
            self._progress = Progress(TextColumn("{task.description}"), *parts, console=self.console, transient=True)
            self._progress.start()
            self._task = self._progress.add_task(self.title, total=settings.total_env_steps)
            self._progress.update(self._task, completed=pl_module.env_steps)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the iteration's line and advance the bar."""
        assert isinstance(pl_module, TRPO)
        self.console.print(update_line(pl_module.row))
        if self._progress is not None:
            self._progress.update(self._task, completed=pl_module.env_steps)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the progress bar."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the progress bar before the error is shown."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _ranks(devices: int) -> str:
    return f"{devices} ranks, " if devices > 1 else ""


def _size(rollout: RolloutSettings) -> str:
    return f"{rollout.steps_per_iteration} steps an iteration, " if isinstance(rollout, PathSettings) else ""
