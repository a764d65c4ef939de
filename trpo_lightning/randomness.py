"""One seed, many independent streams: every random number derives from (seed, stream, iteration, index).

The generators that Python, NumPy and torch share among all code of a process are for third-party code: this package
never draws from them, and sees to it that an environment which does finds the same numbers in the same run.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a stream of random numbers is for. The numbers are part of results: never reuse or renumber one."""

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
    """An independent NumPy generator for one (seed, stream, iteration, global environment index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, int(stream), iteration, index))))


def torch_generator(seed: int, stream: Stream, iteration: int = 0) -> torch.Generator:
    """An independent torch generator (on the CPU) for one (seed, stream, iteration)."""
    state = np.random.SeedSequence((seed, int(stream), iteration)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def environment_seed(seed: int, stream: Stream, iteration: int, index: int) -> int:
    """A seed in `[0, 2**31)`, what both gymnasium and EnvPool accept."""
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
    """Inside the block the global generators depend on the arguments only; afterwards they go on as if it was not."""
    before = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    seed_global_generators(seed, stream, iteration, index)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
