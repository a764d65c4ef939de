"""What Lightning's users expect of any module, and what `TRPO` answers: callbacks, `self.log`, checkpoints."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from trpo_lightning.environments.cautions import cautions
from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.errors import UserError
from trpo_lightning.settings import RunSettings
from trpo_lightning.training.evaluation import EvaluationCallback
from trpo_lightning.training.iteration_log import IterationLog, is_number, plain_value
from trpo_lightning.training.trained_policy import IN_CHECKPOINT, TrainedPolicy
from trpo_lightning.training.trainer_checks import check_callbacks, check_function, check_trainer


class LightningHabits(pl.LightningModule):
    """The side of `TRPO` that faces a user's Trainer; the algorithm is in `training/module.py`."""

    settings: RunSettings
    iteration_log: IterationLog
    spec: EnvironmentSpec
    iteration: int
    env_steps: int

    def trained_policy(self) -> TrainedPolicy:
        """The policy as it is now, with its normalizer: what acts, and what is saved."""
        raise NotImplementedError(f"{type(self).__name__} has no policy")

    @property
    def row(self) -> dict[str, Any]:
        """The latest iteration's numbers and texts, to be read; `log` adds to them."""
        return self.iteration_log.row

    def configure_callbacks(self) -> Sequence[pl.Callback]:
        """Evaluation as `evaluation.every` says, unless the trainer has an `EvaluationCallback`; a check of the others.

        Lightning's first call of all: what cannot work is refused before anything is built.
        """
        check_function(self.trainer)
        check_callbacks(self.trainer)
        there = any(isinstance(callback, EvaluationCallback) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if there or not self.settings.evaluation.every else [EvaluationCallback()]

    def setup(self, stage: str) -> None:
        """Refuse trainers that would change the algorithm in silence."""
        check_trainer(self.trainer)
        for line in cautions(self.settings, self.spec):
            print(f"warning: {line}")

    def log(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, name: str, value: Any, prog_bar: bool = False, logger: bool | None = None, **ways: Any
    ) -> None:
        """Log a metric of your own: it lands in the row of the iteration, with all the others.

        Works in any hook of a subclass or a callback. An iteration is one step and one epoch, on one device: there is
        nothing to reduce, and Lightning's `on_step`, `on_epoch`, `reduce_fx` and so on change nothing.

        Args:
            name: New, or one that another part of the run logs; `iteration`, `env_steps` and so on are the loop's own.
            value: A number, a tensor with one element, a torchmetrics `Metric`, or a text for loggers that take texts.
            prog_bar: Whether to show it in progress bars.
            logger: False keeps it from the loggers: callbacks can monitor it only.
            **ways: Lightning's other arguments.
        """
        del ways
        value = plain_value(name, value)
        self.iteration_log.add(name, value, label=name if prog_bar else None, for_loggers=logger is not False)
        if self._trainer is not None and is_number(value):
            self.trainer.callback_metrics[name] = torch.tensor(float(value))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what `trpo_lightning.load` needs to act from the file."""
        checkpoint[IN_CHECKPOINT] = self.trained_policy().state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take a policy that `load_from_checkpoint` brings back; refuse to resume from it.

        Lightning's checkpoints lack environments, random streams and the rule's memory.
        """
        if self._trainer is None:
            counts = checkpoint.get(IN_CHECKPOINT, {})
            self.iteration, self.env_steps = counts.get("iteration", 0), counts.get("env_steps", 0)
            return
        raise UserError(
            "a Lightning checkpoint is an export and cannot be resumed exactly: act with trpo_lightning.load(path), "
            "resume from a run directory (python -m trpo_lightning train --resume RUN_DIR)"
        )
