"""The same seed gives the same rollouts, bit for bit; another seed or iteration gives others."""

import dataclasses

import numpy as np
import pytest
from environments import collector_for

from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.settings import from_keywords

CASES = [("Hopper-v5", "envpool"), ("CartPole-v1", "envpool"), ("CartPole-v1", "gymnasium"), ("Hopper-v5", "gymnasium")]


def rollouts(env_id, backend, *, seed=0, num_envs=4, iterations=3, threads=1, restart_at=2):
    if backend == "envpool":
        pytest.importorskip("envpool")
    settings = from_keywords(
        env=dict(id=env_id, backend=backend, num_envs=num_envs),
        rollout=dict(steps_per_iteration=num_envs * 40),
        policy=dict(hidden_sizes=[8]),
        seed=seed,
    )
    collector, policy, normalizer = collector_for(settings)
    collector.threads = threads
    found = []
    for iteration in range(iterations):
        if iteration == restart_at:
            collector.restart(iteration)
        rollout = collector.collect(policy, normalizer, iteration)
        normalizer.merge(rollout.raw_observations[rollout.valid], rollout.running_returns[rollout.valid])
        found.append(rollout)
    collector.close()
    return found


def content(rollout: Rollout):
    """All of a rollout but its times; invalid slots' contents included."""
    fields = (f.name for f in dataclasses.fields(rollout) if f.name != "seconds")
    return {name: np.asarray(getattr(rollout, name)) for name in fields}


@pytest.mark.parametrize(("env_id", "backend"), CASES)
def test_the_same_seed_gives_identical_rollouts(env_id, backend):
    for one, two in zip(rollouts(env_id, backend), rollouts(env_id, backend), strict=True):
        for name, array in content(one).items():
            np.testing.assert_array_equal(array, content(two)[name], err_msg=name)


@pytest.mark.parametrize(("env_id", "backend"), CASES)
def test_another_seed_gives_other_noise_and_other_environments(env_id, backend):
    one, two = rollouts(env_id, backend, iterations=1)[0], rollouts(env_id, backend, seed=1, iterations=1)[0]
    assert (one.actions != two.actions).any()
    assert (one.raw_observations[0] != two.raw_observations[0]).any(axis=1).all()


def test_envpool_threads_do_not_change_results():
    for one, two in zip(rollouts(*CASES[0]), rollouts(*CASES[0], threads=2), strict=True):
        np.testing.assert_array_equal(one.raw_observations, two.raw_observations)


@pytest.mark.parametrize(("env_id", "backend"), CASES[:3])
def test_a_run_continued_from_a_restart_equals_one_that_went_through_it(env_id, backend):
    """Environments and noise after a restart depend on (seed, iteration) alone."""
    through = rollouts(env_id, backend, iterations=3, restart_at=2)[2]
    settings = from_keywords(
        env=dict(id=env_id, backend=backend, num_envs=4),
        rollout=dict(steps_per_iteration=160),
        policy=dict(hidden_sizes=[8]),
    )
    fresh, policy, normalizer = collector_for(settings)
    fresh.restart(2)
    np.testing.assert_array_equal(fresh.collect(policy, normalizer, 2).raw_observations[0], through.raw_observations[0])
    fresh.close()


def test_another_iteration_and_another_environment_have_other_noise():
    settings = from_keywords(
        env=dict(
            id="environments:counting", backend="gymnasium", num_envs=3, kwargs={"lengths": [9], "ends": ["both"]}
        ),
        rollout=dict(steps_per_iteration=30),
        normalize=dict(observations=False),
    )
    noise = []
    for iteration in (0, 1):
        collector, policy, normalizer = collector_for(settings)
        for parameter in policy.parameters():
            parameter.data.zero_()  # actions are the noise
        actions = collector.collect(policy, normalizer, iteration).actions
        noise += [actions[:, i].tobytes() for i in range(3)]
    assert len(set(noise)) == 6


def test_an_environment_s_noise_does_not_depend_on_how_many_there_are():
    def noise(num_envs):
        settings = from_keywords(
            env=dict(id="environments:counting", backend="gymnasium", num_envs=num_envs),
            rollout=dict(steps_per_iteration=10 * num_envs),
        )
        collector, policy, normalizer = collector_for(settings)
        for parameter in policy.parameters():
            parameter.data.zero_()
        return collector.collect(policy, normalizer, 0).actions

    np.testing.assert_array_equal(noise(2), noise(5)[:, :2])
