"""The noisy cross-entropy method (Szita & Lorincz 2006, "Learning Tetris using the noisy cross-entropy method")."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trpo_lightning.rules.population import PopulationRule
from trpo_lightning.settings import CrossEntropySettings


@dataclass(frozen=True)
class CrossEntropySearch:
    """Independent normal distributions over n parameters: `mean`, `variance` `[n]`, `generation` from 0."""

    mean: Tensor
    variance: Tensor
    generation: int

    @classmethod
    def around(cls, mean: Tensor, settings: CrossEntropySettings) -> Self:
        """Start with `initial_std` for every parameter."""
        return cls(mean, torch.full_like(mean, settings.initial_std**2), 0)

    @property
    def population(self) -> int:
        """100 (Szita & Lorincz 2006)."""
        return 100

    def sample(self, noise: Tensor) -> Tensor:
        """Mean + std * noise, `[K, n]`."""
        return self.mean + self.variance.sqrt() * noise

    def adapted(self, candidates: Tensor, settings: CrossEntropySettings) -> Self:
        """Mean and variance (population) of the elites, plus the extra variance Z_t of generation t.

        Z_t = extra_std^2 max(0, 1 - t / extra_std_generations), t = 0 for the first update: the paper's
        max(0, a - t/b) with a = extra_std^2 and b = extra_std_generations / a. At least two candidates are elites.
        """
        elites = candidates[: max(2, round(settings.elite_fraction * len(candidates)))]
        extra = settings.extra_std**2 * max(0.0, 1.0 - self.generation / settings.extra_std_generations)
        return type(self)(elites.mean(0), elites.var(0, correction=0) + extra, self.generation + 1)

    def std(self) -> float:
        """Root mean square of the parameters' standard deviations."""
        return float(self.variance.mean().sqrt())


class CrossEntropyMethod(PopulationRule):
    """CEM over theta: sample K candidates, keep the best, fit mean and variance to those (Szita & Lorincz 2006)."""

    Settings = CrossEntropySettings

    distribution = CrossEntropySearch
