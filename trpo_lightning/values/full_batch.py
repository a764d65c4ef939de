"""Neural value functions fitted to the whole batch at once, by a trust region or by L-BFGS."""

import math

import torch
from torch import Tensor

from trpo_lightning.numerics.least_squares import (
    Model,
    lbfgs_least_squares,
    mean_square,
    predictions,
    trust_region_least_squares,
)
from trpo_lightning.policies.networks import assign_parameter_vector, named_views, parameter_vector
from trpo_lightning.settings import LBFGSValueSettings, TrustRegionValueSettings
from trpo_lightning.values.value_function import NeuralValueFunction


class FullBatchValueFunction(NeuralValueFunction):
    """V_phi(s), a network whose fit is a pure function of (phi, batch): deterministic, and nothing to remember."""

    def fit(self, observations: Tensor, targets: Tensor, generator: torch.Generator) -> float:
        """Regress V on targets `[B]`. Returns the mean squared error after the fit; NaN as `ValueFunction.fit` says."""
        del generator
        if not (len(targets) and all(torch.isfinite(x).all() for x in (targets, observations))):
            return float("nan")
        if not torch.isfinite(self.predict(observations)).all():
            return float("nan")

        def model(theta: Tensor, rows: slice) -> Tensor:
            views = named_views(self.network, theta)
            return torch.func.functional_call(self.network, views, (observations[rows],)).squeeze(-1)

        solution = self.solve(model, parameter_vector(self.network), targets)
        error = mean_square(predictions(model, solution, len(targets)) - targets)
        if not (math.isfinite(error) and torch.isfinite(solution).all()):
            return float("nan")
        assign_parameter_vector(self.network, solution)
        return error

    def solve(self, model: Model, theta: Tensor, targets: Tensor) -> Tensor:
        """New parameters `[P]` from those at the start; non-finite ones are a failure."""
        raise NotImplementedError(f"{type(self).__name__} has no solve")


class TrustRegionValueFunction(FullBatchValueFunction):
    """One Gauss-Newton step in a trust region for each batch (GAE 2016, section 5)."""

    Settings = TrustRegionValueSettings
    settings: TrustRegionValueSettings

    def solve(self, model: Model, theta: Tensor, targets: Tensor) -> Tensor:
        """One `trust_region_least_squares`."""
        s = self.settings
        return trust_region_least_squares(
            model,
            theta,
            targets,
            epsilon=s.epsilon,
            cg_iterations=s.cg_iterations,
            damping=s.damping,
            rescale=s.rescale,
        )


class LBFGSValueFunction(FullBatchValueFunction):
    """L-BFGS for each batch, from the last batch's parameters, as in the TRPO authors' modular_rl."""

    Settings = LBFGSValueSettings
    settings: LBFGSValueSettings

    def solve(self, model: Model, theta: Tensor, targets: Tensor) -> Tensor:
        """One `lbfgs_least_squares`."""
        return lbfgs_least_squares(model, theta, targets, iterations=self.settings.iterations, l2=self.settings.l2)
