"""Streams of random numbers: reproducible, and independent of one another."""

import random

import numpy as np
import torch

from trpo_lightning.randomness import Stream, environment_seed, numpy_generator, torch_generator

KEYS = [
    (seed, stream, iteration, index)
    for seed in (0, 1, 2**63 - 1)
    for stream in Stream
    for iteration in (0, 1, 7)
    for index in (0, 1, 63)
]


def test_the_numbers_of_streams_are_part_of_results_and_do_not_move():
    assert {stream.name: int(stream) for stream in Stream} == {
        **{"POLICY_INIT": 0, "VALUE_INIT": 1, "ENVIRONMENT": 2, "ACTION_NOISE": 3, "FISHER_SUBSET": 4},
        **{"VALUE_FIT": 5, "EVALUATION_ENVIRONMENT": 6, "EVALUATION_NOISE": 7, "POPULATION": 8},
        **{"ROLLOUT_SET": 9, "BRANCH_NOISE": 10, "BRANCH_ENVIRONMENT": 11},
        **{"GLOBAL": 12, "EVALUATION_GLOBAL": 13},
    }


def test_the_same_key_gives_the_same_numbers():
    for key in KEYS:
        assert numpy_generator(*key).random(4).tolist() == numpy_generator(*key).random(4).tolist()
        assert environment_seed(*key) == environment_seed(*key)
        assert torch_generator(*key[:3]).initial_seed() == torch_generator(*key[:3]).initial_seed()


def test_each_part_of_the_key_gives_other_numbers():
    assert len({numpy_generator(*key).bytes(16) for key in KEYS}) == len(KEYS)
    assert len({torch_generator(*key[:3]).initial_seed() for key in KEYS}) == len({key[:3] for key in KEYS})


def test_environment_seeds_are_valid_and_differ():
    seeds = [environment_seed(*key) for key in KEYS]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == len(KEYS)
    assert max(seeds) > 2**30  # the whole range is used


def test_streams_are_uncorrelated():
    rows = np.stack(
        [numpy_generator(0, Stream.ACTION_NOISE, it, i).standard_normal(2000) for it in (0, 1) for i in range(8)]
    )
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_torch_generators_of_neighbouring_seeds_are_uncorrelated():
    rows = torch.stack([torch.randn(2000, generator=torch_generator(s, Stream.VALUE_FIT, 0)) for s in range(8)])
    assert float((torch.corrcoef(rows) - torch.eye(8)).abs().max()) < 5 / np.sqrt(2000)


def test_global_generators_are_not_drawn_from():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for key in KEYS:
        numpy_generator(*key).random(3)
        environment_seed(*key)
        torch.rand(3, generator=torch_generator(*key[:3]))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
