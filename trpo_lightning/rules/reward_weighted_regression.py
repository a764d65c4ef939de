"""Reward-weighted regression (Peters & Schaal 2007): new policies by weighted maximum likelihood of the actions."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from trpo_lightning.numerics.least_squares import solved
from trpo_lightning.policies.images import rows_at_once
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.observations import are_finite
from trpo_lightning.policies.policy import GaussianPolicy, Policy
from trpo_lightning.policies.sequences import row_parts, rows_of
from trpo_lightning.rollouts.rollout import AnyBatch, Batch
from trpo_lightning.rules.rejections import Rejection
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.surrogate import CHUNK, ENTROPY_METRIC, build_surrogate, mean_entropy
from trpo_lightning.settings import RewardWeightedRegressionSettings

BISECTIONS = 100
"""Halvings of the interval of log temperatures, enough to get far below rounding."""


class RewardWeightedRegression(UpdateRule):
    """Maximise sum_n w_n log pi(a_n|s_n) with w_n = exp((Q_n - max Q) / tau) (Peters & Schaal 2007, section 2.2).

    Q is what the batch holds as advantages: the return to go with `value.name=none`, `gae_lambda=1`; shifting and
    scaling it, as standardization does, changes nothing. tau makes the effective sample size (sum w)^2 / sum w^2 equal
    to `effective_sample_fraction` of the batch (a choice of ours: the paper adapts tau differently). A Gaussian policy
    with a linear mean is fitted in closed form; others take `regression_iterations` of L-BFGS. A Gaussian's log std is
    the best one for the new mean, but at least `least_log_std`: regression on a policy's own actions only narrows it.
    """

    Settings = RewardWeightedRegressionSettings
    settings: RewardWeightedRegressionSettings
    metrics: ClassVar[dict[str, str]] = {
        "regression/temperature": "reward_weighted_regression: tau of the weights exp((Q - max Q) / tau)",
        "regression/log_likelihood": "reward_weighted_regression: rise of the weighted mean log-likelihood in the fit",
        **ENTROPY_METRIC,
    }

    def update(self, policy: Policy, batch: AnyBatch, generator: torch.Generator) -> RuleResult:
        """Fit once. Rejects non-finite numbers in the batch or the fit, and returns that are all equal."""
        del generator
        assert isinstance(batch, Batch)
        old, q = parameter_vector(policy), batch.advantages.double()
        metrics = {"policy/entropy": mean_entropy(build_surrogate(policy, batch))}
        if not torch.isfinite(q).all():
            return RuleResult(old, Rejection.RETURN_NOT_FINITE, metrics)
        if not (are_finite(rows_of(batch.observations)) and torch.isfinite(batch.actions).all()):
            return RuleResult(old, Rejection.TRANSITION_NOT_FINITE, metrics)
        if q.max() == q.min():
            return RuleResult(old, Rejection.RETURNS_EQUAL, metrics, nothing_to_gain=True)
        weights, temperature = reward_weights(q, self.settings.effective_sample_fraction)
        likelihood = _log_likelihood(policy, batch, weights)
        theta = self._fit(policy, batch, weights, likelihood)
        with torch.no_grad():
            rise = float(likelihood(theta) - likelihood(old))
        metrics |= {"regression/temperature": temperature, "regression/log_likelihood": rise}
        if not (torch.isfinite(theta).all() and math.isfinite(rise)):
            return RuleResult(old, Rejection.FIT_NOT_FINITE, metrics)
        return RuleResult(theta, None, metrics)

    def _fit(self, policy: Policy, batch: Batch, weights: Tensor, likelihood: Callable[[Tensor], Tensor]) -> Tensor:
        """New parameters `[P]`."""
        if not isinstance(policy, GaussianPolicy):
            return _maximised(likelihood, parameter_vector(policy), self.settings.regression_iterations)
        if (layer := _only_layer(policy.network)) is not None:
            weight, bias = weighted_least_squares(layer, batch, weights)
            theta = _theta(policy, {layer.weight: weight, layer.bias: bias})
        else:
            theta = _maximised(likelihood, parameter_vector(policy), self.settings.regression_iterations)
        with torch.no_grad():
            parts = row_parts(batch.observations, rows_at_once(policy.network, CHUNK))
            mean = torch.cat([policy.at(theta, batch.observations[part]).mean for part in parts])
            variance = weights @ (batch.actions - mean).double().square()  # the weights sum to 1
        log_std = (0.5 * variance.log()).clamp(min=self.settings.least_log_std)
        return _theta(policy, {policy.log_std: log_std}, theta)


def reward_weights(q: Tensor, fraction: float) -> tuple[Tensor, float]:
    """Weights `[B]` proportional to exp((q - max q) / tau), summing to 1, and tau.

    Bisection finds tau such that (sum w)^2 / sum w^2 = fraction * B. If more than that many share the largest q, there
    is no such tau: it is then so small that the weights are equal among them and 0 elsewhere.
    """
    gaps = (q - q.max()).double()
    low, high = math.log(float(-gaps.min())) - 50.0, math.log(float(-gaps.min())) + 50.0

    def weights(log_temperature: float) -> Tensor:
        return torch.softmax(gaps / math.exp(log_temperature), dim=0)

    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        too_few = 1.0 / float(weights(middle).square().sum()) < fraction * len(q)
        low, high = (middle, high) if too_few else (low, middle)
    return weights(high), math.exp(high)


def weighted_least_squares(layer: nn.Linear, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's weight and bias that minimise sum_n w_n |a_n - W s_n - b|^2, solved in float64 on the CPU.

    Directions that the observations do not determine keep their values: of all solutions, the nearest is taken.
    """
    seen = rows_of(batch.observations)
    assert isinstance(seen, Tensor)  # a linear layer sees no images
    observations, actions = seen.cpu().double(), batch.actions.cpu().double()
    old = torch.cat([layer.weight.detach(), layer.bias.detach()[:, None]], dim=1).cpu().double()  # [A, O + 1]
    inputs = torch.cat([observations, torch.ones_like(observations[:, :1])], dim=1)
    roots = weights.cpu().sqrt()[:, None]
    change = torch.linalg.lstsq(roots * inputs, roots * (actions - inputs @ old.T), driver="gelsd").solution
    new = old + change.T
    return new[:, :-1], new[:, -1]


