"""Neural value functions fitted by Adam to the squared error on minibatches."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from trpo_lightning.policies.images import products_per_row
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.observations import Shape
from trpo_lightning.policies.perceptron import ArrayLike
from trpo_lightning.policies.sequences import Observations, Sequences
from trpo_lightning.ranks import Share
from trpo_lightning.settings import AdamValueSettings, DescentValueSettings
from trpo_lightning.threads import threads_for, torch_threads
from trpo_lightning.values.gradients import LossGradient, loss_gradient
from trpo_lightning.values.value_function import NeuralValueFunction

SHARED_FROM = 2048
"""Rows of a step of Adam from which ranks share them: for fewer, an all-reduce takes longer than the step."""
FitData = tuple[Observations, tuple[Tensor, ...]]
"""Observations, and columns `[B, 1]`: targets and old values."""
Minibatch = tuple[Any, list[ArrayLike], int]
"""Observations and columns of some rows in a `LossGradient`'s native form, and their number on all ranks."""


class DescentValueFunction(NeuralValueFunction):
    """V_phi(s): a network with one output, and its optimizer; subclasses define the minibatches.

    Minibatch regression with Adam, as in most implementations; the GAE paper fits in a trust region instead (GAE 2016,
    section 5). With `value.clip` c, a transition's loss is max((V - y)^2, (V_old + clip(V - V_old, -c, c) - y)^2),
    where V_old is V before the fit (Engstrom 2020, code-level optimizations).
    """

    Settings = DescentValueSettings
    settings: DescentValueSettings

    def __init__(self, observation_shape: Shape, settings: DescentValueSettings, generator: torch.Generator) -> None:
        super().__init__(observation_shape, settings, generator)
        self._optimizer: torch.optim.Adam | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def optimizer(self) -> torch.optim.Adam:
        """Adam on one flat vector `[P]`, created on first use, when the parameters are on their device."""
        if self._optimizer is None:
            theta = parameter_vector(self.network)
            self._optimizer = torch.optim.Adam([theta], lr=self.settings.learning_rate, fused=True)
            if self._loaded is not None:
                self._optimizer.load_state_dict(self._loaded)
        return self._optimizer

    def rows_of_a_step(self, rows: int) -> int:
        """About how many of a batch's `rows` one step of Adam takes."""
        raise NotImplementedError(f"{type(self).__name__} has no rows_of_a_step")

    def minibatches(
        self, gradient: LossGradient, data: FitData, share: Share, generator: torch.Generator
    ) -> Iterator[Minibatch]:
        """A pass over the batch in minibatches."""
        raise NotImplementedError(f"{type(self).__name__} has no minibatches")

    def fit(
        self, observations: Observations, targets: Tensor, generator: torch.Generator, share: Share | None = None
    ) -> float:
        """As `ValueFunction.fit`; the mean squared error returned is that during the last epoch."""
        share = share or Share(len(targets))
        if share.ranks.size > 1 and self.rows_of_a_step(share.count) < SHARED_FROM:
            return self._fit_on_first(observations, targets, generator, share)
        if not (share.count and self.settings.epochs and share.all(bool(torch.isfinite(targets).all()))):
            return float("nan")
        # without clipping V_old is not used; a non-finite observation then shows up in the parameters
        values = targets if self.settings.clip is None else self.predict(observations)
        theta, before = self.optimizer.param_groups[0]["params"][0], copy.deepcopy(self.optimizer_state())
        theta.copy_(parameter_vector(self.network))
        if theta.grad is None:  # at first, and after pickling
            theta.grad = torch.zeros_like(theta)
        with torch_threads(threads_for(self.rows_of_a_step(share.count), products_per_row(self.network))):
            loss = self._descend(theta, (observations, targets, values), share, generator)
        if not torch.isfinite(theta).all():
            self.load_optimizer_state(before)
            return float("nan")
        assign_parameter_vector(self.network, theta)
        return loss

    def _fit_on_first(
        self, observations: Observations, targets: Tensor, generator: torch.Generator, share: Share
    ) -> float:
        """Let the first rank fit to the rows of all, which the others wait for; they have no use for Adam's moments."""
        assert isinstance(observations, Tensor)
        x, y = (column.to(targets.device) for column in share.whole(observations, targets))
        loss = self.fit(x, y, generator) if share.ranks.index == 0 else float("nan")
        loss, theta = share.ranks.of_first((loss, parameter_vector(self.network).cpu()))
        assign_parameter_vector(self.network, theta.to(targets.device))
        return loss

    @torch.no_grad()
    def _descend(
        self, theta: Tensor, data: tuple[Observations, Tensor, Tensor], share: Share, generator: torch.Generator
    ) -> float:
        """Take all Adam steps on `theta` `[P]`, over observations, targets and old values."""
        observations, targets, values = data
        columns = observations, (targets[:, None], values[:, None])
        gradient = loss_gradient(self.network, theta, theta.grad)  # pyright: ignore[reportArgumentType]
        step, squares = self._adam_step(theta), []
        for _ in range(self.settings.epochs):
            squares.clear()
            for x, (y, old), rows in self.minibatches(gradient, columns, share, generator):
                gradient.write(x, lambda v, y=y, old=old, n=rows: self._output_gradient(v, y, old, n, squares))
                share.ranks.sum_(theta.grad)  # pyright: ignore[reportArgumentType]
                step()
        return share.mean(sum(map(float, squares)))

    def _adam_step(self, theta: Tensor) -> Callable[[], None]:
        """The optimizer's step on `theta` `[P]`, without its bookkeeping, which takes half the time."""
        group, state = self.optimizer.param_groups[0], self.optimizer.state[theta]
        if not state:
            state["step"] = torch.zeros((), device=theta.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(theta), torch.zeros_like(theta)
        tensors = [theta], [theta.grad], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]]
        beta1, beta2 = group["betas"]
        options = {name: group[name] for name in ("fused", "amsgrad", "lr", "weight_decay", "eps", "maximize")}
        return partial(adam, *tensors, foreach=False, beta1=beta1, beta2=beta2, **options)

    @np.errstate(all="ignore")
    def _output_gradient(
        self, v: ArrayLike, y: ArrayLike, old: ArrayLike, rows: int, squares: list[ArrayLike]
    ) -> ArrayLike:
        """Derivative in the values, `[B, 1]`, of the mean loss over `rows`; appends the sum of squared errors."""
        error = v - y
        squares.append((error * error).sum())
        gradient = error * (2.0 / rows)
        clip = self.settings.clip
        if clip is None:
            return gradient
        moved = v - old
        clipped = old + moved.clip(-clip, clip) - y
        constant = (abs(moved) > clip) & (abs(clipped) > abs(error))  # within the clip they differ only by rounding
        gradient[constant] = 0.0
        return gradient

    def optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state, for a checkpoint."""
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from an `optimizer_state`; it is loaded on first use, when the parameters are on their device."""
        self._optimizer, self._loaded = None, state


