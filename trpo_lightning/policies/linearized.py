"""Perceptron policies that know their Jacobian, for the Fisher-vector products of an update."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trpo_lightning.policies.distributions import Distribution, Gaussian
from trpo_lightning.policies.perceptron import Perceptron
from trpo_lightning.policies.policy import BernoulliPolicy, CategoricalPolicy, GaussianPolicy, Policy
from trpo_lightning.policies.sequences import Observations, Sequences

DISTRIBUTIONS: dict[type[Policy], Callable[[Any, Tensor, Tensor], Distribution]] = {
    GaussianPolicy: lambda policy, outputs, own: Gaussian(outputs, own.expand_as(outputs)),
    CategoricalPolicy: lambda policy, outputs, own: policy.distribution(outputs),
    BernoulliPolicy: lambda policy, outputs, own: policy.distribution(outputs),
}
"""From a policy, its network's outputs `[B, M]` and its own parameters, which come before the network's in theta.

The first of a distribution's `tensors` holds the outputs; a second one repeats the policy's own parameters in each row.
"""


class LinearizedPolicy:
    """The distributions of rows at a fixed theta `[P]`, and J of their `tensors` in it, without autograd.

    It implements `Linearized` of `numerics/curvature.py`.
    """

    def __init__(self, policy: Policy, perceptron: Perceptron, own: Tensor, observations: Tensor) -> None:
        self._perceptron, self._own = perceptron, len(own)
        self._inputs = perceptron.forward(perceptron.native(observations))
        distribution = DISTRIBUTIONS[type(policy)](policy, perceptron.tensor(self._inputs[-1]), own)
        self.tensors, self.fisher_product = distribution.tensors, distribution.fisher_product

    def push(self, v: Tensor) -> tuple[Tensor, ...]:
        """J v for `v` `[P]`: tangents of `tensors`."""
        own = [v[: self._own].expand_as(tensor) for tensor in self.tensors[1:]]
        return self._perceptron.tensor(self._perceptron.push(self._inputs, v[self._own :])), *own

    def pull(self, cotangents: tuple[Tensor, ...]) -> Tensor:
        """J'u `[P]` for cotangents of `tensors`."""
        outputs, *own = cotangents
        product = outputs.new_empty(self._own + self._perceptron.size)
        for cotangent in own:
            torch.sum(cotangent, 0, out=product[: self._own])
        out = self._perceptron.views(product[self._own :])
        self._perceptron.pull(self._inputs, self._perceptron.native(outputs), out)
        return product


def linearized(policy: Policy, theta: Tensor, observations: Observations) -> LinearizedPolicy | None:
    """`policy` at `theta` `[P]` for observations `[B, *O]`; None unless it is a built-in policy of a perceptron."""
    size = sum(parameter.numel() for parameter in policy.network.parameters())
    own, network = theta.detach().split([len(theta) - size, size])
    perceptron = Perceptron.of(policy.network, network) if type(policy) in DISTRIBUTIONS else None
    return (
        None
        if perceptron is None or isinstance(observations, Sequences)
        else LinearizedPolicy(policy, perceptron, own, observations)
    )
