"""How long a run takes to a return: where the level is reached, and runs that are stopped there."""

import pytest

from trpo_lightning.benchmark import time_to_return as subject
from trpo_lightning.benchmark.bench import Bench
from trpo_lightning.benchmark.time_to_return import Arrival, Progress, _episodes, arrival


def path(means, episodes=10.0):
    return [Progress(i + 1.0, 100.0 * (i + 1), episodes, mean) for i, mean in enumerate(means)]


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (path([0, 5, 20, 20]), Arrival(4.0, 400.0, True)),  # 20 episodes: the last two points
        (path([0, 5, 35, 0]), Arrival(3.0, 300.0, True)),
        (path([20, 0, 0]), Arrival(3.0, 300.0, False)),  # ten episodes are not enough
        (path([0.0] * 30 + [20.0] * 20, episodes=1.0), Arrival(50.0, 5000.0, True)),
        (path([20.0] * 5, episodes=3.0), Arrival(5.0, 500.0, False)),
        ([], Arrival(0.0, 0.0, False)),
    ],
)
def test_the_level_is_reached_by_the_mean_of_twenty_episodes(progress, expected):
    assert arrival(progress, 20.0) == expected


def test_episodes_of_a_peer_are_read_while_it_writes(tmp_path):
    file = tmp_path / "episodes.csv"
    assert _episodes(file) == []
    file.write_text("0.5,100,7.5\n1.0,220,8.0\n1.2,3")
    assert _episodes(file) == [Progress(0.5, 100.0, 1.0, 7.5), Progress(1.0, 220.0, 1.0, 8.0)]


def test_a_run_stops_where_it_arrives_or_at_its_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "LEVELS", {"CartPole-v1": 30.0})
    monkeypatch.setattr(subject, "QUIET", {"evaluation.every": 0, "tracking.wandb": "disabled"})
    monkeypatch.setattr(subject, "is_there", lambda bench, peer: False)
    told = []
    bench = Bench([], [], [1], return_steps=500_000, return_seeds=1, folder=tmp_path, say=told.append)
    bench.peer_environments = ["CartPole-v1"]
    seconds, steps = subject.time_to_return(bench)
    assert (seconds.subject, seconds.unit, steps.unit) == ("CartPole-v1 to 30", "s", "steps")
    assert 0 < steps.values[0] < 500_000 and seconds.values[0] > 0 and not bench.notes
    monkeypatch.setattr(subject, "LEVELS", {"CartPole-v1": 600.0})
    bench.return_steps = 4096
    _, steps = subject.time_to_return(bench)
    assert 4096 <= steps.values[0] < 2 * 4096 and "1 of 1 runs of ours, defaults did not get there" in bench.notes[0]
