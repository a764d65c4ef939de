"""The row of metrics of an iteration: what adds to it, which seconds it accounts for, and who gets it."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch

from trpo_lightning.errors import UserError
from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.training.metrics import RESERVED

SHOWN = {"return": "episode/return_mean", "KL": "trust_region/kl"}
"""Labels on progress bars and the metrics they show."""


class Stopwatch:
    """Adds up the seconds of each phase of an iteration."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Add the seconds spent in the block to `phase`."""
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began


class IterationLog:
    """One row at a time: opened by the iteration, extended by callbacks, closed, and logged once.

    What is logged while no row is open goes into the next one. Every second is accounted for in exactly one row; those
    that belong to no phase are `time/overhead`.
    """

    def __init__(self) -> None:
        self.row: dict[str, Any] = {}
        """The latest row, for reading only; `add` writes to it."""
        self._next: dict[str, Any] = {}
        self._shown = dict(SHOWN)
        self._not_for_loggers: set[str] = set()
        self._known: dict[str, torch.Tensor] = {}
        self._is_open = self._is_due = False
        self._began = time.perf_counter()
        self._env_steps, self._inside_collect = 0, set[str]()

    def start_clock(self) -> None:
        """Start counting the first row's seconds."""
        self._began = time.perf_counter()

    def begin(self, rollout: Rollout, seconds: Mapping[str, float], numbers: Mapping[str, Any]) -> None:
        """Open an iteration's row with its numbers, the `seconds` of its phases, and those of the rollout."""
        times = {f"time/{name}": value for name, value in {**rollout.seconds, **seconds}.items()}
        self._inside_collect = {f"time/{name}" for name in rollout.seconds if name != "collect"}
        self._env_steps = rollout.env_steps
        self.row, self._next = {**self._next, **times, **numbers}, {}
        self._is_open = self._is_due = True

    def add(self, name: str, value: Any, *, label: str | None = None, for_loggers: bool = True) -> None:
        """Add a number or a text to the open row, or to the next one if none is open.

        Args:
            name: The metric's name.
            value: A number or a text.
            label: How progress bars label it; None leaves it out of them.
            for_loggers: False shows it to callbacks only.

        Raises:
            UserError: The loop writes this metric itself.
        """
        if name in RESERVED:
            raise UserError(f"log({name!r}): the loop writes this metric itself: choose another name")
        if label is not None:
            self._shown[label] = name
        if not for_loggers:
            self._not_for_loggers.add(name)
        (self.row if self._is_open else self._next)[name] = value

    def add_late(self, numbers: Mapping[str, Any]) -> None:
        """Complete a closed row with the numbers it was waiting for."""
        self.row |= numbers

    def close_times(self, last: Mapping[str, Any]) -> None:
        """Account for all seconds since the previous row and add the `last` numbers; later ones go to the next row."""
        now = time.perf_counter()
        total, self._began = now - self._began, now
        parts = [x for name, x in self.row.items() if name.startswith("time/") and name not in self._inside_collect]
        self.row |= {**last, "time/overhead": total - sum(parts), "time/steps_per_second": self._env_steps / total}

    def close(self) -> None:
        """Close the row: from now on only `add_late` adds to it."""
        self._is_open = False

    @property
    def is_ready(self) -> bool:
        """Whether the row is closed but has not been logged yet."""
        return self._is_due and not self._is_open

    def hand_out(self, trainer: pl.Trainer) -> None:
        """Pass the row to loggers, callbacks and progress bars."""
        self._is_due = False
        numbers = self.publish(trainer)
        for logger in trainer.loggers if trainer.is_global_zero else []:
            row = self.row if getattr(logger, "accepts_text", False) else numbers
            for_loggers = {name: value for name, value in row.items() if name not in self._not_for_loggers}
            logger.log_metrics(for_loggers, step=self.row["iteration"])

    def publish(self, trainer: pl.Trainer) -> dict[str, float]:
        """Show the row's numbers to callbacks and progress bars, in place of the previous row's, and return them.

        So a callback that monitors a metric sees each value once, and nothing in iterations without one.
        """
        numbers = {name: value for name, value in self.row.items() if is_number(value)}
        tensors = torch.tensor([float(value) for value in numbers.values()]).unbind()
        for name in self._known.keys() - numbers.keys():
            trainer.callback_metrics.pop(name, None)
        self._known |= zip(numbers, tensors, strict=True)
        trainer.callback_metrics.update((name, self._known[name]) for name in numbers)
        bar = {label: float(numbers[name]) for label, name in self._shown.items() if name in numbers}
        trainer.progress_bar_metrics.update(bar)
        return numbers

    def publish_last_known(self, trainer: pl.Trainer) -> None:
        """At the end of training, show callbacks the last value of every metric."""
        trainer.callback_metrics.update(self._known)


def is_number(value: Any) -> bool:
    """Whether a value is a number to log: texts, None and NaN are not."""
    return value is not None and not isinstance(value, str) and not (isinstance(value, float) and math.isnan(value))


def plain_value(name: str, value: Any) -> float | int | str:
    """Convert a logged value to a number or a text; raises `UserError` for multi-element tensors and other types."""
    if hasattr(value, "compute"):  # a torchmetrics Metric
        value = value.compute()
    if isinstance(value, bool | int | float | str):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"log({name!r}): is no number and no text: {error}") from error
