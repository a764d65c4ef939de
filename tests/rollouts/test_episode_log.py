import numpy as np
import pytest

from trpo_lightning.rollouts.episode_log import EpisodeLog, EpisodeSums


def simulate(log, lengths, steps):
    """Environments whose k-th episode has `lengths[i][k]` steps of reward 1, ends without resets between them."""
    num_envs = len(lengths)
    sums, valid = EpisodeSums(range(num_envs)), np.ones(num_envs, dtype=bool)
    left = np.array([row[0] for row in lengths])
    count = np.zeros(num_envs, dtype=int)
    found = []
    for t in range(steps):
        left -= 1
        ended = left == 0
        reported = log.report(sums.add(t, np.ones(num_envs), valid, ended))
        found.append([(episode.total, episode.length) for episode in reported])
        count += ended
        left = np.where(ended, [lengths[i][min(count[i], len(lengths[i]) - 1)] for i in range(num_envs)], left)
    return found


def test_first_episodes_are_reported_together_and_later_ones_as_they_end():
    found = simulate(EpisodeLog(2, hold=True), [[2, 2, 9], [5, 1, 9]], 9)
    # environment 0 ends at 2 and 4 (left out), environment 1 at 5 and 6
    assert found == [[]] * 4 + [[(2.0, 2), (5.0, 5)], [(1.0, 1)], [], [], []]


def test_nothing_is_held_without_a_time_limit():
    found = simulate(EpisodeLog(2, hold=False), [[2, 2, 9], [5, 1, 9]], 6)
    assert found == [[], [(2.0, 2)], [], [(2.0, 2)], [(5.0, 5)], [(1.0, 1)]]


def test_invalid_slots_do_not_lengthen_an_episode():
    sums = EpisodeSums(range(3, 4))
    yes, no = np.array([True]), np.array([False])
    assert sums.add(0, np.array([3.0]), yes, no) == []
    assert sums.add(1, np.array([0.0]), no, no) == []
    assert sums.add(2, np.array([4.0]), yes, yes) == [(2, 3, 7.0, 2)]
    assert sums.add(3, np.array([1.0]), yes, yes) == [(3, 3, 1.0, 1)]


@pytest.mark.parametrize("hold", [True, False])
def test_the_mean_of_the_first_report_is_unbiased_only_when_episodes_are_held(hold):
    rng, reported = np.random.default_rng(0), []
    for _ in range(150):
        lengths = rng.choice([10, 1000], size=(8, 120))  # mean 505
        found = simulate(EpisodeLog(8, hold), lengths.tolist(), 1000)
        first = next(episodes for episodes in found if episodes)
        reported.append(np.mean([length for _, length in first]))
    error = np.std(reported) / len(reported) ** 0.5
    assert (abs(np.mean(reported) - 505) < 4 * error) == hold


def test_held_and_dropped_together_are_what_is_reported_without_holding():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 30, size=(5, 200)).tolist()
    held = [e for step in simulate(EpisodeLog(5, True), lengths, 300) for e in step]
    free = [e for step in simulate(EpisodeLog(5, False), lengths, 300) for e in step]
    assert held[:5] == sorted((float(row[0]), row[0]) for row in lengths)
    assert held[-50:] == free[-50:] and len(held) < len(free)


def test_first_episodes_that_are_skipped_are_in_no_report():
    found = simulate(EpisodeLog(2, hold=True, skip_first=True), [[2, 3, 9], [4, 1, 9]], 16)
    assert [e for step in found for e in step] == [(3.0, 3), (1.0, 1), (9.0, 9), (9.0, 9)]
    free = simulate(EpisodeLog(2, hold=False, skip_first=True), [[2, 3, 9], [4, 1, 9]], 16)
    assert [e for step in free for e in step] == [(3.0, 3), (1.0, 1), (9.0, 9), (9.0, 9)]
