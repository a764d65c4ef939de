"""CMA-ES, the evolution strategy with covariance matrix adaptation (Hansen & Ostermeier 1996).

Equations and default constants are those of Hansen 2016, "The CMA evolution strategy: a tutorial", arXiv 1604.00772,
with negative weights; the diagonal variant is sep-CMA-ES (Ros & Hansen 2008).
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trpo_lightning.rules.population import PopulationRule
from trpo_lightning.settings import CMAESSettings

FULL_UP_TO = 1000
"""The most parameters for which `rule.covariance=auto` adapts a full matrix: decomposing a larger one takes seconds."""
LEAST_EIGENVALUE = 1e-14
"""Smaller eigenvalues are raised to this share of the largest, because rounding could make one negative."""


@dataclass(frozen=True)
class Constants:
    """Weights `[K]`, their effective number, and the learning rates (Hansen 2016, eq. 49 to 58)."""

    weights: Tensor
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float


def constants(n: int, population: int, diagonal: bool) -> Constants:
    """Hansen's defaults for n parameters; the diagonal's c_1 and c_mu are (n + 2) / 3 times larger (Ros & Hansen)."""
    raw = math.log((population + 1) / 2) - torch.arange(1, population + 1, dtype=torch.float64).log()  # eq. 49
    positive, negative = raw.clamp(min=0.0), raw.clamp(max=0.0)
    mu_eff = float(positive.sum() ** 2 / positive.square().sum())  # table 1
    mu_eff_minus = float(negative.sum() ** 2 / negative.square().sum())
    faster = (n + 2) / 3 if diagonal else 1.0
    c_1 = min(1.0, faster * min(2.0, population / 3) / ((n + 1.3) ** 2 + mu_eff))  # eq. 57
    rank_mu = 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff)
    c_mu = min(1.0 - c_1, faster * rank_mu)  # eq. 58
    limits = [1 + 2 * mu_eff_minus / (mu_eff + 2)]  # eq. 51
    if c_mu > 0.0:
        limits += [1 + c_1 / c_mu, (1 - c_1 - c_mu) / (n * c_mu)]  # eq. 50 and 52: the matrix stays positive definite
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)  # eq. 55
    return Constants(
        weights=positive / positive.sum() + min(limits) * negative / -negative.sum(),  # eq. 53
        mu_eff=mu_eff,
        c_sigma=c_sigma,
        d_sigma=1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma,
        c_c=(4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),  # eq. 56
        c_1=c_1,
        c_mu=c_mu,
    )


@dataclass(frozen=True)
class CovarianceSearch:
    """N(mean, sigma^2 C) over n parameters, with the evolution paths of C and of sigma.

    `covariance` is C, `[n, n]`, or its diagonal `[n]`; `basis` `[n, n]` (empty for a diagonal) and `scales` `[n]` are
    the eigenvectors of C and the square roots of its eigenvalues, as of generation `decomposed`.
    """

    mean: Tensor
    sigma: float
    covariance: Tensor
    basis: Tensor
    scales: Tensor
    path: Tensor
    sigma_path: Tensor
    generation: int
    decomposed: int

    @classmethod
    def around(cls, mean: Tensor, settings: CMAESSettings) -> Self:
        """Start with C = I and sigma = `initial_std`."""
        n = len(mean)
        full = settings.covariance == "full" or (settings.covariance == "auto" and n <= FULL_UP_TO)
        identity = torch.eye(n, dtype=mean.dtype)
        ones, zeros = torch.ones_like(mean), torch.zeros_like(mean)
        covariance, basis = (identity, identity) if full else (ones, zeros[:0])
        return cls(mean, settings.initial_std, covariance, basis, ones, zeros, zeros, 0, 0)

    @property
    def diagonal(self) -> bool:
        """Whether C is a diagonal matrix."""
        return self.covariance.ndim == 1

    @property
    def population(self) -> int:
        """4 + floor(3 ln n) (eq. 48)."""
        return 4 + math.floor(3 * math.log(len(self.mean)))

    def sample(self, noise: Tensor) -> Tensor:
        """Mean + sigma C^(1/2) noise, `[K, n]`; the symmetric root does not depend on the eigenvectors' signs."""
        return self.mean + self.sigma * self._scaled(noise, self.scales)

    def _scaled(self, rows: Tensor, scales: Tensor) -> Tensor:
        """Rows `[K, n]` times B diag(scales) B': C^(1/2) for the scales themselves, C^(-1/2) for their inverses."""
        if self.diagonal:
            return rows * scales
        return (rows @ self.basis * scales) @ self.basis.T

    def adapted(self, candidates: Tensor, settings: CMAESSettings) -> Self:
        """One generation (eq. 38 to 47): new mean, paths, step size (at most e times the old) and matrix."""
        n, c = len(self.mean), constants(len(self.mean), len(candidates), self.diagonal)
        y = (candidates - self.mean) / self.sigma
        step = c.weights.clamp(min=0.0) @ y  # eq. 41
        expected_norm = math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))  # of N(0, I)
        whitened = self._scaled(torch.cat([step[None], y]), 1 / self.scales)  # C^(-1/2) times step and each y
        sigma_path = (1 - c.c_sigma) * self.sigma_path + math.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * whitened[0]
        norm = float(sigma_path.norm())
        settled = math.sqrt(1 - (1 - c.c_sigma) ** (2 * (self.generation + 1)))
        moves = norm / settled < (1.4 + 2 / (n + 1)) * expected_norm  # h_sigma: else the path stalls
        path = (1 - c.c_c) * self.path + moves * math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * step  # eq. 45
        lengths = whitened[1:].square().sum(1).clamp(min=1e-300)
        weights = torch.where(c.weights < 0.0, c.weights * n / lengths, c.weights)  # eq. 46
        kept = 1 - c.c_1 - c.c_mu * float(c.weights.sum()) + (not moves) * c.c_1 * c.c_c * (2 - c.c_c)
        covariance = kept * self.covariance + c.c_1 * _outer(path[None], self.diagonal)  # eq. 47
        covariance = covariance + c.c_mu * _outer(y, self.diagonal, weights)
        basis, scales, decomposed = self._decomposition(covariance, c)
        return type(self)(
            mean=self.mean + self.sigma * step,  # eq. 42
            sigma=self.sigma * math.exp(min(1.0, c.c_sigma / c.d_sigma * (norm / expected_norm - 1))),  # eq. 44
            covariance=covariance,
            basis=basis,
            scales=scales,
            path=path,
            sigma_path=sigma_path,
            generation=self.generation + 1,
            decomposed=decomposed,
        )

    def _decomposition(self, covariance: Tensor, c: Constants) -> tuple[Tensor, Tensor, int]:
        """`basis`, `scales` and `decomposed` for C, renewed at most every 1 / (10 n (c_1 + c_mu)) generations (B.2)."""
        generation = self.generation + 1
        if not torch.isfinite(covariance).all():
            return self.basis, covariance.new_full(self.scales.shape, math.nan), generation
        if self.diagonal:
            return self.basis, covariance.sqrt(), generation
        if generation - self.decomposed <= 1 / (10 * len(self.mean) * (c.c_1 + c.c_mu)):
            return self.basis, self.scales, self.decomposed
        values, basis = torch.linalg.eigh(covariance)
        return basis, values.clamp(min=LEAST_EIGENVALUE * float(values[-1])).sqrt(), generation

    def std(self) -> float:
        """Root mean square of the parameters' standard deviations."""
        variances = self.covariance if self.diagonal else self.covariance.diagonal()
        return self.sigma * float(variances.mean().sqrt())


def _outer(rows: Tensor, diagonal: bool, weights: Tensor | None = None) -> Tensor:
    """The sum of rows' weighted outer products `[n, n]`, or its diagonal `[n]`; bitwise symmetric."""
    weighted = rows if weights is None else rows * weights[:, None]
    if diagonal:
        return (weighted * rows).sum(0)
    product = weighted.T @ rows
    return (product + product.T) / 2


class CMAES(PopulationRule):
    """CMA-ES over theta: weighted recombination of the best half, with path-length control of the step size."""

    Settings = CMAESSettings

    distribution = CovarianceSearch
