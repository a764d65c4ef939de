"""Environments in different phases: the first episodes are cut one after another."""

import numpy as np
import pytest
from environments import collector_for

from trpo_lightning.errors import UserError
from trpo_lightning.settings import from_keywords

LIMIT, ENVS = 20, 4
BACKENDS = [("gymnasium", False), ("gymnasium", True), ("envpool", False)]


def rollouts(backend, asynchronous, iterations=2, *, spread=True, env_id="Pendulum-v1", steps=50, envs=ENVS):
    """Rollouts of two starts, each with a barrier before it."""
    settings = from_keywords(
        env=dict(id=env_id, num_envs=envs, backend=backend, asynchronous=asynchronous, max_episode_steps=LIMIT),
        rollout=dict(steps_per_iteration=envs * steps, spread_episodes=spread),
        normalize=dict(observations=False, rewards=False),
    )
    collector, policy, normalizer = collector_for(settings)
    found = []
    for iteration in range(iterations):
        collector.restart(iteration)
        found.append(collector.collect(policy, normalizer, iteration))
    collector.close()
    return found


@pytest.mark.parametrize(("backend", "asynchronous"), BACKENDS)
def test_first_episodes_end_one_after_another_and_later_ones_at_the_limit(backend, asynchronous):
    for rollout in rollouts(backend, asynchronous):
        for i in range(ENVS):
            first = LIMIT * (i + 1) // ENVS
            ends = np.flatnonzero(rollout.truncated[:, i]).tolist()
            assert ends == [first - 1, *range(first + LIMIT, 50, LIMIT + 1)]  # a slot between them only resets
            assert np.flatnonzero(~rollout.valid[:, i]).tolist() == [t + 1 for t in ends if t + 1 < 50]
        assert not rollout.terminated.any()


@pytest.mark.parametrize(("backend", "asynchronous"), BACKENDS)
def test_a_cut_episode_begins_anew(backend, asynchronous):
    rollout = rollouts(backend, asynchronous, 1)[0]
    for i in range(ENVS):
        begins = LIMIT * (i + 1) // ENVS + 1
        if begins < 50:
            assert rollout.episode_steps[begins, i] == 0
            jump = np.abs(rollout.raw_observations[begins, i] - rollout.raw_observations[begins - 1, i]).max()
            smooth = np.abs(np.diff(rollout.raw_observations[1:5, i], axis=0)).max()
            assert jump > smooth


def test_cut_episodes_are_not_reported():
    rollout = rollouts("gymnasium", False, 1)[0]
    assert rollout.episode_lengths and set(rollout.episode_lengths) == {LIMIT}


def test_an_episode_that_ends_before_it_is_cut_is_not_cut_later():
    """Random pushes let a cart-pole fall after about 20 steps; the limit of the first episode is that of no other."""
    for backend in ("gymnasium", "envpool"):
        rollout = rollouts(backend, False, 1, env_id="CartPole-v1", steps=200)[0]
        for i in range(ENVS):
            ends = np.flatnonzero(rollout.terminated[:, i] | rollout.truncated[:, i])
            assert ends[0] < LIMIT * (i + 1) // ENVS
            lengths = np.diff(ends) - 1
            assert all(length == LIMIT for length, t in zip(lengths, ends[1:], strict=True) if rollout.truncated[t, i])


def test_more_environments_than_steps_of_an_episode():
    rollout = rollouts("gymnasium", False, 1, envs=50, steps=4)[0]
    assert rollout.truncated[0, :3].all() and not rollout.truncated[0, 4:].any()


def test_without_the_option_all_episodes_end_together():
    rollout = rollouts("envpool", False, 1, spread=False)[0]
    assert rollout.truncated[LIMIT - 1].all() and rollout.truncated.sum() == 2 * ENVS


def test_without_a_time_limit_it_is_refused():
    settings = from_keywords(
        env=dict(id="environments:counting", num_envs=2),
        rollout=dict(steps_per_iteration=8, spread_episodes=True),
    )
    collector, policy, normalizer = collector_for(settings)
    with pytest.raises(UserError, match=r"rollout.spread_episodes: env.id=environments:counting has no time limit"):
        collector.collect(policy, normalizer, 0)
