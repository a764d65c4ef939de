"""One iteration's fit of the value function: at once, or in the background of the next rollout."""

from functools import partial

import torch

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.returns import explained_variance
from trpo_lightning.training.background_task import BackgroundTask
from trpo_lightning.training.batches import ValueData
from trpo_lightning.values.value_function import ValueFunction


class ValueFit:
    """A fit to the targets of an iteration; its explained variance is that of the `values` from before the fit.

    Args:
        value_function: The value function to fit; nothing else may use it before `finish`.
        data: Observations, targets, and the values from before the fit.
        generator: The source of all random numbers of the fit.
        beside: Whether to fit in a background thread; otherwise the constructor returns after the fit.
    """

    def __init__(
        self, value_function: ValueFunction, data: ValueData, generator: torch.Generator, *, beside: bool
    ) -> None:
        self._value_function = value_function
        self._explained = explained_variance(data.values, data.targets, data.share)
        several = {"share": data.share} if data.share.ranks.size > 1 else {}
        fit = partial(value_function.fit, data.observations, data.targets, generator, **several)
        self._task = BackgroundTask(fit) if beside else None
        self._loss = None if beside else fit()

    @property
    def goes_on(self) -> bool:
        """Whether the fit runs in the background and `finish` has not been called."""
        return self._task is not None

    def finish(self) -> None:
        """Wait for a fit in the background, and raise its exception if it failed."""
        if self._task is not None:
            task, self._task = self._task, None
            self._loss = task.wait()

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics of the fit; those that are not known while it runs are None or left out."""
        measured = {} if self.goes_on else self._value_function.measure()
        if not isinstance(measured, dict):
            kind = type(self._value_function).__name__
            raise UserError(f"{kind}.measure returned a {type(measured).__name__}, not a dict of metrics")
        return {"value/loss": self._loss, "value/explained_variance": self._explained, **measured}
