"""Vine's L and gradient, as training takes them, against enumeration of a small MDP."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from environments import no_proposals, policy_for
from tiny_mdp import ACTIONS, STATES, q_table, tables, visitation

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.numerics.objectives import self_normalized_surrogate
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.single_path import SinglePathScheme
from trpo_lightning.rollouts.vine import VineScheme
from trpo_lightning.rules.surrogate import surrogate_and_gradient
from trpo_lightning.settings import from_keywords
from trpo_lightning.training.batches import make_batch
from trpo_lightning.values import build_value_function

GAMMA, LENGTH, STEPS = 0.9, 6, 8
CPU = torch.device("cpu")


def settings_for(num_envs, steps=STEPS, **rollout):
    return from_keywords(
        env=dict(id="tiny_mdp:make", num_envs=num_envs, backend="gymnasium"),
        rollout=dict(steps_per_iteration=num_envs * steps, **rollout),
        **({} if rollout.get("scheme") == "vine" else {"gae_lambda": 1.0}),
        normalize=dict(observations=False, rewards=False),
        policy=dict(hidden_sizes=[]),
        value=dict(name="none"),
        gamma=GAMMA,
        seed=2,
    )


def parts(settings, scheme: type) -> tuple[Any, Policy, Normalizer]:
    spec = describe_environment(settings.env)
    policy = policy_for(settings, spec)
    generator = torch.Generator().manual_seed(0)
    assign_parameter_vector(policy, torch.randn(len(parameter_vector(policy)), generator=generator))
    return scheme(settings, spec, 1, no_proposals), policy, Normalizer(spec.observation_shape, settings.normalize)


def probabilities(policy: Policy, theta: torch.Tensor) -> torch.Tensor:
    return torch.softmax(policy.at(theta, torch.eye(STATES)).logits.double(), dim=1)


def self_normalized(pi: torch.Tensor, q: torch.Tensor, q_values: torch.Tensor, branches: int) -> torch.Tensor:
    """Expectation in each state of eq. 16 over all tuples of actions; weights depend on the actions alone."""
    total = torch.zeros(STATES, dtype=torch.float64)
    for actions in itertools.product(range(ACTIONS), repeat=branches):
        chosen = list(actions)
        w = pi[:, chosen] / q[:, chosen]
        total = total + q[:, chosen].prod(1) * (w * q_values[:, chosen]).sum(1) / w.sum(1)
    return total


def exact(policy: Policy, theta: torch.Tensor, branch_actions: str = "all", branches: int = 0) -> torch.Tensor:
    """What vine estimates at `theta`, in expectation; for all actions L itself: sum_s d(s) sum_a pi(a|s) Q(s, a)."""
    old = probabilities(policy, parameter_vector(policy)).detach()
    visits = torch.from_numpy(visitation(old.numpy(), STEPS))
    q_values, pi = torch.from_numpy(q_table(old.numpy(), GAMMA, LENGTH)), probabilities(policy, theta)
    if branch_actions == "all":
        return (visits[:, None] * pi * q_values).sum()
    q = old if branch_actions == "policy" else torch.full_like(old, 1 / ACTIONS)
    return (visits * self_normalized(pi, q, q_values, branches)).sum()


def exact_gradient(policy: Policy, *arguments) -> np.ndarray:
    """At the policy's own theta."""
    theta = parameter_vector(policy).requires_grad_(True)
    return torch.autograd.grad(exact(policy, theta, *arguments), theta)[0].numpy()


def estimates(scheme, policy, normalizer, new, iterations):
    """L at `new` and gradients at the policy's theta, of independent iterations."""
    values, gradients = [], []
    no_values = build_value_function((STATES,), scheme.settings.value, torch.Generator())
    for iteration in range(iterations):
        scheme.restart(iteration)
        batch = make_batch(scheme.collect(policy, normalizer, iteration), no_values, scheme.settings, CPU).batch
        surrogate, gradient = surrogate_and_gradient(policy, batch)
        rows = len(surrogate.observations)
        distribution = policy.at(new, surrogate.observations)
        values.append(float(surrogate.total(distribution, slice(0, rows)).detach()) / rows)
        gradients.append(gradient.numpy())
    return np.array(values), np.stack(gradients).astype(np.float64)


def assert_mean_is(samples: np.ndarray, expected, tolerance: float) -> None:
    """Within 4 standard errors, and these small enough to tell."""
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    assert error.max() < tolerance / 3
    assert (np.abs(samples.mean(0) - expected) < 4 * error + 1e-7).all()


