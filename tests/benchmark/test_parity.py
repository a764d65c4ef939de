"""The comparison with another library, here an invented one: advantages from loops, updates from dense matrices."""

import functools

import numpy as np
import pytest
import torch
from dense_trust_region import EXACT, dense_update, problem

from trpo_lightning.benchmark import comparisons
from trpo_lightning.benchmark.bench import Bench
from trpo_lightning.benchmark.parity import (
    ADVANTAGES,
    UPDATE,
    advantage_difference,
    parity,
    update_difference,
)
from trpo_lightning.benchmark.processes import MeasurementError
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.settings import RunSettings, updated

EXACTLY = {f"rule.{name}": value for name, value in {**EXACT, "cg_iterations": 60}.items()}  # for 28 parameters
SETTINGS = updated(RunSettings(), {"policy.hidden_sizes": [4], "rule.kl_over_dimensions": "mean", **EXACTLY})
T, N, ITERATIONS = 15, 2, 3


@functools.cache
def _other_library():
    """A batch `[T, N]` whose advantages are a loop's and whose update is the dense one's."""
    rng = np.random.default_rng(0)
    policy, batch = problem("gaussian", rows=T * N)
    rewards, values, last_values = rng.normal(size=(T, N)), rng.normal(size=(T, N)), rng.normal(size=N)
    starts, last_dones = rng.random((T, N)) < 0.2, np.array([True, False])
    advantages = np.zeros((T, N))
    for n in range(N):
        later = 0.0
        for t in reversed(range(T)):
            last = t == T - 1
            going = 1.0 - (last_dones[n] if last else starts[t + 1, n])
            delta = rewards[t, n] + 0.99 * going * (last_values[n] if last else values[t + 1, n]) - values[t, n]
            later = delta + 0.99 * 0.95 * going * later
            advantages[t, n] = later
    rows = advantages.reshape(-1)
    batch.advantages = torch.from_numpy((rows - rows.mean()) / rows.std(ddof=1))
    after, _ = dense_update(policy, batch, SETTINGS.rule)
    return {
        "observations": batch.observations.numpy().reshape(T, N, -1),
        "actions": batch.actions.numpy().reshape(T, N, -1),
        "rewards": rewards,
        "values": values,
        "advantages": advantages,
        "episode_starts": starts.astype(np.float32),
        "last_values": last_values,
        "last_dones": last_dones,
        "before": parameter_vector(policy).numpy().astype(np.float32),
        "after": after.numpy().astype(np.float32),
    }


def other_library():
    return dict(_other_library())


def test_what_is_the_same_has_no_difference():
    theirs = other_library()
    assert advantage_difference(theirs, SETTINGS) < 1e-12
    assert update_difference(theirs, SETTINGS) < 1e-3


@pytest.mark.parametrize("name", ["rewards", "values", "last_values", "episode_starts", "last_dones"])
def test_other_advantages_are_seen(name):
    theirs = other_library()
    theirs[name] = ~theirs[name] if name == "last_dones" else theirs[name] + 1.0
    assert advantage_difference(theirs, SETTINGS) > 0.1


def test_other_updates_are_seen():
    theirs = other_library()
    before, after = theirs["before"], theirs["after"]
    for share in (-1.0, 0.5, 2.0):
        wrong = {**theirs, "after": before + share * (after - before)}
        assert update_difference(wrong, SETTINGS) == pytest.approx(abs(1.0 - share) / abs(share), rel=1e-2)
    assert update_difference({**theirs, "after": before}, SETTINGS) == float("inf")
    shuffled = {**theirs, "actions": theirs["actions"][::-1].copy()}
    assert update_difference(shuffled, SETTINGS) > 0.1


def bench(tmp_path, *env_ids):
    env_ids = list(env_ids or ("Pendulum-v1",))
    return Bench(env_ids, env_ids, [1], folder=tmp_path, say=lambda line: None)


def test_every_iteration_is_a_value_and_the_largest_is_judged(tmp_path, monkeypatch):
    commands = []

    def measure(program, threads, folder):
        commands.append(program)
        if "MountainCarContinuous-v0" in program:
            raise MeasurementError("it crashed")
        batches = program[program.index("--batches") + 1]
        for i in range(1, ITERATIONS + 1):
            theirs = other_library()
            if i == 2:
                theirs["after"] = theirs["before"]
            np.savez(f"{batches}/{i}.npz", **theirs)
        return {"versions": {}}

    monkeypatch.setattr(comparisons.peer_environment, "install", lambda peer, folder: None)
    monkeypatch.setattr("trpo_lightning.benchmark.parity.ITERATIONS", ITERATIONS)
    monkeypatch.setattr(
        "trpo_lightning.benchmark.parity.LIKE_SB3", {**comparisons.LIKE_SB3, "policy.hidden_sizes": [4]}
    )
    monkeypatch.setattr(comparisons, "measure", measure)
    where = bench(tmp_path, "Pendulum-v1", "MountainCarContinuous-v0", "CartPole-v1")
    results = {result.quantity: result for result in parity(where)}
    assert {name: len(result.values) for name, result in results.items()} == {
        ADVANTAGES: ITERATIONS,
        UPDATE: ITERATIONS,
        f"{ADVANTAGES}, at most": 1,
        f"{UPDATE}, at most": 1,
    }
    assert results[f"{ADVANTAGES}, at most"].verdict == "met"
    assert results[UPDATE].median < 1.0 and results[f"{UPDATE}, at most"].values == (float("inf"),)
    assert len(commands) == 2 and commands[0][commands[0].index("--iterations") + 1] == str(ITERATIONS)
    assert where.notes == [
        "sb3-contrib TRPO was not compared on MountainCarContinuous-v0: it crashed",
        "sb3-contrib TRPO was not compared on CartPole-v1: only policies of continuous actions are compared",
    ]


def test_a_library_that_is_not_there_is_noted(tmp_path, monkeypatch):
    def install(peer, folder):
        raise MeasurementError("no such version")

    monkeypatch.setattr(comparisons.peer_environment, "install", install)
    where = bench(tmp_path)
    assert parity(where) == []
    assert where.notes == ["sb3-contrib TRPO is left out, it could not be installed: no such version"]
