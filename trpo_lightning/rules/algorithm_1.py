"""Algorithm 1 of TRPO, exactly, for policies that are tables of logits."""

import time
from typing import Any

import torch

from trpo_lightning.numerics.algorithm_1 import algorithm_1_step
from trpo_lightning.numerics.tabular import lower_bound, max_kl, state_kl, surrogate
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.table import policy_table, with_logits_changed
from trpo_lightning.rollouts.rollout import TabularBatch
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.surrogate import build_surrogate, mean_entropy
from trpo_lightning.settings import Algorithm1Settings


class Algorithm1(UpdateRule):
    """The policy that maximises L_old(pi) - C max_s KL(old || pi) (TRPO 2015, algorithm 1), written into the logits.

    Where rounding to the parameters' precision leaves less than half of the rise that theorem 1 guarantees, and where
    the policy is optimal, the update is rejected: the exact return never falls.
    """

    Settings = Algorithm1Settings
    settings: Algorithm1Settings

    @torch.no_grad()
    def update(self, policy: Policy, batch: TabularBatch, generator: torch.Generator) -> RuleResult:
        """The exact maximiser. Raises `ValueError` for a policy that is no table."""
        del generator
        began = time.perf_counter()
        mdp, old, theta = batch.mdp, batch.values, parameter_vector(policy)
        metrics: dict[str, Any] = {"policy/entropy": mean_entropy(build_surrogate(policy, batch))}
        step = algorithm_1_step(mdp, old)
        metrics["trust_region/delta"] = step.radius
        seconds = {"line_search": time.perf_counter() - began}
        if step.radius == 0.0:
            return RuleResult(theta, "no policy has a higher bound: the policy is optimal", metrics, seconds)
        candidate = with_logits_changed(policy, step.log_ratio)
        new = policy_table(policy, batch.observations, candidate)
        if not float(lower_bound(mdp, old, new) - old.eta) > step.guaranteed / 2.0:
            return RuleResult(theta, "the step is below the resolution of the parameters", metrics, seconds)
        weights = old.visitation / old.visitation.sum()
        metrics |= {
            "trust_region/kl": float(weights @ state_kl(old.policy, new)),
            "trust_region/kl_max": float(max_kl(mdp, old.policy, new)),
            "trust_region/surrogate_improvement": float(surrogate(old, new) - old.eta),
        }
        return RuleResult(candidate, None, metrics, seconds)
