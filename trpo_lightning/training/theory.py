"""What the theory says about an update when the environment's model is known."""

from typing import Any

import torch

from trpo_lightning.numerics.tabular import evaluate_policy, lower_bound, max_kl
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.table import policy_table
from trpo_lightning.rollouts.rollout import TabularBatch


@torch.no_grad()
def theory_metrics(policy: Policy, batch: Any) -> dict[str, float]:
    """Exact return, improvement, bound and max KL after an update with this batch; empty for sampled batches."""
    if not isinstance(batch, TabularBatch):
        return {}
    mdp, old = batch.mdp, batch.values
    new = policy_table(policy, batch.observations)
    eta = evaluate_policy(mdp, new).eta
    return {
        "theory/return": float(eta),
        "theory/improvement": float(eta - old.eta),
        "theory/bound": float(lower_bound(mdp, old, new)),
        "theory/max_kl": float(max_kl(mdp, old.policy, new)),
    }
