"""The scheme without samples, and what goes with it."""

import numpy as np
import pytest
import torch
from environments import policy_for

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.toy_text import tabular_mdp
from trpo_lightning.errors import UserError
from trpo_lightning.numerics.tabular import evaluate_policy
from trpo_lightning.rollouts.exact import ExactScheme
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.settings import RunSettings, updated

EXACT = {
    "env.id": "FrozenLake-v1",
    "rollout.scheme": "exact",
    "value.name": "none",
    "gamma": 0.9,
}


def settings(**changes):
    fraction = {"rule.fisher_fraction": 1.0} if changes.get("rule.name", "trust_region") == "trust_region" else {}
    return updated(RunSettings(), {**EXACT, **fraction, **changes})


def collected(s):
    spec = describe_environment(s.env)
    policy, normalizer = policy_for(s, spec), Normalizer(spec.observation_shape, s.normalize)
    scheme = ExactScheme(s, spec, 1, lambda *_: torch.zeros(0))
    scheme.restart(0)
    return scheme.collect(policy, normalizer, 0), policy, normalizer


def test_it_yields_the_policys_exact_values():
    s = settings(**{"policy.hidden_sizes": [8]})
    rollout, policy, normalizer = collected(s)
    assert rollout.env_steps == 16 * 4 and not rollout.episode_returns
    np.testing.assert_array_equal(rollout.observations, np.eye(16, dtype=np.float32))
    with torch.no_grad():
        probabilities = policy(torch.eye(16)).logits.double().softmax(-1)
    expected = evaluate_policy(tabular_mdp(s.env, 0.9), probabilities)
    torch.testing.assert_close(rollout.values.eta, expected.eta, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(rollout.values.advantages, expected.advantages, rtol=1e-10, atol=1e-14)
    normalizer.merge(*rollout.statistics())
    np.testing.assert_array_equal(normalizer.normalize(np.eye(16)), rollout.observations)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"rule.name": "vanilla_policy_gradient"}, "rule.name=vanilla_policy_gradient"),
        ({"value.name": "adam"}, "value.name=adam"),
        ({"gamma": 1.0}, "gamma=1.0"),
        ({"rule.fisher_fraction": 0.5}, "rule.fisher_fraction=0.5"),
        ({"rule.curvature": "empirical_fisher"}, "rule.curvature"),
        ({"rule.name": "algorithm_1"}, "policy.hidden_sizes"),
        ({"rule.name": "algorithm_1", "policy.hidden_sizes": [], "gamma": 0.0}, "gamma=0.0"),
        ({"rule.name": "algorithm_1", "rollout.scheme": "single_path"}, "it needs exact"),
        ({"normalize.observations": False}, "normalize.observations does not count with rollout.scheme=exact"),
        ({"rollout.steps_per_iteration": 7}, "rollout.steps_per_iteration does not count with rollout.scheme=exact"),
    ],
)
def test_what_does_not_go_with_a_known_model_is_one_line(changes, part):
    with pytest.raises(UserError, match=part):
        settings(**changes)


def test_a_batch_that_other_schemes_could_not_divide_among_environments_is_left_behind():
    before = updated(RunSettings(), {"rollout.steps_per_iteration": 6, "env.num_envs": 3})
    assert updated(before, {**EXACT, "rule.fisher_fraction": 1.0}).rollout.kind == "exact"
    with pytest.raises(UserError, match="multiple"):
        updated(RunSettings(), {"rollout.steps_per_iteration": 7, "env.num_envs": 3})
