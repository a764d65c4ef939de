"""What a rollout holds, against a slow replay of each environment on its own."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from environments import BOTH, TERMINATED, TRUNCATED, collector_for, counting_schedule

from trpo_lightning.randomness import Stream, environment_seed
from trpo_lightning.settings import from_keywords

RAW = {"observations": False, "rewards": False}
GAMMA = 0.9

SCHEDULES = {
    "mixed": dict(lengths=[3, 1, 4, 7], ends=[TERMINATED, TRUNCATED, BOTH]),
    "length_one": dict(lengths=[1], ends=[TERMINATED, TRUNCATED]),
    "always_truncated": dict(lengths=[5], ends=[TRUNCATED]),
    "always_terminated": dict(lengths=[4], ends=[TERMINATED]),
    "never_in_the_rollout": dict(lengths=[10_000], ends=[TERMINATED]),
}


def settings_for(schedule, *, num_envs=3, steps=8, asynchronous=False, seed=5):
    return from_keywords(
        env=dict(
            id="environments:counting",
            num_envs=num_envs,
            backend="gymnasium",
            asynchronous=asynchronous,
            kwargs=schedule,
        ),
        rollout=dict(steps_per_iteration=num_envs * steps),
        normalize=RAW,
        policy=dict(initial_log_std=0.5),
        gamma=GAMMA,
        seed=seed,
    )


@dataclass
class Replay:
    """One environment, followed slot by slot from its schedule."""

    seed: int
    schedule: dict
    episode: int = 0
    count: int = 0
    resetting: bool = False
    action: tuple = (0.0, 0.0)
    rewards: list = field(default_factory=list)

    def observation(self):
        return np.array([self.seed, self.episode, self.count, *self.action], dtype=np.float64)

    def slot(self, action):
        """What is expected of the next slot, and of the observation after it."""
        before = self.observation()
        ended = None
        if self.resetting:
            self.episode, self.count, self.action, self.resetting = self.episode + 1, 0, (0.0, 0.0), False
            self.rewards = []
            expected = dict(valid=False, terminated=False, truncated=False, reward=0.0, running=0.0)
        else:
            self.count += 1
            self.action = tuple(np.clip(action, -1.0, 1.0))
            self.rewards.append(100.0 * (self.episode + 1) + self.count)
            length, end = counting_schedule(**self.schedule, episode=self.episode)
            over = self.count == length
            running = sum(r * GAMMA**k for k, r in enumerate(reversed(self.rewards)))
            expected = dict(
                valid=True,
                terminated=over and end in (TERMINATED, BOTH),
                truncated=over and end == TRUNCATED,
                reward=self.rewards[-1],
                running=running,
            )
            if over:
                self.resetting = True
                ended = (sum(self.rewards), len(self.rewards))
        return before, self.observation(), expected, ended


def replays(settings, iteration):
    kwargs = settings.env.kwargs
    return [
        Replay(environment_seed(settings.seed, Stream.ENVIRONMENT, iteration, i), kwargs)
        for i in range(settings.env.num_envs)
    ]


def assert_rollout_is(rollout, followed):
    """Compare all slots of a rollout with the replays, which move on."""
    steps, num_envs = rollout.valid.shape
    ends = []
    for t in range(steps):
        for i in range(num_envs):
            before, after, expected, ended = followed[i].slot(rollout.actions[t, i])
            np.testing.assert_array_equal(rollout.raw_observations[t, i], before)
            np.testing.assert_array_equal(rollout.observations[t, i], before.astype(np.float32))
            np.testing.assert_array_equal(rollout.observations[t + 1, i], after.astype(np.float32))
            assert rollout.valid[t, i] == expected["valid"]
            assert rollout.terminated[t, i] == expected["terminated"]
            assert rollout.truncated[t, i] == expected["truncated"]
            assert rollout.rewards[t, i] == expected["reward"]
            if expected["valid"]:
                assert rollout.running_returns[t, i] == pytest.approx(expected["running"], rel=1e-12)
            if ended:
                ends.append(ended)
    assert list(zip(rollout.episode_returns, rollout.episode_lengths, strict=True)) == ends
    assert rollout.env_steps == sum(rollout.valid.reshape(-1).tolist())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_rollouts_equal_a_replay_of_each_environment_over_iteration_boundaries(name, steps, num_envs):
    settings = settings_for(SCHEDULES[name], num_envs=num_envs, steps=steps)
    collector, policy, normalizer = collector_for(settings)
    followed = replays(settings, 0)
    for iteration in range(5):
        assert_rollout_is(collector.collect(policy, normalizer, iteration), followed)
    collector.close()


def test_processes_give_the_same_rollouts_as_a_loop():
    rollouts = []
    for asynchronous in (False, True):
        settings = settings_for(SCHEDULES["mixed"], asynchronous=asynchronous)
        collector, policy, normalizer = collector_for(settings)
        followed = replays(settings, 0)
        for iteration in range(2):
            rollouts.append(collector.collect(policy, normalizer, iteration))
            assert_rollout_is(rollouts[-1], followed)
        collector.close()
    for loop, processes in zip(rollouts[:2], rollouts[2:], strict=True):
        np.testing.assert_array_equal(loop.observations, processes.observations)
        np.testing.assert_array_equal(loop.actions, processes.actions)


def test_an_episode_that_ends_on_the_last_slot_resets_in_the_first_of_the_next_rollout():
    settings = settings_for(SCHEDULES["always_truncated"], steps=5)
    collector, policy, normalizer = collector_for(settings)
    first = collector.collect(policy, normalizer, 0)
    second = collector.collect(policy, normalizer, 1)
    assert first.truncated[-1].all() and first.valid.all() and first.episode_lengths == [5, 5, 5]
    assert not second.valid[0].any() and second.valid[1:].all()
    assert (second.raw_observations[0, :, 2] == 5).all()  # still the old episode's last observation
    assert (second.raw_observations[1, :, 1] == 1).all() and (second.raw_observations[1, :, 2] == 0).all()
    assert second.episode_lengths == []


def test_all_environments_ending_at_once_leave_one_row_of_resets():
    settings = settings_for(SCHEDULES["always_terminated"], steps=10)
    collector, policy, normalizer = collector_for(settings)
    rollout = collector.collect(policy, normalizer, 0)
    assert (~rollout.valid).all(axis=1).tolist() == [False] * 4 + [True] + [False] * 4 + [True]
    assert rollout.env_steps == 24
    assert rollout.episode_lengths == [4] * 6
    assert rollout.episode_returns == [100 * 4 + 10.0] * 3 + [200 * 4 + 10.0] * 3


def test_episodes_of_length_one_waste_every_other_slot_and_no_more():
    collector, policy, normalizer = collector_for(settings_for(SCHEDULES["length_one"], steps=9))
    rollout = collector.collect(policy, normalizer, 0)
    assert rollout.valid[:, 0].tolist() == [True, False] * 4 + [True]
    assert rollout.terminated[:, 0].tolist() == [True, False, False, False] * 2 + [True]
    assert rollout.truncated[:, 0].tolist() == [False, False, True, False] * 2 + [False]


@pytest.mark.parametrize("at", [1, 2])
def test_restart_cuts_episodes_and_cut_ones_enter_no_statistics(at):
    settings = settings_for(dict(lengths=[11], ends=[TERMINATED]), steps=8)
    collector, policy, normalizer = collector_for(settings)
    for iteration in range(at):
        collector.collect(policy, normalizer, iteration)
    collector.restart(at)
    followed = replays(settings, at)
    cut = collector.collect(policy, normalizer, at)
    assert_rollout_is(cut, followed)
    assert cut.episode_returns == [] and (cut.raw_observations[0, :, 1:3] == 0).all()
    after = collector.collect(policy, normalizer, at + 1)
    assert_rollout_is(after, followed)
    assert after.episode_lengths == [11] * 3
    assert after.episode_returns == [100.0 * 11 + 66.0] * 3


def test_restart_gives_each_environment_a_new_seed_of_its_own():
    settings = settings_for(SCHEDULES["mixed"])
    collector, policy, normalizer = collector_for(settings)
    seeds = []
    for iteration in (0, 1, 2):
        collector.restart(iteration)
        seeds += collector.collect(policy, normalizer, iteration).raw_observations[0, :, 0].tolist()
    assert len(set(seeds)) == 9


def test_the_normalizer_sees_real_transitions_only():
    settings = settings_for(SCHEDULES["length_one"], steps=6)
    collector, policy, normalizer = collector_for(settings)
    normalizer.settings = from_keywords().normalize  # it collects statistics, the frozen ones are still 0 and 1
    rollout = collector.collect(policy, normalizer, 0)
    normalizer.merge(rollout.raw_observations[rollout.valid], rollout.running_returns[rollout.valid])
    # of each environment: the first observations of episodes 0, 1, 2; returns 101, 201, 301
    np.testing.assert_allclose(normalizer.observations.mean[1:], [1.0, 0.0, 0.0, 0.0], atol=1e-12)
    assert float(normalizer.observations.count) == float(normalizer.returns.count) == 9
    assert float(normalizer.returns.mean) == pytest.approx(201.0)
    assert float(normalizer.returns.std()) == pytest.approx(np.std([101.0, 201.0, 301.0]))


def test_rewards_of_the_batch_are_scaled_and_episode_returns_are_raw():
    settings = settings_for(SCHEDULES["always_terminated"])
    settings.normalize.rewards = True
    settings.normalize.reward_clip = 1e9
    collector, policy, normalizer = collector_for(settings)
    normalizer.merge(np.zeros((2, 5)), np.array([0.0, 8.0]))  # standard deviation 4
    rollout = collector.collect(policy, normalizer, 0)
    assert rollout.rewards[:4, 0].tolist() == [101 / 4, 102 / 4, 103 / 4, 104 / 4]
    assert rollout.rewards[4, 0] == 0.0
    assert rollout.episode_returns[0] == 410.0
    assert rollout.running_returns[1, 0] == pytest.approx(102 + GAMMA * 101)


def test_rewards_of_the_first_rollout_are_in_units_of_its_own_returns():
    settings = settings_for(SCHEDULES["mixed"])
    settings.normalize.rewards, settings.normalize.reward_clip = True, 1e9
    collector, policy, normalizer = collector_for(settings)
    raw_collector, _, raw_normalizer = collector_for(settings_for(SCHEDULES["mixed"]))
    seen = []
    for iteration in range(2):
        raw = raw_collector.collect(policy, raw_normalizer, iteration)
        scaled = collector.collect(policy, normalizer, iteration)
        if iteration == 0:
            seen = scaled.running_returns[scaled.valid]  # the second iteration is scaled by the first's alone
        np.testing.assert_allclose(scaled.rewards, raw.rewards / np.std(seen), rtol=1e-12)
        normalizer.merge(*scaled.statistics())
