"""What an iteration of many ranks takes, calculated from the costs of one and from the sizes of its all-reduces."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from trpo_lightning.values.network import SHARED_FROM

NUMBER = 4
"""Bytes of a parameter."""


@dataclass(frozen=True)
class Network:
    """Seconds that a message takes however small it is, and bytes that pass in a second."""

    latency: float
    bandwidth: float

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds of an all-reduce of `size` bytes: the faster of a ring and of recursive doubling.

        Ring: 2 (R - 1) messages of size / R. Doubling: log2 R messages of the whole size (Thakur et al. 2005).
        """
        if ranks == 1:
            return 0.0
        ring = 2 * (ranks - 1) * (self.latency + size / ranks / self.bandwidth)
        doubling = math.ceil(math.log2(ranks)) * (self.latency + size / self.bandwidth)
        return min(ring, doubling)

    def all_gather(self, size: float, ranks: int) -> float:
        """Seconds in which each of the ranks gets `size` bytes from all others, round a ring."""
        return (ranks - 1) * (self.latency + size / self.bandwidth)


@dataclass(frozen=True)
class Work:
    """An iteration's work.

    Args:
        seconds_per_step: What one rank computes for one of its own env steps, all phases together.
        policy: Parameters of the policy.
        value: Parameters of the value function.
        products: All-reduces of the policy's size: the gradient and the Fisher-vector products.
        epochs: Passes of the value function's fit over the batch.
        small: All-reduces of a few numbers.
        fit_per_step: Of the seconds of a step, those of the value function's fit.
        row: Numbers that the fit needs of a step, the observation and the target.
    """

    seconds_per_step: float
    policy: int
    value: int
    products: int = 12
    epochs: int = 10
    small: int = 40
    fit_per_step: float = 0.0
    row: int = 0

    def compute(self, steps: int) -> float:
        """Seconds that a rank computes for `steps` of its own."""
        return steps * self.seconds_per_step

    def communicate(self, network: Network, ranks: int, steps: int, minibatch: float) -> float:
        """Seconds in exchanges and waits, with `steps` and a share of `minibatch` rows of each minibatch on each rank.

        While minibatches of all ranks are small, the first rank alone fits the value function (`SHARED_FROM`).
        """
        told = self.products * network.all_reduce(NUMBER * self.policy, ranks)
        told += self.small * network.all_reduce(8.0, ranks)
        if minibatch * ranks >= SHARED_FROM:
            return told + self.epochs * math.ceil(steps / minibatch) * network.all_reduce(NUMBER * self.value, ranks)
        rows = network.all_gather(NUMBER * self.row * steps, ranks)
        return told + rows + network.all_reduce(NUMBER * self.value, ranks) + (ranks - 1) * self.fit_per_step * steps

    def efficiency(self, network: Network, ranks: int, steps: int, minibatch: float) -> float:
        """Share of the time that is computed: steps/s of R ranks over R times those of one."""
        computed = self.compute(steps)
        return computed / (computed + self.communicate(network, ranks, steps, minibatch))


def least_steps(efficiency: Callable[[int], float], wanted: float, most: int = 2**24) -> int | None:
    """The least power of two of steps on each rank with which the efficiency is as wanted; None if none is."""
    steps = 1
    while steps <= most:
        if efficiency(steps) >= wanted:
            return steps
        steps *= 2
    return None