def test_the_enumeration_itself_agrees_with_a_long_simulation():
    rng = np.random.default_rng(0)
    first, transitions, rewards = tables()
    policy = rng.dirichlet(np.ones(ACTIONS), STATES)
    runs = 20_000

    def draw(p):
        return (rng.random(runs)[:, None] >= p.cumsum(1)[:, :-1]).sum(1)

    states, q, seen = draw(np.tile(first, (runs, 1))), np.zeros(runs), np.zeros(STATES)
    start, action = states, rng.integers(ACTIONS, size=runs)
    taken = action
    for step in range(LENGTH):
        q += GAMMA**step * rewards[states, action]
        states = draw(transitions[states, action])
        action = draw(policy[states])
    table = q_table(policy, GAMMA, LENGTH)
    for s in range(STATES):
        for a in range(ACTIONS):
            chosen = q[(start == s) & (taken == a)]
            assert abs(chosen.mean() - table[s, a]) < 4 * chosen.std() / np.sqrt(len(chosen))
    states = draw(np.tile(first, (runs, 1)))
    for _ in range(STEPS):
        seen += np.bincount(states, minlength=STATES) / runs / STEPS
        states = draw(transitions[states, draw(policy[states])])
    np.testing.assert_allclose(seen, visitation(policy, STEPS), atol=0.01)


@pytest.mark.parametrize(("branch_actions", "branches"), [("all", 1), ("policy", 3), ("uniform", 2)])
def test_estimates_of_the_surrogate_and_its_gradient_have_the_enumerated_expectation(branch_actions, branches):
    sizes = dict(rollout_set_size=60, branch_length=LENGTH, branch_actions=branch_actions, branches=branches)
    scheme, policy, normalizer = parts(settings_for(20, scheme="vine", **sizes), VineScheme)
    new = parameter_vector(policy) + 0.5 * torch.randn(15, generator=torch.Generator().manual_seed(3))
    value = float(exact(policy, new, branch_actions, branches))
    gradient = exact_gradient(policy, branch_actions, branches)
    values, gradients = estimates(scheme, policy, normalizer, new, 25)
    assert_mean_is(values, value, 0.12)
    assert_mean_is(gradients, gradient, 0.03)
    assert np.abs(gradient).max() > 0.03


@pytest.mark.parametrize("branch_actions", ["policy", "uniform"])
def test_self_normalized_converges_to_the_exact_surrogate_with_the_number_of_actions(branch_actions):
    _, policy, _ = parts(settings_for(1, scheme="vine", rollout_set_size=1), VineScheme)
    old = probabilities(policy, parameter_vector(policy)).detach()
    visits = torch.from_numpy(visitation(old.numpy(), STEPS))
    states = torch.arange(STATES).repeat(4000)
    q = (old if branch_actions == "policy" else torch.full_like(old, 1 / ACTIONS))[states]
    q_values = torch.from_numpy(q_table(old.numpy(), GAMMA, LENGTH))[states] * visits[states, None] / 4000
    new = parameter_vector(policy) + 0.5 * torch.randn(15, generator=torch.Generator().manual_seed(3))
    errors = []
    for branches in (2, 8, 64):
        actions = torch.multinomial(q, branches, True, generator=torch.Generator().manual_seed(4))
        arguments = q.log().gather(1, actions), q_values.gather(1, actions)
        theta = parameter_vector(policy).requires_grad_(True)
        log_probs = (probabilities(policy, at).log()[states].gather(1, actions) for at in (new, theta))
        value, at_old = (self_normalized_surrogate(log_prob, *arguments) for log_prob in log_probs)
        (gradient,) = torch.autograd.grad(at_old, theta)
        distance = np.linalg.norm(gradient.numpy() - exact_gradient(policy))
        errors.append((abs(float(value - exact(policy, new))), distance))
    assert errors[0][0] > 0.03 and errors[0][1] > 0.05
    assert errors[1][0] < 0.5 * errors[0][0] and errors[1][1] < 0.5 * errors[0][1]
    assert errors[2][0] < 0.1 * errors[0][0] and errors[2][1] < 0.1 * errors[0][1]


@pytest.mark.parametrize(("branch_actions", "branches"), [("all", ACTIONS), ("policy", 4)])
def test_the_gradient_s_variance_per_q_value_is_below_single_path_s(branch_actions, branches):
    q_values = 120
    vine = settings_for(
        15,
        scheme="vine",
        rollout_set_size=q_values // branches,
        branch_length=LENGTH,
        branch_actions=branch_actions,
        branches=branches,
    )
    _, gradients = estimates(*parts(vine, VineScheme), torch.zeros(15), 30)
    single = settings_for(15, steps=q_values // 15)
    single.rule.standardize_advantages = False
    _, of_single_path = estimates(*parts(single, SinglePathScheme), torch.zeros(15), 30)
    assert gradients.var(0).sum() < 0.75 * of_single_path.var(0).sum()
