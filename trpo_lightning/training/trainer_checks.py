"""What of a user's Trainer works with TRPO, and what is refused in one line."""

import pytorch_lightning as pl

from trpo_lightning.errors import UserError
from trpo_lightning.training.third_party_messages import quiet_warnings


def check_trainer(trainer: pl.Trainer) -> None:
    """Refuse trainers that would change the algorithm in silence. Raises `UserError`."""
    quiet_warnings()
    if trainer.world_size > 1:
        raise UserError(f"one device a run, not {trainer.world_size}: use Trainer(devices=1) and more environments")
    if trainer.precision != "32-true":
        raise UserError(f"Trainer(precision={trainer.precision!r}): the update needs 32-true")
