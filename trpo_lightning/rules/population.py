"""What population methods share: a search distribution over parameters, and the way from it to a rule."""

import dataclasses
import time
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import AnyBatch, PopulationBatch
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.settings import PopulationRuleSettings


class SearchDistribution(Protocol):
    """A distribution over n parameters; immutable, in float64 on the CPU, its fields tensors and plain values."""

    mean: Tensor

    @classmethod
    def around(cls, mean: Tensor, settings: PopulationRuleSettings) -> Self:
        """The first distribution: isotropic around `mean` `[n]`."""
        ...

    @property
    def population(self) -> int:
        """The usual number of candidates, where `rule.population` does not give one."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """Candidates `[K, n]` from standard normal `noise` `[K, n]`."""
        ...

    def adapted(self, candidates: Tensor, settings: PopulationRuleSettings) -> Self:
        """The next distribution, from candidates `[K, n]` sorted from best to worst."""
        ...

    def std(self) -> float:
        """Root mean square of the parameters' standard deviations."""
        ...


class PopulationRule(UpdateRule):
    """Searches the parameters that the policy's mode depends on; theta becomes the search distribution's mean.

    A candidate acts by its distribution's mode, so that a Gaussian's log std has no effect on a return: to search it
    would only let it drift. It stays as it is. A candidate with a return or observation that is not finite rejects the
    update.
    """

    Settings = PopulationRuleSettings
    settings: PopulationRuleSettings

    distribution: type[Any]

    def __init__(self, settings: PopulationRuleSettings) -> None:
        super().__init__(settings)
        self._search: Any = None

    def propose(self, policy: Policy, generator: torch.Generator) -> Tensor:
        """K parameter vectors `[K, P]`, float64 on the CPU; they are functions of the state and `generator` alone."""
        search, searched = self._current(policy)
        count = self.settings.population or search.population
        noise = torch.randn(count, len(search.mean), dtype=torch.float64, generator=generator)
        candidates = parameter_vector(policy).cpu().double().repeat(count, 1)
        candidates[:, searched] = search.sample(noise)
        return candidates

    def update(self, policy: Policy, batch: AnyBatch, generator: torch.Generator) -> RuleResult:
        """Adapt the search distribution to the candidates' returns."""
        del generator
        assert isinstance(batch, PopulationBatch)
        began = time.perf_counter()
        theta = parameter_vector(policy)
        returns = batch.returns.cpu()
        if not torch.isfinite(returns).all():
            return RuleResult(theta, "a candidate's return or observation is not finite")
        search, searched = self._current(policy)
        best_first = torch.sort(returns, descending=True, stable=True).indices
        try:
            adapted = search.adapted(batch.candidates.cpu().double()[best_first][:, searched], self.settings)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            return RuleResult(theta, "the search distribution's covariance has no decomposition")
        mean = adapted.mean.to(theta)  # may overflow: the search is in float64
        if not all(torch.isfinite(value).all() for value in (mean, *_tensors(adapted))):
            return RuleResult(theta, "the search distribution is not finite")
        self._search = adapted
        theta[searched.to(theta.device)] = mean
        metrics = {"population/best_return": float(returns.max()), "population/std": adapted.std()}
        return RuleResult(theta, None, metrics, {"overhead": time.perf_counter() - began})

    def _current(self, policy: Policy) -> tuple[Any, Tensor]:
        """The search distribution, at first around the policy's parameters, and which of theta `[P]` it is over."""
        acting = {id(p) for p in policy.mode_parameters()}
        searched = torch.cat([torch.full((p.numel(),), id(p) in acting) for p in policy.parameters()])
        if self._search is None:
            mean = parameter_vector(policy).cpu().double()[searched]
            self._search = self.distribution.around(mean, self.settings)
        return self._search, searched

    def state_dict(self) -> dict[str, Any]:
        """The search distribution; nothing before there is one."""
        if self._search is None:
            return {}
        return {field.name: getattr(self._search, field.name) for field in dataclasses.fields(self._search)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the search distribution of a `state_dict`."""
        self._search = self.distribution(**state) if state else None


def _tensors(search: Any) -> list[Tensor]:
    values = [getattr(search, field.name) for field in dataclasses.fields(search)]
    return [torch.as_tensor(value) for value in values if isinstance(value, Tensor | float)]
