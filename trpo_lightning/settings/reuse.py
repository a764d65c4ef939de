"""Keys of learning from several batches at once, for rules with a trust region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from trpo_lightning.settings.option import SAMPLED_PATH, option

REUSED = {"rule.reuse": ("uniform", "optimal")}
"""A condition for `when`: batches of earlier policies are used, too."""


@dataclass
class ReuseSettings:
    """Generalized policy improvement: the surrogate of the last batches together (Queeney et al. 2022)."""

    reuse: str = option(
        "none",
        "weights of the last batches in surrogate, KL and value fit: none is the newest alone; uniform; or optimal, "
        "which fall linearly with a batch's age and make the most of rule.reuse_tradeoff for a given rule.reuse_size. "
        "All lengths of a step are divided by the mean age of the samples (1 for the newest batch), so that in each "
        "update the policy has moved as far from those that collected them as without reuse: the radius in use is "
        "rule.delta over its square",
        source="Queeney 2021 and 2022 (GeTRPO)",
        choices=("none", "uniform", "optimal"),
        when=SAMPLED_PATH,
    )
    reuse_batches: int = option(
        4,
        "most batches used, the newest included (M); the first iterations use what there is. Batches of weight 0 are "
        "not kept. Held in memory and in checkpoints: M - 1 times a rollout's raw observations, actions and rewards",
        source="Queeney 2021: where the optimal weights of rule.reuse_size=2 end",
        minimum=1,
        maximum=1000,
        when=REUSED,
    )
    reuse_size: float = option(
        2.0,
        "the batch that would be learned from without reuse, in multiples of rollout.steps_per_iteration (B): optimal "
        "weights have its effective sample size, and B of their updates move the policy as far as one without reuse, "
        "or better",
        source="Queeney 2022",
        minimum=1.0,
        when={"rule.reuse": ("optimal",)},
    )
    reuse_tradeoff: float = option(
        1.0,
        "what optimal weights make the most of: 1 is the effective sample size, 0 the change of the policy per step",
        source="Queeney 2022",
        minimum=0.0,
        maximum=1.0,
        when={"rule.reuse": ("optimal",)},
    )
    reuse_truncation: float | None = option(
        1.0,
        "advantages and value targets of older batches follow the current policy: later residuals count with the "
        "product of ratios, each cut off here (V-trace); null: as if the current policy had collected them",
        source="Queeney 2021; Espeholt 2018",
        above=0.0,
        when=REUSED,
    )


def reuses(rule: object) -> TypeGuard[ReuseSettings]:
    """Whether a rule with these settings learns from the batches of several policies."""
    return isinstance(rule, ReuseSettings) and rule.reuse != "none"
