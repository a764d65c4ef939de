"""What every rank of a run does: it builds the module, and iterates until the budget is used up or a signal arrives."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger

from trpo_lightning.environments.vector_environment import EnvironmentFailure
from trpo_lightning.errors import StuckError, UserError
from trpo_lightning.randomness import Stream, seed_global_generators
from trpo_lightning.ranks import Ranks
from trpo_lightning.runs.checkpoint import restore
from trpo_lightning.runs.ranks.launch import local_rank
from trpo_lightning.settings import RunSettings
from trpo_lightning.stopping import StopRequest
from trpo_lightning.threads import default_threads
from trpo_lightning.training.module import TRPO


def prepared(settings: RunSettings, run_dir: Path, state: dict[str, Any] | None, ranks: Ranks) -> TRPO:
    """The module, at the barrier `state` if there is one. Raises `UserError` if it does not fit."""
    torch.set_num_threads(settings.threads or default_threads())
    seed_global_generators(settings.seed, Stream.GLOBAL)  # for callbacks and loggers: environments have their own
    module = TRPO(settings=settings)
    if ranks.size > 1:
        module.join(ranks)
    if state is not None:
        try:
            restore(module, state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{run_dir}: its barrier does not fit this version: {error!r}") from error
    return module


def trainer_of(settings: RunSettings, run_dir: Path, loggers: list[Logger], callbacks: list[pl.Callback]) -> pl.Trainer:
    """A trainer of this process alone: what ranks have to tell each other, the module does.

    Lightning would take each task of a Slurm job or of `torchrun` for a rank of one distributed run, refuse `--ntasks`,
    and let only rank 0 log; with `devices=1`, each is a run of its own.
    """
    rank_zero_only.rank = 0  # pyright: ignore[reportFunctionMemberAccess]  where Lightning keeps it
    try:
        return pl.Trainer(
            max_epochs=-1,
            accelerator=settings.device,
            devices=[local_rank()] if settings.device == "gpu" and settings.devices > 1 else 1,
            logger=loggers,
            callbacks=callbacks,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(run_dir),
            plugins=[LightningEnvironment()],
        )
    except MisconfigurationException as error:
        raise UserError(f"device={settings.device} is not available: {error}") from error


class StopBetweenIterations(pl.Callback):
    """Ends the run after the iteration in which a stop request arrives, at whichever rank."""

    def __init__(self, stop: StopRequest, ranks: Ranks) -> None:
        self.stop, self.ranks = stop, ranks

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's signal handlers, which would exit in the middle of an iteration."""
        self.stop.listen_again()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the trainer if a signal has arrived."""
        self.stop.signal_number = int(self.ranks.largest(self.stop.signal_number))
        if self.stop.signal_number:
            trainer.should_stop = True


def iterate(trainer: pl.Trainer, module: TRPO, stop: StopRequest) -> StuckError | None:
    """Train until the budget is used up or `stop` is requested; returns the error if too many updates were rejected."""
    try:
        trainer.fit(module)
    except StuckError as stuck:
        return stuck
    except SystemExit as left:  # Lightning's answer to a second Ctrl-C, and to a SIGTERM that its own handler gets
        if isinstance(left.__context__, KeyboardInterrupt):
            raise left.__context__ from None
        if not stop.signal_number:
            raise
    except EnvironmentFailure:  # a signal to all processes of a job also ends the environments' processes
        if not stop.signal_number:
            raise
