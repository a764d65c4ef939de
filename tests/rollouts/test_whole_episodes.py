"""The 2015 paper's batches: whole episodes, at least so many steps of them in each environment."""

import numpy as np
import pytest
from environments import TERMINATED, TRUNCATED, collector_for
from test_transitions import settings_for

from trpo_lightning.errors import UserError


def whole(schedule, *, num_envs=3, steps=8, **more):
    settings = settings_for(schedule, num_envs=num_envs, steps=steps, **more)
    settings.rollout.whole_episodes = True
    settings.env.max_episode_steps = 20
    return settings


def episodes(rollout, i):
    """(length, ends) of environment i's episodes, by walking its slots."""
    found, length = [], 0
    for t in range(len(rollout.valid)):
        if rollout.valid[t, i]:
            assert rollout.episode_steps[t, i] == length
            length += 1
            if rollout.terminated[t, i] or rollout.truncated[t, i]:
                found.append(length)
                length = 0
    assert length == 0  # no part of an episode
    return found


@pytest.mark.parametrize("lengths", [[3], [1], [8], [9], [3, 1, 4, 7], [20]])
@pytest.mark.parametrize("steps", [1, 8])
def test_every_environment_ends_with_the_first_episode_that_fills_its_share(lengths, steps):
    collector, policy, normalizer = collector_for(whole(dict(lengths=lengths, ends=[TERMINATED]), steps=steps))
    for iteration in range(3):
        rollout = collector.collect(policy, normalizer, iteration)
        found = [episodes(rollout, i) for i in range(3)]
        for each in found:
            assert sum(each) >= steps > sum(each[:-1])
        assert rollout.env_steps == sum(map(sum, found))
        assert sorted(rollout.episode_lengths) == sorted(length for each in found for length in each)
        assert (rollout.raw_observations[0, :, 2] == 0).all()  # each iteration begins with episodes of its own
        assert rollout.valid[-1].any() and len(rollout.valid) == len(rollout.observations) - 1
        assert rollout.rewards[~rollout.valid].tolist() == [0.0] * int((~rollout.valid).sum())
    collector.close()


def test_iterations_go_on_in_the_environments_own_random_numbers():
    settings = whole(dict(lengths=[4], ends=[TRUNCATED]))
    settings.env.id, settings.env.kwargs = "CartPole-v1", {}
    collector, policy, normalizer = collector_for(settings)
    first = [collector.collect(policy, normalizer, i).raw_observations[0] for i in range(3)]
    assert len(np.unique(np.concatenate(first), axis=0)) == 9
    collector.restart(1)
    again = collector.collect(policy, normalizer, 1).raw_observations[0]
    assert not np.array_equal(again, first[1])  # a barrier seeds anew, from (seed, iteration)


def test_without_a_time_limit_it_is_refused():
    settings = whole(dict(lengths=[4], ends=[TERMINATED]))
    settings.env.max_episode_steps = None
    collector, policy, normalizer = collector_for(settings)
    with pytest.raises(UserError, match=r"rollout\.whole_episodes: .*set env\.max_episode_steps"):
        collector.collect(policy, normalizer, 0)
