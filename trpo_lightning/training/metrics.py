"""The metrics of a run: those of the loop, and those that its built-in parts declare.

Anything else that a rule, policy, value function, scheme, callback or `TRPO.log` reports is logged just the same. The
metrics here are the columns of every `metrics.csv`, with the meanings that documentation and reports show.
"""

from collections.abc import Iterable
from typing import Any

from trpo_lightning.policies.policy import Policy
from trpo_lightning.settings import built_in_classes
from trpo_lightning.training.reuse import diagnostics

COUNTERS = {
    "iteration": "updates done: one rollout and one policy update each; equals Lightning's `global_step`",
    "env_steps": "real steps of the training environments so far; the x axis of figures that do not count iterations",
}
RESTARTS = {"env/restarts": "times that failed or hanging environments were rebuilt so far (`env.restarts`)"}
EVALUATION = {
    "evaluation/return_mean": "mean return of the evaluation episodes, deterministic policy (the distribution's mode)",
    "evaluation/return_mean_stochastic": "the same for the stochastic policy",
}
THEORY = {
    "theory/return": "exact: discounted return eta of the policy after the update",
    "theory/improvement": "exact: its rise over the policy before the update",
    "theory/bound": "exact: L - C max KL, which that return is never below (TRPO 2015, theorem 1)",
    "theory/max_kl": "exact: the largest KL of old and new policy in a state that can be reached",
}
ESTIMATES = {
    "advantages/std": (
        "std of the batch's advantages before they are standardized, in units of the scaled rewards: once a task is "
        "solved, only the value function's errors are left"
    ),
}
UPDATES = {
    "update/rejected": "rejected updates so far; each leaves the parameters bit-identical",
    "update/rejection_reason": "why this iteration's update was rejected (text; empty if it was not)",
}
TIMES = {
    "time/advantages": "seconds of value predictions and advantages",
    "time/value_fit": "seconds of the value function's fit; of waiting for it, where it runs beside the next rollout",
    "time/evaluation": "seconds of evaluation episodes",
    "time/overhead": "seconds of the rest: normalizers, Lightning, logging, checkpoints, progress",
    "time/steps_per_second": "env steps of this iteration over all its seconds",
}

RANKS = {
    "ranks/seconds": "seconds that the first rank spent in exchanges with others, waits for slower ones included",
    "ranks/exchanges": "how many they were: all-reduces and so on",
    "ranks/megabytes": "what it sent in all-reduces, in MB",
}

RESERVED = {*COUNTERS, *RESTARTS, *UPDATES, "time/overhead", "time/steps_per_second"}
"""Metrics that only the loop may write, because it relies on them to keep track of a run."""
TEXT_METRICS = ("update/rejection_reason",)
"""Metrics that are texts: only loggers with a true attribute `accepts_text` get them."""


def metrics_of(parts: Iterable[Any]) -> dict[str, str]:
    """Merge the `metrics` (name to meaning) of these classes, in order; the first meaning of a name wins."""
    found: dict[str, str] = {}
    for part in parts:
        found = found | {name: meaning for name, meaning in part.metrics.items() if name not in found}
    return found


_ALL = {
    **COUNTERS,
    **metrics_of(built_in_classes("rollout.scheme")),
    **RESTARTS,
    **EVALUATION,
    **ESTIMATES,
    **diagnostics.METRICS,
    **metrics_of(built_in_classes("rule.name")),
    **THEORY,
    **UPDATES,
    **metrics_of([Policy]),
    **metrics_of(built_in_classes("value.name")),
    **RANKS,
    **TIMES,
}
METRICS: dict[str, str] = dict(sorted(_ALL.items(), key=lambda item: item[0].startswith("time/")))
"""Every built-in metric, name to meaning; times come last."""
