"""Neural value functions fitted to the whole batch at once, in a trust region or by L-BFGS."""

import math

import torch
from torch import Tensor

from trpo_lightning.numerics.least_squares import (
    CHUNK,
    Model,
    lbfgs_least_squares,
    mean_square,
    predictions,
    trust_region_least_squares,
)
from trpo_lightning.policies.images import rows_at_once
from trpo_lightning.policies.networks import assign_parameter_vector, named_views, parameter_vector
from trpo_lightning.policies.observations import are_finite
from trpo_lightning.policies.sequences import Observations, rows_of
from trpo_lightning.ranks import Share
from trpo_lightning.settings import LBFGSValueSettings, TrustRegionValueSettings
from trpo_lightning.values.value_function import NeuralValueFunction


class FullBatchValueFunction(NeuralValueFunction):
    """V_phi(s), a network whose fit is a pure function of (phi, batch): deterministic, with no optimizer state."""

    def fit(
        self, observations: Observations, targets: Tensor, generator: torch.Generator, share: Share | None = None
    ) -> float:
        """As `ValueFunction.fit`; the mean squared error returned is that after the fit."""
        del generator
        share = share or Share(len(targets))
        finite = bool(torch.isfinite(targets).all()) and are_finite(rows_of(observations))
        if not (share.count and share.all(finite)):
            return float("nan")
        if not share.all(bool(torch.isfinite(self.predict(observations)).all())):
            return float("nan")

        def model(theta: Tensor, rows: slice) -> Tensor:
            views = named_views(self.network, theta)
            return torch.func.functional_call(self.network, views, (observations[rows],)).squeeze(-1)

        solution = self.solve(model, parameter_vector(self.network), targets, share)
        error = mean_square(predictions(model, solution, len(targets), chunk=self.chunk) - targets, share)
        if not (math.isfinite(error) and torch.isfinite(solution).all()):
            return float("nan")
        assign_parameter_vector(self.network, solution)
        return error

    @property
    def chunk(self) -> int:
        """The most rows that are evaluated at once."""
        return rows_at_once(self.network, CHUNK)

    def solve(self, model: Model, theta: Tensor, targets: Tensor, share: Share) -> Tensor:
        """Fit the model to this rank's `share` of the targets, `[B]`, starting at `theta` `[P]`.

        Returns:
            The new parameters `[P]`; if a number is not finite, the fit has failed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no solve")


class TrustRegionValueFunction(FullBatchValueFunction):
    """One Gauss-Newton step in a trust region for each batch (GAE 2016, section 5)."""

    Settings = TrustRegionValueSettings
    settings: TrustRegionValueSettings

    def solve(self, model: Model, theta: Tensor, targets: Tensor, share: Share) -> Tensor:
        """Take one step of `trust_region_least_squares`."""
        s = self.settings
        return trust_region_least_squares(
            model,
            theta,
            targets,
            epsilon=s.epsilon,
            cg_iterations=s.cg_iterations,
            damping=s.damping,
            rescale=s.rescale,
            chunk=self.chunk,
            share=share,
        )


class LBFGSValueFunction(FullBatchValueFunction):
    """L-BFGS on each batch, started at the parameters from the last one, as in the TRPO authors' modular_rl."""

    Settings = LBFGSValueSettings
    settings: LBFGSValueSettings

    def solve(self, model: Model, theta: Tensor, targets: Tensor, share: Share) -> Tensor:
        """Run `lbfgs_least_squares`."""
        s = self.settings
        return lbfgs_least_squares(
            model, theta, targets, iterations=s.iterations, l2=s.l2, chunk=self.chunk, share=share
        )
