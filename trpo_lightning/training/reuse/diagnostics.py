"""How far a mixture of several policies' batches can be trusted, after the update that learned from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trpo_lightning.policies.policy import Policy
from trpo_lightning.settings import reuses
from trpo_lightning.training.batches import to_slots
from trpo_lightning.training.reuse.mixture import Mixture, Part

METRICS = {
    "reuse/batches": "batches that were learned from together (`rule.reuse`)",
    "reuse/effective_sample_size": (
        "what their transitions are worth for the new policy: (sum w r)^2 / sum (w r)^2, w the weights, r the new "
        "policy's ratios; `reuse/effective_share_0` and so on, by age, are (sum r)^2 / (B sum r^2) of single batches, "
        "1 at best"
    ),
    "reuse/truncated": "share of the older batches' ratios that were cut off in advantages and targets",
    "reuse/kl_oldest": (
        "KL of the policy that collected the oldest batch and the new one, estimated from its actions as the mean of "
        "r - 1 - log r; `reuse/kl_0` and so on are those of all batches, age 0 the newest"
    ),
    "reuse/return_predicted": (
        "off-policy estimate for the new policy, in raw rewards: mean over the batches' states of the discounted "
        "return to go, as far as the current policy's value targets and the surrogate tell"
    ),
    "reuse/return_low": "lower end of its 95 % interval, from the spread of environments and batches",
    "reuse/return_high": "upper end",
    "reuse/return_measured": (
        "the same mean for the policy that collected this iteration's batch, in its own states: to be compared with "
        "what the row before predicted"
    ),
    "reuse/return_measured_error": "its standard error, from the spread of environments",
}
"""Names and meanings of what `reuse_metrics` returns."""
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class MeanAndError:
    """A mean with its standard error; NaN where there is no spread to tell it from."""

    mean: float
    error: float


@torch.no_grad()
def reuse_metrics(policy: Policy, mixture: Mixture | None) -> dict[str, float]:
    """Effective sample sizes, KLs and the predicted return of the new policy; empty without reuse."""
    if mixture is None or not len(mixture.parts[0].ratios):
        return {}
    parts, metrics = mixture.parts, {"reuse/batches": float(len(mixture.parts))}
    ratios = [part.new_ratios(policy).double() for part in parts]
    for part, r in zip(parts, ratios, strict=True):
        metrics[f"reuse/effective_share_{part.age}"] = effective_size(r) / len(r)
        metrics[f"reuse/kl_{part.age}"] = kl_from_ratios(r)
    weighted = [part.weight * r / len(r) for part, r in zip(parts, ratios, strict=True)]
    metrics["reuse/effective_sample_size"] = effective_size(torch.cat(weighted))
    metrics["reuse/kl_oldest"] = metrics[f"reuse/kl_{parts[-1].age}"]
    rule, older = parts[0].valued.settings.rule, [part.ratios for part in parts if part.age]
    if older and reuses(rule) and rule.reuse_truncation is not None:
        metrics["reuse/truncated"] = float((torch.cat(older) > rule.reuse_truncation).double().mean())
    scale = 1.0 / mixture.reward_scale
    values = [value_of(part, r) for part, r in zip(parts, ratios, strict=True)]
    predicted = combined([part.weight for part in parts], values)
    metrics["reuse/return_predicted"] = scale * predicted.mean
    if math.isfinite(predicted.error):
        metrics["reuse/return_low"] = scale * (predicted.mean - NORMAL_95 * predicted.error)
        metrics["reuse/return_high"] = scale * (predicted.mean + NORMAL_95 * predicted.error)
    if parts[0].age == 0:
        measured = value_of(parts[0])
        metrics["reuse/return_measured"] = scale * measured.mean
        metrics["reuse/return_measured_error"] = scale * measured.error
    return metrics


def effective_size(weights: Tensor) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2 of weights `[B]`."""
    return float(weights.sum().square() / weights.square().sum())


def kl_from_ratios(ratios: Tensor) -> float:
    """KL(collector || pi) from actions of the collector: the mean of r - 1 - log r, r = pi / collector, at least 0."""
    return float((ratios - 1.0 - torch.log(ratios)).mean())


def value_of(part: Part, ratios: Tensor | None = None) -> MeanAndError:
    """Mean over a part's states of the discounted return to go, for a policy with these ratios (None: the current one).

    The current policy's is the mean of its value targets. The surrogate promises (r_new - r) A for the action of each
    step, to all states before it in its episode: sum_t sum_l gamma^l x_{t+l} = sum_k (1 - gamma^(k+1)) / (1 - gamma)
    x_k, k counting from the episode's begin. What would follow a time limit is left out. Environments are the clusters
    of the error: a ratio estimator of their sums and counts.
    """
    t, gamma = part.transitions, part.valued.settings.gamma
    values = t.targets
    if ratios is not None:
        steps = t.steps.double() + 1.0
        reached = (1.0 - gamma**steps) / (1.0 - gamma) if gamma < 1.0 else steps
        values = values + (ratios - part.ratios) * t.advantages * reached
    valid = part.valued.rollout.valid
    sums, counts = to_slots(values, valid).sum(0), torch.from_numpy(valid).sum(0).double()
    mean, clusters = float(sums.sum() / counts.sum()), len(sums)
    if clusters < 2:
        return MeanAndError(mean, math.nan)
    residuals = sums - mean * counts
    variance = residuals.square().sum() * clusters / (clusters - 1) / counts.sum().square()
    return MeanAndError(mean, float(variance.sqrt()))


def combined(weights: Sequence[float], parts: Sequence[MeanAndError]) -> MeanAndError:
    """The weighted mean of independent means."""
    mean = sum(w * part.mean for w, part in zip(weights, parts, strict=True))
    return MeanAndError(mean, math.sqrt(sum((w * part.error) ** 2 for w, part in zip(weights, parts, strict=True))))
