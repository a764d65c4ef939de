"""The trust-region update written out densely in float64: explicit matrices, direct solves, `torch.distributions`."""

import copy
from typing import Any

import torch
from methods import mlp_policy
from torch import Tensor, distributions

from trpo_lightning.policies.distributions import Bernoulli, Categorical, Gaussian
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.settings import RuleSettings

ROWS = 60
KINDS: dict[str, ActionSpec] = {
    "gaussian": ContinuousActions(2),
    "categorical": DiscreteActions((4,)),
    "multi_discrete": DiscreteActions((2, 3)),
    "multi_binary": BinaryActions(3),
}
ACTION_SIZES = {"gaussian": 2, "categorical": 1, "multi_discrete": 2, "multi_binary": 3}
EXACT = {"cg_iterations": 300, "cg_tolerance": 1e-13, "fisher_fraction": 1.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(
    kind: str, *, hidden_sizes: tuple[int, ...] = (4,), dtype=torch.float64, rows: int = ROWS
) -> tuple[Policy, Batch]:
    """A policy away from its start, and a batch of its own actions with random advantages."""
    source = generator(1)
    policy = mlp_policy(
        (3,), KINDS[kind], hidden_sizes=list(hidden_sizes), activation="tanh", initial_log_std=-0.4, generator=source
    ).to(dtype)
    theta = parameter_vector(policy)
    assign_parameter_vector(policy, 0.5 * torch.randn(theta.shape, dtype=dtype, generator=source))
    observations = torch.randn(rows, 3, dtype=dtype, generator=source)
    noise = torch.rand(rows, ACTION_SIZES[kind], dtype=dtype, generator=source)
    with torch.no_grad():
        actions = policy(observations).sample(noise)
    return policy, Batch(observations, actions, torch.randn(rows, dtype=dtype, generator=source))


def references(distribution) -> list[distributions.Distribution]:
    """One of `torch.distributions` for each action dimension."""
    match distribution:
        case Gaussian(mean, log_std):
            return [distributions.Normal(m, s.exp()) for m, s in zip(mean.T, log_std.T, strict=True)]
        case Bernoulli(logits):
            return [distributions.Bernoulli(logits=x) for x in logits.T]
        case Categorical(logits, choices):
            return [distributions.Categorical(logits=x) for x in logits.split(choices, dim=-1)]
    raise AssertionError(distribution)


def dense_log_prob(distribution, actions: Tensor) -> Tensor:
    dtype = actions.dtype if isinstance(distribution, Categorical) else distribution.tensors[0].dtype
    columns = [d.log_prob(a.to(dtype)) for d, a in zip(references(distribution), actions.T, strict=True)]
    return torch.stack(columns).sum(0)


def dense_kl(old, new) -> Tensor:
    pairs = zip(references(old), references(new), strict=True)
    return torch.stack([distributions.kl_divergence(p, q) for p, q in pairs]).sum(0)


def dense_entropy(distribution) -> Tensor:
    return torch.stack([d.entropy() for d in references(distribution)]).sum(0)


def with_theta(policy: Policy, theta: Tensor) -> Policy:
    other = copy.deepcopy(policy)
    assign_parameter_vector(other, theta)
    return other


def surrogate_and_kls(policy: Policy, batch: Batch, theta: Tensor, settings: RuleSettings) -> tuple[float, Tensor]:
    """The surrogate and each state's KL, from modules and not from `at`."""
    with torch.no_grad():
        old, new = policy(batch.observations), with_theta(policy, theta)(batch.observations)
        log_ratio = dense_log_prob(new, batch.actions) - dense_log_prob(old, batch.actions)
        surrogate = (log_ratio.exp() * batch.advantages).mean() + settings.entropy_bonus * dense_entropy(new).mean()
        kls = dense_kl(old, new) if settings.kl_direction == "old_new" else dense_kl(new, old)
    return float(surrogate), kls / len(references(old)) if settings.kl_over_dimensions == "mean" else kls


def dense_gradient(policy: Policy, batch: Batch, settings: RuleSettings) -> Tensor:
    def surrogate(theta: Tensor) -> Tensor:
        new = policy.at(theta, batch.observations)
        log_prob = dense_log_prob(new, batch.actions)
        ratio = (log_prob - log_prob.detach()).exp()
        return (ratio * batch.advantages).mean() + settings.entropy_bonus * dense_entropy(new).mean()

    return torch.autograd.functional.jacobian(surrogate, parameter_vector(policy))  # type: ignore[return-value]


def dense_curvature(policy: Policy, batch: Batch, rows: Tensor, settings: RuleSettings) -> Tensor:
    """`[P, P]`: the Hessian of the mean KL over `rows`, or the mean outer product of their actions' scores."""
    theta, observations, actions = parameter_vector(policy), batch.observations[rows], batch.actions[rows]
    old = policy(observations).detach()
    matrix: Any
    if settings.curvature == "empirical_fisher":
        scores: Any = torch.autograd.functional.jacobian(
            lambda th: dense_log_prob(policy.at(th, observations), actions), theta
        )
        matrix = sum(torch.outer(score, score) for score in scores) / len(scores)
    else:
        matrix = torch.autograd.functional.hessian(lambda th: dense_kl(old, policy.at(th, observations)).mean(), theta)
    return matrix / len(references(old)) if settings.kl_over_dimensions == "mean" else matrix


def dense_update(
    policy: Policy, batch: Batch, settings: RuleSettings, *, rows: Tensor | None = None, delta: float | None = None
) -> tuple[Tensor, int]:
    """New parameters and the number of backtracks; `rows` are those of the mean curvature.

    Raises `AssertionError` if no candidate is acceptable.
    """
    delta = settings.delta if delta is None else delta
    theta = parameter_vector(policy)
    gradient = dense_gradient(policy, batch, settings)
    everything = torch.arange(len(batch))
    mean = dense_curvature(policy, batch, everything if rows is None else rows, settings)
    damping = settings.damping * torch.eye(len(theta), dtype=theta.dtype)
    s = torch.linalg.solve(mean + damping, gradient)
    if settings.step_length == "fixed":
        full_step = settings.step_size * s
    else:
        states = [n[None] for n in everything]
        parts = states if settings.kl_over_states == "max" else [everything if rows is None else rows]
        curvatures = [s @ dense_curvature(policy, batch, part, settings) @ s for part in parts]
        extra = s @ damping @ s if settings.step_length == "damped" else 0.0
        beta = min(float(2.0 * delta / (curvature + extra)) ** 0.5 for curvature in curvatures)
        limit = settings.max_step_size
        full_step = (beta if limit is None else min(beta, limit * batch.advantage_std)) * s
    start, _ = surrogate_and_kls(policy, batch, theta, settings)
    for k in range(settings.max_backtracks + 1):
        step = settings.backtrack_ratio**k * full_step
        value, kls = surrogate_and_kls(policy, batch, theta + step, settings)
        kl = float(kls.mean() if settings.kl_over_states == "mean" else kls.max())
        ratio, slack = settings.improvement_ratio, settings.kl_slack
        improves = ratio is None or value - start > ratio * float(gradient @ step)
        within = slack is None or kl <= slack * delta
        if settings.kl_over_states == "mean" and settings.kl_state_slack is not None and slack is not None:
            within = within and float(kls.max()) <= settings.kl_state_slack * delta
        if improves and within:
            return theta + step, k
    raise AssertionError("the oracle found no step")
