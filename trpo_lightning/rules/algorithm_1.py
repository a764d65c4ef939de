"""Algorithm 1 of TRPO, solved exactly, for policies that are tables of logits."""

import time
from typing import Any, ClassVar

import torch

from trpo_lightning.numerics.algorithm_1 import algorithm_1_step
from trpo_lightning.numerics.tabular import lower_bound, max_kl, state_kl, surrogate
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.table import policy_table, with_logits_changed
from trpo_lightning.rollouts.rollout import TabularBatch
from trpo_lightning.rules.rejections import Rejection
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.surrogate import ENTROPY_METRIC, build_surrogate, mean_entropy
from trpo_lightning.settings import Algorithm1Settings


class Algorithm1(UpdateRule):
    """The policy that maximises L_old(pi) - C max_s KL(old || pi) (TRPO 2015, algorithm 1), written into the logits.

    The update is rejected if the policy is optimal, or if rounding to the parameters' precision leaves less than half
    of the rise that theorem 1 guarantees: so the exact return never falls.
    """

    Settings = Algorithm1Settings
    settings: Algorithm1Settings
    metrics: ClassVar[dict[str, str]] = {
        "trust_region/delta": "the radius in this iteration",
        "trust_region/kl": "mean KL of old and new policy, over states as the old policy visits them",
        "trust_region/kl_max": "the largest KL in any state",
        "trust_region/surrogate_improvement": "rise of the surrogate",
        **ENTROPY_METRIC,
        "time/line_search": "seconds of the search for the best radius",
    }

    @torch.no_grad()
    def update(self, policy: Policy, batch: TabularBatch, generator: torch.Generator) -> RuleResult:
        """Return the exact maximiser. Raises `ValueError` if the policy is not a table."""
        del generator
        began = time.perf_counter()
        mdp, old, theta = batch.mdp, batch.values, parameter_vector(policy)
        metrics: dict[str, Any] = {"policy/entropy": mean_entropy(build_surrogate(policy, batch))}
        step = algorithm_1_step(mdp, old)
        metrics["trust_region/delta"] = step.radius
        seconds = {"line_search": time.perf_counter() - began}
        if step.radius == 0.0:
            return RuleResult(theta, Rejection.OPTIMAL, metrics, seconds, nothing_to_gain=True)
        candidate = with_logits_changed(policy, step.log_ratio)
        new = policy_table(policy, batch.observations, candidate)
        if not float(lower_bound(mdp, old, new) - old.eta) > step.guaranteed / 2.0:
            return RuleResult(theta, Rejection.BELOW_RESOLUTION, metrics, seconds, nothing_to_gain=True)
        weights = old.visitation / old.visitation.sum()
        metrics |= {
            "trust_region/kl": float(weights @ state_kl(old.policy, new)),
            "trust_region/kl_max": float(max_kl(mdp, old.policy, new)),
            "trust_region/surrogate_improvement": float(surrogate(old, new) - old.eta),
        }
        return RuleResult(candidate, None, metrics, seconds)
