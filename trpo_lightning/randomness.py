"""One seed, many independent streams: every random number derives from (seed, stream, iteration, index).

The global generators of Python, NumPy and torch are left to third-party code: this package never draws from them, and
makes sure that an environment that does gets the same numbers every time the same run is repeated.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """The purpose of a stream of random numbers. Results depend on these values: never reuse or renumber one."""

    POLICY_INIT = 0
    VALUE_INIT = 1
    ENVIRONMENT = 2
    ACTION_NOISE = 3
    FISHER_SUBSET = 4
    VALUE_FIT = 5
    EVALUATION_ENVIRONMENT = 6
    EVALUATION_NOISE = 7
    POPULATION = 8
    ROLLOUT_SET = 9
    BRANCH_NOISE = 10
    BRANCH_ENVIRONMENT = 11
    GLOBAL = 12
    EVALUATION_GLOBAL = 13


def numpy_generator(seed: int, stream: Stream, iteration: int = 0, index: int = 0) -> np.random.Generator:
    """Return an independent NumPy generator for one (seed, stream, iteration, global environment index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, int(stream), iteration, index))))


def torch_generator(seed: int, stream: Stream, iteration: int = 0) -> torch.Generator:
    """Return an independent torch generator (on the CPU) for one (seed, stream, iteration)."""
    state = np.random.SeedSequence((seed, int(stream), iteration)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def environment_seed(seed: int, stream: Stream, iteration: int, index: int) -> int:
    """Return a seed in `[0, 2**31)`, the range that both gymnasium and EnvPool accept."""
    state = np.random.SeedSequence((seed, int(stream), iteration, index)).generate_state(1, np.uint32)
    return int(state[0]) >> 1


def seed_global_generators(seed: int, stream: Stream, iteration: int = 0, index: int = 0) -> None:
    """Seed the generators of `random`, `numpy.random` and torch, for third-party code."""
    words = np.random.SeedSequence((seed, int(stream), iteration, index)).generate_state(4, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


@contextmanager
def global_generators(seed: int, stream: Stream, iteration: int = 0, index: int = 0) -> Iterator[None]:
    """Inside the block, global generators depend on the arguments only; afterwards they resume as if it never ran."""
    before = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    seed_global_generators(seed, stream, iteration, index)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
