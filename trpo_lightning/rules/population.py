"""What population methods share: a search distribution over parameters, and the rule made from it."""

import dataclasses
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import AnyBatch, PopulationBatch
from trpo_lightning.rules.rejections import Rejection
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.settings import PopulationRuleSettings


class SearchDistribution(Protocol):
    """A distribution over n parameters: immutable, in float64 on the CPU, with tensors and plain values as fields."""

    mean: Tensor

    @classmethod
    def around(cls, mean: Tensor, settings: PopulationRuleSettings) -> Self:
        """The first distribution: isotropic around `mean` `[n]`."""
        ...

    @property
    def population(self) -> int:
        """The number of candidates if `rule.population` does not set one."""
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

    A candidate acts by its distribution's mode, so a Gaussian's log std has no effect on returns; it is left as it is,
    because a search would only let it drift. If a candidate's return or observation is not finite, the update is
    rejected.
    """

    Settings = PopulationRuleSettings
    settings: PopulationRuleSettings
    metrics: ClassVar[dict[str, str]] = {
        "population/best_return": "cem, cma_es: the best candidate's return (the mean is `episode/return_mean`)",
        "population/std": "cem, cma_es: root mean square of the parameters' std in the next population",
    }
    distribution: type[Any]

    def __init__(self, settings: PopulationRuleSettings) -> None:
        super().__init__(settings)
        self._search: Any = None

    def propose(self, policy: Policy, generator: torch.Generator) -> Tensor:
        """K parameter vectors `[K, P]`, float64 on the CPU; they depend only on the state and `generator`."""
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
        theta = parameter_vector(policy)
        returns = batch.returns.cpu()
        if not torch.isfinite(returns).all():
            return RuleResult(theta, Rejection.CANDIDATE_RETURN_NOT_FINITE)
        search, searched = self._current(policy)
        best_first = torch.sort(returns, descending=True, stable=True).indices
        try:
            adapted = search.adapted(batch.candidates.cpu().double()[best_first][:, searched], self.settings)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            return RuleResult(theta, Rejection.NO_DECOMPOSITION)
        mean = adapted.mean.to(theta)  # may overflow: the search is in float64
        if not all(torch.isfinite(value).all() for value in (mean, *_tensors(adapted))):
            return RuleResult(theta, Rejection.DISTRIBUTION_NOT_FINITE)
        self._search = adapted
        theta[searched.to(theta.device)] = mean
        metrics = {"population/best_return": float(returns.max()), "population/std": adapted.std()}
        return RuleResult(theta, None, metrics)

    def _current(self, policy: Policy) -> tuple[Any, Tensor]:
        """The search distribution, at first around the policy's parameters, and a mask of those entries of theta."""
        acting = {id(p) for p in policy.mode_parameters()}
        searched = torch.cat([torch.full((p.numel(),), id(p) in acting) for p in policy.parameters()])
        if self._search is None:
            mean = parameter_vector(policy).cpu().double()[searched]
            self._search = self.distribution.around(mean, self.settings)
        return self._search, searched

    def state_dict(self) -> dict[str, Any]:
        """The search distribution; empty before there is one."""
        if self._search is None:
            return {}
        return {field.name: getattr(self._search, field.name) for field in dataclasses.fields(self._search)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the search distribution from a `state_dict`."""
        self._search = self.distribution(**state) if state else None


def _tensors(search: Any) -> list[Tensor]:
    values = [getattr(search, field.name) for field in dataclasses.fields(search)]
    return [torch.as_tensor(value) for value in values if isinstance(value, Tensor | float)]
