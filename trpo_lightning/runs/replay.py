"""Replays the rejected update that stopped a run, and reports what a researcher wants to know about it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.conjugate_gradient import conjugate_gradient, dot
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.rollouts.rollout import PopulationBatch
from trpo_lightning.rules.constraint import Candidates
from trpo_lightning.rules.surrogate import surrogate_and_gradient
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.settings import RunSettings, different_keys, get
from trpo_lightning.training.failed_update import FailedUpdate

BEFORE_THE_UPDATE = tuple(
    f"rule.{name}"
    for name in (
        "standardize_advantages",
        "discounted_state_weights",
        "reuse",
        "reuse_batches",
        "reuse_size",
        "reuse_tradeoff",
        "reuse_truncation",
        "population",
        "episodes_per_candidate",
        "initial_std",
        "covariance",
        "max_rejections",
    )
)
"""Keys of the rule that shaped the batch, or apply to the run as a whole: a replay cannot change them."""
SHOWN = 3
"""How many positions of non-finite numbers to show for each array."""


def replay(failed: FailedUpdate, settings: RunSettings) -> tuple[str, bool]:
    """Compute a rejected update again.

    Args:
        failed: The update.
        settings: Its settings, perhaps with other values for `rule.*`, whose effect the report then shows.

    Returns:
        A report, and whether the update was rejected for the same reason, with the same numbers.

    Raises:
        UserError: Another key differs.
    """
    changed = different_keys(settings, failed.settings)
    for key in changed:
        if not key.startswith("rule.") or key in BEFORE_THE_UPDATE:
            raise UserError(f"{key}: a replay has its batch already: change keys of the update, such as rule.damping")
    torch.set_num_threads(failed.threads)
    again = failed.update(failed.settings)
    same_numbers = _same(again.metrics, failed.metrics)
    reproduced = again.rejection_reason == failed.reason and same_numbers
    s = failed.settings
    lines = [
        f"update     {s.env.id} {s.name} seed {s.seed}, rule {s.rule.name}, iteration {failed.iteration}",
        f"rejected   {failed.reason}",
        f"replayed   {'the same, number for number' if reproduced else _difference(again, failed)}",
    ]
    if changed:
        tried = " ".join(f"{key}={get(settings, key)}" for key in changed)
        lines += [f"tried      {tried}", f"           {_outcome(failed.update(settings))}"]
    return "\n".join([*lines, "", *_arrays(failed), "", *_policy(failed), *_search(failed, settings)]), reproduced


def _same(a: dict[str, float], b: dict[str, float]) -> bool:
    return a.keys() == b.keys() and all(a[k] == b[k] or (math.isnan(a[k]) and math.isnan(b[k])) for k in a)


def _difference(again: Any, failed: FailedUpdate) -> str:
    if again.rejection_reason != failed.reason:
        return f"DIFFERENTLY: {_outcome(again)}: other versions, or another kind of CPU?"
    names = [k for k in failed.metrics if not _same({k: again.metrics.get(k, math.inf)}, {k: failed.metrics[k]})]
    return f"the same reason, but other numbers ({', '.join(names)}): other versions, or another kind of CPU?"


def _outcome(result: Any) -> str:
    if result.rejection_reason is not None:
        return f"rejected: {result.rejection_reason}"
    numbers = [f"{name} {value:.4g}" for name, value in result.metrics.items()]
    return f"accepted: {', '.join(numbers)}"


def _arrays(failed: FailedUpdate) -> list[str]:
    """A line for each array: its shape, range, and the positions where it is not finite."""
    lines = [f"{'array':<28} {'shape':<16} {'least':>11} {'mean':>11} {'largest':>11}  not finite"]
    groups = {"batch": failed.batch, "collected": failed.collected, "rule": failed.rule_state}
    for group, value in groups.items():
        for name, tensor in _tensors(value, group):
            lines.append(f"{name:<28} {list(tensor.shape)!s:<16} {_range(tensor)}  {_not_finite(tensor)}")
    return lines


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The numeric tensors in nested data classes and dicts, with dotted names."""
    if dataclasses.is_dataclass(value):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}")
    elif isinstance(value, Tensor) and value.dtype != torch.bool:
        yield name, value


