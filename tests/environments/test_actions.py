"""Actions and their log-probabilities: stored as sampled, clipped only for the environment."""

import numpy as np
import pytest
import torch
from collected_log_probs import collected_log_probs
from environments import ACTION_SPACES, collector_for

from trpo_lightning.policies.distributions import Gaussian
from trpo_lightning.rollouts.rollout import valid_rows
from trpo_lightning.settings import from_keywords


def settings_for(env_id, *, backend="gymnasium", kwargs=None, log_std=0.0, num_envs=4, steps=16, observations=True):
    return from_keywords(
        env=dict(id=env_id, num_envs=num_envs, backend=backend, kwargs=kwargs or {}),
        rollout=dict(steps_per_iteration=num_envs * steps),
        normalize=dict(observations=observations, rewards=False),
        policy=dict(initial_log_std=log_std, hidden_sizes=[8]),
        seed=3,
    )


def test_actions_are_stored_unclipped_and_reach_the_environment_clipped():
    schedule = dict(lengths=[100], ends=["terminated"])
    collector, policy, normalizer = collector_for(
        settings_for("environments:counting", kwargs=schedule, log_std=1.0, observations=False)
    )
    rollout = collector.collect(policy, normalizer, 0)
    beyond = np.abs(rollout.actions) > 1.0
    assert beyond.mean() > 0.3  # std e: most lie outside of [-1, 1]
    taken = rollout.raw_observations[1:, :, 3:]  # the environment tells the action that it got
    np.testing.assert_array_equal(taken, np.clip(rollout.actions[:-1], -1.0, 1.0))


def test_log_probs_are_of_the_unclipped_actions():
    schedule = dict(lengths=[7], ends=["terminated"])
    collector, policy, normalizer = collector_for(
        settings_for("environments:counting", kwargs=schedule, log_std=1.0, observations=False)
    )
    rollout = collector.collect(policy, normalizer, 0)
    mean = policy(torch.from_numpy(rollout.observations[:-1])).mean.detach().numpy().astype(np.float64)
    std = np.e

    def density(actions):
        z = (actions.astype(np.float64) - mean) / std
        return np.log(np.exp(-0.5 * z**2) / (std * np.sqrt(2 * np.pi))).sum(-1)

    collected = collected_log_probs(policy, rollout)
    np.testing.assert_allclose(collected, density(rollout.actions), atol=1e-4)
    assert np.abs(collected - density(np.clip(rollout.actions, -1, 1))).max() > 1e-2


@pytest.mark.parametrize(
    ("env_id", "backend", "name"),
    [("environments:with_actions", "gymnasium", name) for name in ACTION_SPACES]
    + [("CartPole-v1", "envpool", None), ("Hopper-v5", "envpool", None), ("Pendulum-v1", "envpool", None)],
)
def test_log_probs_at_collection_are_those_of_the_policy_on_the_batch(env_id, backend, name):
    settings = settings_for(env_id, backend=backend, kwargs={"name": name} if name else {}, steps=32)
    collector, policy, normalizer = collector_for(settings)
    for parameter in policy.parameters():  # away from the uniform start
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    for iteration in range(2):
        rollout = collector.collect(policy, normalizer, iteration)
        cpu = torch.device("cpu")
        observations, actions, stored = (
            valid_rows(array, rollout.valid, cpu)
            for array in (rollout.observations, rollout.actions, collected_log_probs(policy, rollout))
        )
        assert len(observations) == rollout.env_steps
        recomputed = policy(observations).log_prob(actions).detach()
        assert float((recomputed - stored).abs().max()) <= 1e-5 * max(1.0, float(stored.abs().max()))
        normalizer.merge(rollout.raw_observations[rollout.valid], rollout.running_returns[rollout.valid])
    collector.close()


def test_batch_rows_are_time_major_and_leave_out_resets():
    valid = np.array([[True, False], [True, True], [False, True]])
    array = np.arange(8).reshape(4, 2)  # T + 1 rows, as observations have
    assert valid_rows(array, valid, torch.device("cpu")).tolist() == [0, 2, 3, 5]


def test_sampled_actions_have_the_policy_s_distribution():
    schedule = dict(lengths=[1000], ends=["terminated"])
    collector, policy, normalizer = collector_for(
        settings_for("environments:counting", kwargs=schedule, log_std=-1.0, steps=500)
    )
    rollout = collector.collect(policy, normalizer, 0)
    distribution = policy(torch.from_numpy(rollout.observations[:-1]))
    assert isinstance(distribution, Gaussian)
    z = ((torch.from_numpy(rollout.actions) - distribution.mean) / np.exp(-1.0)).detach().numpy().reshape(-1)
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * n)
    correlation = np.corrcoef(z.reshape(500, -1).T) - np.eye(8)  # streams of environments and dimensions
    assert np.abs(correlation).max() < 5 / np.sqrt(500)
