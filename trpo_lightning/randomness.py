"""One seed, many independent streams: every random number derives from (seed, stream, iteration, index)."""

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