def _range(tensor: Tensor) -> str:
    finite = tensor[torch.isfinite(tensor)].double()
    if not len(finite):
        return f"{'-':>11} {'-':>11} {'-':>11}"
    return " ".join(f"{float(number):>11.4g}" for number in (finite.min(), finite.mean(), finite.max()))


def _not_finite(tensor: Tensor) -> str:
    bad = ~torch.isfinite(tensor)
    if not bad.any():
        return "none"
    places = [str(place.tolist()) for place in bad.nonzero()[:SHOWN]]
    kinds = {"nan": tensor.isnan(), "inf": tensor == math.inf, "-inf": tensor == -math.inf}
    counts = ", ".join(f"{int(mask.sum())} {kind}" for kind, mask in kinds.items() if mask.any())
    return f"{counts} of {tensor.numel()}, at {', '.join(places)}{' ...' if int(bad.sum()) > SHOWN else ''}"


def _policy(failed: FailedUpdate) -> list[str]:
    theta = parameter_vector(failed.policy)
    lines = [f"parameters   {len(theta)}, norm {float(theta.double().norm()):.4g}, not finite: {_not_finite(theta)}"]
    for name, parameter in failed.policy.state_dict().items():
        if name.endswith("log_std"):
            lines.append(f"{name:<12} {float(parameter.min()):.4g} to {float(parameter.max()):.4g}")
    return lines


def _search(failed: FailedUpdate, settings: RunSettings) -> list[str]:
    """Gradient, direction and candidates, as far as the rule defines them and they can be computed."""
    batch, policy = failed.batch, failed.policy
    if isinstance(batch, PopulationBatch) or not len(batch):
        return []
    rule = failed.rule(settings)
    surrogate, gradient = surrogate_and_gradient(policy, batch, getattr(settings.rule, "entropy_bonus", 0.0))
    if not isinstance(rule, TrustRegionRule):
        return [_gradient_line(gradient)]
    candidates = Candidates(policy, surrogate, rule.settings)
    problem = rule.problem(policy, batch, surrogate, gradient, candidates, failed.generator())
    gradient = problem.gradient()
    lines = [_gradient_line(gradient)]
    if not torch.isfinite(gradient).all():
        return lines
    s = rule.settings
    lines.append(f"Fisher       times the gradient, not finite: {_not_finite(problem.curvature_product(gradient))}")
    solution = conjugate_gradient(
        problem.curvature_product, gradient, iterations=s.cg_iterations, tolerance=s.cg_tolerance, damping=s.damping
    )
    x, curvature = solution.x, dot(solution.x, solution.product)
    lines += [
        f"CG           {solution.iterations} iterations, relative residual {solution.residual:.4g}",
        f"direction s  s'g {dot(x, gradient):.4g}, s'As {curvature:.4g}, damping s's {s.damping * dot(x, x):.4g}",
    ]
    return lines + _candidates(rule, problem, batch)


def _candidates(rule: TrustRegionRule, problem: Any, batch: Any) -> list[str]:
    """What the line search found for each candidate."""
    seen: list[tuple[float, float]] = []

    def watched(theta: Tensor) -> tuple[float, float]:
        seen.append(problem.evaluate(theta))
        return seen[-1]

    rule.solve(dataclasses.replace(problem, evaluate=watched), batch)
    if not seen:
        return ["line search  was not reached"]
    s, (start, _) = rule.settings, seen[0]
    bound = "any" if s.kl_slack is None else f"at most {s.kl_slack * rule.delta():.4g}"
    lines = [f"line search  surrogate {start:.6g} at the old policy; KL must be {bound}"]
    lines.append(f"  {'backtracks':>10}  {'share of step':>13}  {'surrogate rise':>14}  {'KL':>11}")
    for k, (value, kl) in enumerate(seen[1:]):
        lines.append(f"  {k:>10}  {s.backtrack_ratio**k:>13.4g}  {value - start:>14.4g}  {kl:>11.4g}")
    return lines


def _gradient_line(gradient: Tensor) -> str:
    return f"gradient     norm {float(gradient.double().norm()):.4g}, not finite: {_not_finite(gradient)}"