class NetworkValueFunction(DescentValueFunction):
    """V_phi(s) of a single observation, fitted to shuffled transitions."""

    Settings = AdamValueSettings
    settings: AdamValueSettings  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def fits_on_one_thread(self) -> bool:
        """Whether minibatches are too small to gain from a second thread."""
        size = sum(parameter.numel() for parameter in self.network.parameters())
        return threads_for(self.settings.minibatch_size, size) == 1

    def rows_of_a_step(self, rows: int) -> int:
        """As `DescentValueFunction.rows_of_a_step`."""
        return self.settings.minibatch_size

    def minibatches(
        self, gradient: LossGradient, data: FitData, share: Share, generator: torch.Generator
    ) -> Iterator[Minibatch]:
        """Minibatches of `value.minibatch_size` transitions of all ranks."""
        observations, columns = data
        assert not isinstance(observations, Sequences)
        order = torch.randperm(share.count, generator=generator)
        held = share.rows(order).to(observations.device)
        shuffled: list[Any] = [column.index_select(0, held) for column in (observations, *columns)]
        shuffled = [gradient.native(column) if isinstance(column, Tensor) else column for column in shuffled]
        for part, rows in share.minibatches(order, self.settings.minibatch_size):
            x, *rest = (column[part] for column in shuffled)
            yield x, rest, rows
