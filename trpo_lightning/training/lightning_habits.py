"""What Lightning users expect of any module, and how `TRPO` provides it: callbacks, `self.log`, checkpoints."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from trpo_lightning.environments.cautions import cautions
from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.errors import UserError
from trpo_lightning.ranks import DistributedRanks, Ranks
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
    ranks: Ranks

    def join(self, ranks: Ranks) -> None:
        """Train together with other processes."""
        raise NotImplementedError(f"{type(self).__name__} works alone")

    def trained_policy(self) -> TrainedPolicy:
        """The current policy with its normalizer, ready to act or to be saved."""
        raise NotImplementedError(f"{type(self).__name__} has no policy")

    @property
    def row(self) -> dict[str, Any]:
        """The latest iteration's numbers and texts, for reading only; `log` adds to them."""
        return self.iteration_log.row

    def configure_callbacks(self) -> Sequence[pl.Callback]:
        """Check the trainer's callbacks, and add evaluation if settings ask for it and the trainer has none.

        Lightning calls this first of all, so that what cannot work is refused before anything is built.
        """
        check_function(self.trainer)
        check_callbacks(self.trainer)
        there = any(isinstance(callback, EvaluationCallback) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        evaluation = self.settings.evaluation
        wanted = evaluation.every or evaluation.final_episodes is not None
        return [EvaluationCallback()] if wanted and not there else []

    def setup(self, stage: str) -> None:
        """Refuse trainers that would silently change the algorithm, and print cautions about the environment."""
        check_trainer(self.trainer)
        if self.trainer.world_size > 1:
            self.join(DistributedRanks(self.trainer.num_devices))
        for line in cautions(self.settings, self.spec) if self.ranks.index == 0 else []:
            print(f"warning: {line}")

    def log(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, name: str, value: Any, prog_bar: bool = False, logger: bool | None = None, **ways: Any
    ) -> None:
        """Log a custom metric; it goes into the iteration's row with all the others.

        This works in any hook of a subclass or a callback. An iteration is one step and one epoch, so there is nothing
        to average, and Lightning's `on_step`, `on_epoch`, `reduce_fx` and so on have no effect. Of several ranks the
        first one's value counts.

        Args:
            name: A new name, or one that another part of the run logs; the loop reserves `iteration`, `env_steps` and
                so on.
            value: A number, a tensor with one element, a torchmetrics `Metric`, or a text for loggers that accept text.
            prog_bar: Whether to show it in progress bars.
            logger: False hides it from loggers, so that only callbacks can monitor it.
            **ways: Lightning's other arguments, which are ignored.

        Raises:
            UserError: The name is reserved, or the value is neither a number nor a text.
        """
        del ways
        value = plain_value(name, value)
        self.iteration_log.add(name, value, label=name if prog_bar else None, for_loggers=logger is not False)
        if self._trainer is not None and is_number(value):
            self.trainer.callback_metrics[name] = torch.tensor(float(value))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `trpo_lightning.load` needs to act from the checkpoint."""
        checkpoint[IN_CHECKPOINT] = self.trained_policy().state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Accept a policy that `load_from_checkpoint` restores, but refuse to resume training from the checkpoint.

        Lightning's checkpoints lack the environments, random streams and the rule's state. Raises `UserError`.
        """
        if self._trainer is None:
            counts = checkpoint.get(IN_CHECKPOINT, {})
            self.iteration, self.env_steps = counts.get("iteration", 0), counts.get("env_steps", 0)
            return
        raise UserError(
            "a Lightning checkpoint is an export and cannot be resumed exactly: act with trpo_lightning.load(path), "
            "resume from a run directory (python -m trpo_lightning train --resume RUN_DIR)"
        )
