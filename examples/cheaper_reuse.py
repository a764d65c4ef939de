"""Custom parts that use data more than once without GeTRPO's machinery; `experiments/cheaper_reuse.yaml` compares them.

In this folder:

$ python -m trpo_lightning experiment cheaper_reuse

Each takes one thing from batches that TRPO would throw away: several steps from one batch, states of earlier ones for
the Fisher matrix or for the value function, the last direction as a beginning for conjugate gradients.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.conjugate_gradient import conjugate_gradient
from trpo_lightning.numerics.trust_region import TrustRegionProblem, TrustRegionStep
from trpo_lightning.policies.networks import assign_parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.constraint import Curvature
from trpo_lightning.rules.rule import RuleResult
from trpo_lightning.rules.surrogate import ImportanceSampled
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.settings import AdamValueSettings, TrustRegionSettings, option
from trpo_lightning.values.network import NetworkValueFunction


@dataclass
class OneProcessSettings(TrustRegionSettings):
    """Keys of `trust_region`, for rules that do not share their batches with other processes."""

    schemes: ClassVar[tuple[str, ...]] = ("single_path",)
    over_ranks: ClassVar[bool] = False


@dataclass
class SeveralStepsSettings(OneProcessSettings):
    """Keys of `SeveralSteps`, besides those of `trust_region`."""

    steps: int = option(2, "steps from each batch; all lengths of one are divided by their number", minimum=1)
    refresh_curvature: bool = option(True, "each step has the Fisher matrix of where it begins; false: the first one's")


class SeveralSteps(TrustRegionRule):
    """Constrained steps one after the other, each by the surrogate's gradient where it begins.

    Ratios are always those to the policy that collected. The square root of a small KL is a length: K steps of radius
    delta / K^2 go no further than one of radius delta.
    """

    Settings = SeveralStepsSettings
    settings: SeveralStepsSettings
    metrics: ClassVar[dict[str, str]] = {
        **TrustRegionRule.metrics,
        "several_steps/kl": "mean KL of the policies before the first and after the last step, summed over dimensions",
        "several_steps/taken": "steps that were not rejected",
    }

    _product: Callable[[Tensor], Tensor] | None = None

    def update(self, policy: Policy, batch: Batch, generator: torch.Generator) -> RuleResult:
        """The last accepted step's result; a rejection if the first step was rejected."""
        if batch.log_probs is not None:
            raise UserError(f"rule.name={self.settings.name} learns from one batch: use rule.reuse=none")
        with torch.no_grad():
            old = policy(batch.observations)
            collected = replace(batch, log_probs=old.log_prob(batch.actions))
        moving, result, taken = copy.deepcopy(policy), None, 0
        self._product = None
        for _ in range(self.settings.steps):
            step = super().update(moving, collected if taken else batch, generator)
            if step.rejection_reason:
                result = result or step
                break
            assign_parameter_vector(moving, moving.projected(step.theta))
            result, taken = step, taken + 1
        with torch.no_grad():
            kl = float(old.kl(moving(batch.observations)).mean())
        assert result is not None
        return replace(result, metrics={**result.metrics, "several_steps/kl": kl, "several_steps/taken": taken})

    def problem(self, *arguments: Any) -> TrustRegionProblem:
        """As `TrustRegionRule.problem`, after the first step perhaps with its Fisher matrix."""
        problem = super().problem(*arguments)
        if self._product is None:
            self._product = problem.curvature_product
        return problem if self.settings.refresh_curvature else replace(problem, curvature_product=self._product)

    def solve(self, problem: TrustRegionProblem, batch: Batch) -> TrustRegionStep:  # type: ignore[override]
        """As `TrustRegionRule.solve`, with shorter steps."""
        return super().solve(problem, replace(batch, advantage_std=batch.advantage_std / self.settings.steps))

    def delta(self) -> float:
        """The radius of each step."""
        return super().delta() / self.settings.steps**2


@dataclass
class FisherOverBatchesSettings(OneProcessSettings):
    """Keys of `FisherOverBatches`, besides those of `trust_region`."""

    fisher_batches: int = option(
        4, "batches whose states the Fisher matrix is a mean over, the newest included", minimum=1
    )


