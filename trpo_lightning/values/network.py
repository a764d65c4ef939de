"""A neural value function fitted by Adam on minibatches of squared error."""

import copy
from typing import Any

import torch
from torch import Tensor

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.settings import ValueSettings
from trpo_lightning.threads import threads_for, torch_threads
from trpo_lightning.values.gradients import loss_gradient
from trpo_lightning.values.value_function import NeuralValueFunction


class NetworkValueFunction(NeuralValueFunction):
    """V_phi(s): a network with one output, with its optimizer.

    Minibatch regression with Adam, as in most implementations; the GAE paper fits by a trust region instead (GAE 2016,
    section 5). With `value.clip` c the loss of a transition is max((V - y)^2, (V_old + clip(V - V_old, -c, c) - y)^2),
    V_old from before the fit (Engstrom 2020, code-level optimizations).
    """

    def __init__(self, observation_shape: tuple[int, ...], settings: ValueSettings, generator: torch.Generator) -> None:
        super().__init__(observation_shape, settings, generator)
        self._optimizer: torch.optim.Adam | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def optimizer(self) -> torch.optim.Adam:
        """Adam on one flat vector `[P]`, made on first use: by then the parameters are on their device."""
        if self._optimizer is None:
            theta = parameter_vector(self.network)
            theta.grad = torch.zeros_like(theta)
            self._optimizer = torch.optim.Adam([theta], lr=self.settings.learning_rate, fused=True)
            if self._loaded is not None:
                self._optimizer.load_state_dict(self._loaded)
        return self._optimizer

    @property
    def fits_on_one_thread(self) -> bool:
        """Small minibatches are."""
        size = sum(parameter.numel() for parameter in self.network.parameters())
        return threads_for(self.settings.minibatch_size, size) == 1

    def fit(self, observations: Tensor, targets: Tensor, generator: torch.Generator) -> float:
        """Regress V on targets `[B]`; `generator` shuffles. Returns the mean squared error during the last epoch.

        A number that is not finite, in the data or in the outcome, leaves network and optimizer as they were and
        returns NaN.
        """
        if not (len(targets) and self.settings.epochs and torch.isfinite(targets).all()):
            return float("nan")
        # without a clip V_old does not count, and an observation that is not finite ends in parameters that are not
        values = targets if self.settings.clip is None else self.predict(observations)
        theta, before = self.optimizer.param_groups[0]["params"][0], copy.deepcopy(self.optimizer_state())
        theta.copy_(parameter_vector(self.network))
        with torch_threads(threads_for(self.settings.minibatch_size, len(theta))):
            loss = self._descend(theta, observations, targets, values, generator)
        if not torch.isfinite(theta).all():
            self.load_optimizer_state(before)
            return float("nan")
        assign_parameter_vector(self.network, theta)
        return loss

    def _descend(
        self, theta: Tensor, observations: Tensor, targets: Tensor, values: Tensor, generator: torch.Generator
    ) -> float:
        """All Adam steps on `theta` `[P]`."""
        write_gradient = loss_gradient(self.network, theta, theta.grad)  # pyright: ignore[reportArgumentType]
        adam, size = self.optimizer, self.settings.minibatch_size
        errors = torch.zeros((), dtype=torch.float64, device=theta.device)
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(targets), generator=generator).to(targets.device)
            shuffled = [column.index_select(0, order) for column in (observations, targets[:, None], values[:, None])]
            columns = [column.split(size) for column in shuffled]
            errors.zero_()
            for x, y, old in zip(*columns, strict=True):
                write_gradient(x, lambda v, y=y, old=old: self._output_gradient(v, y, old, errors))
                adam.step()
        return float(errors) / len(targets)

    def _output_gradient(self, v: Tensor, y: Tensor, old: Tensor, errors: Tensor) -> Tensor:
        """Derivative of the mean loss in the values `[B, 1]`; adds the squared errors to `errors`."""
        error = v - y
        errors += error.square().sum()
        gradient = error * (2.0 / len(v))
        clip = self.settings.clip
        if clip is None:
            return gradient
        moved = v - old
        clipped = old + moved.clamp(-clip, clip) - y
        constant = (moved.abs() > clip) & (clipped.abs() > error.abs())  # inside, they differ by rounding
        return gradient.masked_fill_(constant, 0.0)

    def optimizer_state(self) -> dict[str, Any]:
        """State of the optimizer, for a checkpoint."""
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of `optimizer_state`: taken over on first use, with the parameters on their device."""
        self._optimizer, self._loaded = None, state
