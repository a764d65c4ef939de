"""The row of an iteration: what a rollout says of episodes, and who gets the numbers."""

import math
from typing import Any

import pytorch_lightning as pl
import torch

from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.training.metrics import TEXT_METRICS


def episode_metrics(rollout: Rollout) -> dict[str, float]:
    """Means over the episodes that ended; no return before the first one did."""
    count = len(rollout.episode_returns)
    if not count:
        return {"episode/count": 0}
    return {
        "episode/return_mean": sum(rollout.episode_returns) / count,
        "episode/length_mean": sum(rollout.episode_lengths) / count,
        "episode/count": count,
    }


def log_row(trainer: pl.Trainer, row: dict[str, Any], iteration: int) -> None:
    """Give a row to the loggers, the callbacks and the progress bar; only loggers with `accepts_text` get its texts."""
    numbers = {
        name: value
        for name, value in row.items()
        if name not in TEXT_METRICS and not (isinstance(value, float) and math.isnan(value))
    }
    for logger in trainer.loggers:
        logger.log_metrics(row if getattr(logger, "accepts_text", False) else numbers, step=iteration)
    tensors = torch.tensor([float(value) for value in numbers.values()]).unbind()
    trainer.callback_metrics.update(zip(numbers, tensors, strict=True))
    shown = {"return": "episode/return_mean", "KL": "trust_region/kl"}
    bar = {label: float(numbers[name]) for label, name in shown.items() if name in numbers}
    trainer.progress_bar_metrics.update(bar)