class FisherOverBatches(TrustRegionRule):
    """The direction's Fisher matrix at the current policy, over the states of the last batches; all else as in TRPO.

    States are kept normalized as they were when they were new.
    """

    Settings = FisherOverBatchesSettings
    settings: FisherOverBatchesSettings

    def __init__(self, settings: FisherOverBatchesSettings) -> None:
        super().__init__(settings)
        if settings.curvature != "fisher":
            raise UserError(f"rule.curvature={settings.curvature} needs actions: earlier batches keep states alone")
        self._past: list[Tensor] = []

    def update(self, policy: Policy, batch: Batch, generator: torch.Generator) -> RuleResult:
        """As `TrustRegionRule.update`; then keep the states, unless the update left no trace."""
        result = super().update(policy, batch, generator)
        assert isinstance(batch.observations, Tensor)
        if result.rejection_reason is None:
            self._past = [batch.observations, *self._past][: self.settings.fisher_batches - 1]
        return result

    def problem(self, policy: Any, batch: Any, surrogate: Any, gradient: Any, candidates: Any, generator: Any) -> Any:
        """As `TrustRegionRule.problem`, with more states in Fisher-vector products."""
        problem = super().problem(policy, batch, surrogate, gradient, candidates, generator)
        states = torch.cat([batch.observations, *self._past])
        unused = states.new_zeros(len(states))
        many = ImportanceSampled(Batch(states, unused, unused))
        many.old = surrogate.old[:1]
        return replace(problem, curvature_product=Curvature(policy, many.batch, many, self.settings, generator).product)

    def state_dict(self) -> dict[str, Any]:
        """The states of earlier batches."""
        return {"past": self._past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self._past = state["past"]


@dataclass
class WarmStartSettings(OneProcessSettings):
    """Keys of `WarmStart`, besides those of `trust_region`."""

    products: int = option(5, "Fisher-vector products that both beginnings get", minimum=2)


class WarmStart(TrustRegionRule):
    """TRPO, which measures on the way what conjugate gradients would gain by beginning at the last direction."""

    Settings = WarmStartSettings
    settings: WarmStartSettings
    metrics: ClassVar[dict[str, str]] = {
        **TrustRegionRule.metrics,
        "warm_start/cold": "relative residual |g - (A + damping I) x| / |g| after `rule.products` products from x = 0",
        "warm_start/warm": "the same from the best multiple of the last direction, whose product is one of them",
    }

    def __init__(self, settings: WarmStartSettings) -> None:
        super().__init__(settings)
        self._last: Tensor | None = None
        self._new: Tensor | None = None
        self._found: dict[str, float] = {}

    def update(self, policy: Policy, batch: Any, generator: torch.Generator) -> RuleResult:
        """As `TrustRegionRule.update`."""
        self._found, self._new = {}, None
        result = super().update(policy, batch, generator)
        if result.rejection_reason is None:
            self._last = self._new
        return replace(result, metrics={**result.metrics, **self._found})

    def solve(self, problem: TrustRegionProblem, batch: Any) -> TrustRegionStep:
        """As `TrustRegionRule.solve`, after the comparison."""
        step = super().solve(problem, batch)
        if step.solution is not None:
            if self._last is not None:
                self._compare(problem, self._last)
            self._new = step.solution.x
        return step

    def _compare(self, problem: TrustRegionProblem, last: Tensor) -> None:
        g, damping, products = problem.gradient(), self.settings.damping, self.settings.products
        known = problem.curvature_product(last) + damping * last
        scale = last @ g / (last @ known)  # the multiple that minimizes the quadratic which CG minimizes
        rest = g - scale * known
        rests = {"cold": (g, products), "warm": (rest, products - 1)}
        for name, (b, iterations) in rests.items():
            found = conjugate_gradient(problem.curvature_product, b, iterations=iterations, damping=damping)
            self._found[f"warm_start/{name}"] = found.residual * float(b.norm() / g.norm())

    def state_dict(self) -> dict[str, Any]:
        """The last direction."""
        return {} if self._last is None else {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self._last = state.get("last")


@dataclass
class ValuesOverBatchesSettings(AdamValueSettings):
    """Keys of `ValuesOverBatches`, besides those of `adam`."""

    over_ranks: ClassVar[bool] = False

    batches: int = option(4, "batches that each fit sees, the newest included", minimum=1)


class ValuesOverBatches(NetworkValueFunction):
    """V fitted to the transitions of the last batches, whose targets stay what they were."""

    Settings = ValuesOverBatchesSettings
    settings: ValuesOverBatchesSettings

    def __init__(self, observation_shape: Any, settings: ValuesOverBatchesSettings, generator: torch.Generator) -> None:
        super().__init__(observation_shape, settings, generator)
        self._past: list[Tensor] = []

    def fit(self, observations: Any, targets: Tensor, generator: torch.Generator, share: Any = None) -> float:
        """As `NetworkValueFunction.fit`, on all of them."""
        newest = [observations, targets]
        rows, values = (torch.cat(columns) for columns in zip(newest, *self._pairs(), strict=True))
        loss = super().fit(rows, values, generator, share)
        if loss == loss:  # else there was nothing to fit to, or numbers were not finite
            self._past = [*newest, *self._past][: 2 * (self.settings.batches - 1)]
        return loss

    def _pairs(self) -> list[list[Tensor]]:
        return [self._past[i : i + 2] for i in range(0, len(self._past), 2)]

    def optimizer_state(self) -> dict[str, Any]:
        """Adam's state, and the earlier batches."""
        return {"adam": super().optimizer_state(), "past": self._past}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from an `optimizer_state`."""
        super().load_optimizer_state(state["adam"])
        self._past = state["past"]
