"""A value function linear in fixed features of the observation."""

import math

import torch
from torch import Tensor, nn

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.least_squares import mean_square
from trpo_lightning.numerics.ridge import ridge_regression
from trpo_lightning.policies.observations import Layout, ObservationRows, Shape
from trpo_lightning.ranks import Share
from trpo_lightning.settings import LinearValueSettings, ValueSettings
from trpo_lightning.values.value_function import ValueFunction

CHUNK = 8192
"""Number of rows whose float64 features are in memory at once."""


class LinearValueFunction(ValueFunction):
    """V(s) = w'x(s), x = (observation, its square, 1), after the linear baseline of Duan et al. 2016.

    Unlike theirs, V depends on the observation alone, not on time. The fit is ridge regression in closed form, in
    float64, and forgets earlier batches; `value.l2` weighs the squares of w, except the constant's. V = 0 before the
    first fit. If observations are normalized, their scale changes after the first iteration, and V is off until the
    next fit.
    """

    Settings = LinearValueSettings
    settings: LinearValueSettings

    def __init__(self, observation_shape: Shape, settings: ValueSettings, generator: torch.Generator) -> None:
        super().__init__(observation_shape, settings, generator)
        layout = Layout.of(observation_shape)
        if layout.images:
            raise UserError("value.name=linear does not see images: use adam, gru, lstm, lbfgs, trust_region or none")
        size = 2 * layout.vector + 1
        self.weights = nn.Parameter(torch.zeros(size, dtype=torch.float64), requires_grad=False)

    def predict(self, observations: ObservationRows, chunk: int = CHUNK) -> Tensor:
        """V `[B]` for observations `[B, *O]`."""
        return _predict(self.weights, observations, min(chunk, CHUNK))

    def fit(
        self, observations: Tensor, targets: Tensor, generator: torch.Generator, share: Share | None = None
    ) -> float:
        """As `ValueFunction.fit`; the mean squared error returned is that after the fit."""
        del generator
        share = share or Share(len(targets))
        if not (share.count and share.all(bool(torch.isfinite(targets).all()))):
            return float("nan")
        y, size = targets.double(), len(self.weights)
        gram, moment = y.new_zeros(size, size), y.new_zeros(size)
        for observed, part in zip(observations.split(CHUNK), y.split(CHUNK), strict=True):
            x = features(observed)
            gram += x.T @ x
            moment += x.T @ part
        penalties = torch.full_like(moment, self.settings.l2)
        penalties[-1] = 0.0
        weights = ridge_regression(share.mean(gram), share.mean(moment), penalties)
        if weights is None:
            return float("nan")
        error = mean_square(_predict(weights, observations, CHUNK) - targets, share)
        if not math.isfinite(error):
            return float("nan")
        self.weights.copy_(weights)
        return error


def _predict(weights: Tensor, observations: ObservationRows, chunk: int) -> Tensor:
    values = [features(part) @ weights.double() for part in observations.split(chunk)]
    return torch.cat(values).to(observations.dtype)


def features(observations: Tensor) -> Tensor:
    """(observation, its square, 1) for observations `[B, *O]`: float64 `[B, 2 |O| + 1]`."""
    flat = observations.flatten(1).double()
    return torch.cat([flat, flat.square(), flat.new_ones(len(flat), 1)], dim=1)
