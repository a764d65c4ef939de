"""The row of an iteration: who adds numbers to it, which seconds it accounts for, and who gets it."""

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
"""Labels on progress bars, and their metrics."""


class Stopwatch:
    """Seconds of the phases of an iteration."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Add the seconds of a block to those of its phase."""
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began


class IterationLog:
    """One row at a time: begun by the iteration, added to by callbacks, closed, and handed out once.

    What is logged while no row is open is in the next one. Every second between two rows is in one of them: those that
    no part of the row names are `time/overhead`.
    """

    def __init__(self) -> None:
        self.row: dict[str, Any] = {}
        """The latest row, to be read; `add` writes to it."""
        self._next: dict[str, Any] = {}
        self._shown = dict(SHOWN)
        self._not_for_loggers: set[str] = set()
        self._known: dict[str, torch.Tensor] = {}
        self._is_open = self._is_due = False
        self._began = time.perf_counter()
        self._env_steps, self._inside_collect = 0, set[str]()

    def start_clock(self) -> None:
        """The first row's seconds count from now."""
        self._began = time.perf_counter()

    def begin(self, rollout: Rollout, seconds: Mapping[str, float], numbers: Mapping[str, Any]) -> None:
        """Open the row of an iteration, with its numbers and the `seconds` of its phases, those of the rollout too."""
        times = {f"time/{name}": value for name, value in {**rollout.seconds, **seconds}.items()}
        self._inside_collect = {f"time/{name}" for name in rollout.seconds if name != "collect"}
        self._env_steps = rollout.env_steps
        self.row, self._next = {**self._next, **times, **numbers}, {}
        self._is_open = self._is_due = True

    def add(self, name: str, value: Any, *, label: str | None = None, for_loggers: bool = True) -> None:
        """Add a number or a text to the open row, else to the next.

        With a `label` progress bars show it; what is not `for_loggers` callbacks see only. Raises `UserError` for a
        metric of the loop.
        """
        if name in RESERVED:
            raise UserError(f"log({name!r}): the loop writes this metric itself: choose another name")
        if label is not None:
            self._shown[label] = name
        if not for_loggers:
            self._not_for_loggers.add(name)
        (self.row if self._is_open else self._next)[name] = value

    def add_late(self, numbers: Mapping[str, Any]) -> None:
        """Complete the row with what it waited for."""
        self.row |= numbers

    def close_times(self, last: Mapping[str, Any]) -> None:
        """Account for all seconds since the row before, and add the `last` numbers; later ones are the next row's."""
        now = time.perf_counter()
        total, self._began = now - self._began, now
        parts = [x for name, x in self.row.items() if name.startswith("time/") and name not in self._inside_collect]
        self.row |= {**last, "time/overhead": total - sum(parts), "time/steps_per_second": self._env_steps / total}

    def close(self) -> None:
        """No number is added any more, but those that the row waits for."""
        self._is_open = False

    @property
    def is_ready(self) -> bool:
        """Whether the row is closed, and nobody has it yet."""
        return self._is_due and not self._is_open

    def hand_out(self, trainer: pl.Trainer) -> None:
        """Give the row to the loggers, callbacks and progress bars."""
        self._is_due = False
        numbers = self.publish(trainer)
        for logger in trainer.loggers:
            row = self.row if getattr(logger, "accepts_text", False) else numbers
            for_loggers = {name: value for name, value in row.items() if name not in self._not_for_loggers}
            logger.log_metrics(for_loggers, step=self.row["iteration"])

    def publish(self, trainer: pl.Trainer) -> dict[str, float]:
        """Show the row's numbers, which are returned, to callbacks and progress bars; those of the row before go.

        So a callback that monitors a metric sees each of its values once, and none where an iteration has none.
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
        """At the end of training: of each metric the last value there was."""
        trainer.callback_metrics.update(self._known)


def is_number(value: Any) -> bool:
    """Whether there is a number to log: texts, nothing and NaN are none."""
    return value is not None and not isinstance(value, str) and not (isinstance(value, float) and math.isnan(value))


def plain_value(name: str, value: Any) -> float | int | str:
    """A logged value as a number or a text. Raises `UserError` for a tensor of several elements, or another type."""
    if hasattr(value, "compute"):  # a torchmetrics Metric
        value = value.compute()
    if isinstance(value, bool | int | float | str):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"log({name!r}): is no number and no text: {error}") from error
