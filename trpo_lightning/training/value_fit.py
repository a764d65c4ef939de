"""The value function's fit of one iteration: at once, or beside the next rollout, which does not need it."""

from functools import partial

import torch

from trpo_lightning.numerics.returns import explained_variance
from trpo_lightning.training.background_task import BackgroundTask
from trpo_lightning.training.batches import ValueData
from trpo_lightning.values.value_function import ValueFunction


class ValueFit:
    """A fit to the targets of an iteration, which has begun with `values` from before it.

    Args:
        value_function: What is fitted; nobody else may use it before `finish`.
        data: Observations, targets, and the values before.
        generator: All the random numbers of the fit.
        beside: Whether to fit in a thread of its own; otherwise the fit has ended when this object is there.
    """

    def __init__(
        self, value_function: ValueFunction, data: ValueData, generator: torch.Generator, *, beside: bool
    ) -> None:
        self._value_function = value_function
        self._explained = explained_variance(data.values, data.targets)
        fit = partial(value_function.fit, data.observations, data.targets, generator)
        self._task = BackgroundTask(fit) if beside else None
        self._loss = None if beside else fit()

    @property
    def goes_on(self) -> bool:
        """Whether the fit is beside, and was not waited for."""
        return self._task is not None

    def finish(self) -> None:
        """Wait for the fit. Raises what it has raised."""
        if self._task is not None:
            task, self._task = self._task, None
            self._loss = task.wait()

    @property
    def metrics(self) -> dict[str, float | None]:
        """What the fit gave, None where it goes on."""
        measured = {} if self.goes_on else self._value_function.measure()
        return {"value/loss": self._loss, "value/explained_variance": self._explained, **measured}