def _log_likelihood(policy: Policy, batch: Batch, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """The function theta -> sum_n w_n log pi_theta(a_n|s_n), a float64 scalar, differentiable."""

    def value(theta: Tensor) -> Tensor:
        total = weights.new_zeros(())
        for part in row_parts(batch.observations, rows_at_once(policy.network, CHUNK)):
            log_prob = policy.at(theta, batch.observations[part]).log_prob(batch.actions[part])
            total = total + weights[part] @ log_prob.double()
        return total

    return value


def _maximised(objective: Callable[[Tensor], Tensor], theta: Tensor, iterations: int) -> Tensor:
    """L-BFGS with a strong-Wolfe line search, without history and random numbers; not finite if it diverged."""
    solution = theta.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [solution], max_iter=iterations, max_eval=26 * iterations, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        loss = -objective(solution)
        (solution.grad,) = torch.autograd.grad(loss, solution)
        return loss

    return solved(optimizer, closure, solution)  # with few rows the likelihood is unbounded, and this may diverge


def _only_layer(network: nn.Module) -> nn.Linear | None:
    """The network's layer, if it has only one, with a bias."""
    modules = list(network) if isinstance(network, nn.Sequential) else [network]
    layer = modules[0] if len(modules) == 1 else None
    return layer if isinstance(layer, nn.Linear) and layer.bias is not None else None


def _theta(policy: Policy, new: dict[Tensor, Tensor], theta: Tensor | None = None) -> Tensor:
    """`theta` (by default the policy's) with new values for some parameters."""
    theta = parameter_vector(policy) if theta is None else theta
    parts = theta.split([p.numel() for p in policy.parameters()])
    pairs = zip(policy.parameters(), parts, strict=True)
    return torch.cat([new[p].reshape(-1).to(part) if p in new else part for p, part in pairs])
