"""Built-in policies that know their Jacobian, for the Fisher-vector products of an update."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trpo_lightning.policies.convolutional import ImageChain, chain_of
from trpo_lightning.policies.distributions import Distribution, Gaussian
from trpo_lightning.policies.perceptron import Perceptron
from trpo_lightning.policies.policy import BernoulliPolicy, CategoricalPolicy, GaussianPolicy, Policy
from trpo_lightning.policies.sequences import Observations

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

    def __init__(self, policy: Policy, chain: Perceptron | ImageChain, own: Tensor, observations: Tensor) -> None:
        self._policy, self._chain, self._own = policy, chain, own
        self._inputs = chain.forward(chain.native(observations))
        distribution = self._distribution(chain.tensor(self._inputs[-1]), own)
        self.tensors, self.fisher_product = distribution.tensors, distribution.fisher_product

    def push(self, v: Tensor) -> tuple[Tensor, ...]:
        """J v for `v` `[P]`: tangents of `tensors`."""
        v_own, v_network = v.split([len(self._own), self._chain.size])
        own = [v_own.expand_as(tensor) for tensor in self.tensors[1:]]
        return self._chain.tensor(self._chain.push(self._inputs, v_network)), *own

    def pull(self, cotangents: tuple[Tensor, ...]) -> Tensor:
        """J'u `[P]` for cotangents of `tensors`."""
        outputs, *own = cotangents
        return self._pull(outputs, *(cotangent.sum(0) for cotangent in own))

    def gradient(self, value: Callable[[Distribution], Tensor]) -> Tensor:
        """The gradient `[P]` in theta of a number that the distributions give; autograd ends at their parameters."""
        outputs, own = self.tensors[0].detach().requires_grad_(), self._own.detach().requires_grad_()
        inputs = (outputs, own) if len(own) else (outputs,)
        return self._pull(*torch.autograd.grad(value(self._distribution(outputs, own)), inputs))

    def _distribution(self, outputs: Tensor, own: Tensor) -> Distribution:
        return DISTRIBUTIONS[type(self._policy)](self._policy, outputs, own)

    def _pull(self, outputs: Tensor, own: Tensor | None = None) -> Tensor:
        """J'u for cotangents of the network's outputs `[B, M]` and, summed over the rows, of the own parameters."""
        product = outputs.new_empty(len(self._own) + self._chain.size)
        product_own, product_network = product.split([len(self._own), self._chain.size])
        if own is not None:
            product_own.copy_(own)
        self._chain.pull(self._inputs, self._chain.native(outputs), self._chain.views(product_network))
        return product


def linearized(policy: Policy, theta: Tensor, observations: Observations) -> LinearizedPolicy | None:
    """`policy` at `theta` `[P]` for observations `[B, *O]`; None unless it is a built-in policy without a memory."""
    parts = _parts(policy, theta)
    if parts is None or not isinstance(observations, Tensor):
        return None
    return LinearizedPolicy(policy, *parts, observations)


def evaluator(policy: Policy, theta: Tensor) -> Callable[[Observations], Any]:
    """As `policy.at` with `theta` `[P]`, from observations to distributions, but without autograd."""
    parts = _parts(policy, theta)

    def evaluate(observations: Observations) -> Any:
        if parts is None or not isinstance(observations, Tensor):
            return policy.at(theta, observations)
        chain, own = parts
        return DISTRIBUTIONS[type(policy)](policy, chain.outputs(chain.native(observations)), own)

    return evaluate


def _parts(policy: Policy, theta: Tensor) -> tuple[Perceptron | ImageChain, Tensor] | None:
    """The derivatives of the policy's network, and its own parameters, at `theta`."""
    if type(policy) not in DISTRIBUTIONS:
        return None
    size = sum(parameter.numel() for parameter in policy.network.parameters())
    own, network = theta.detach().split([len(theta) - size, size])
    chain = chain_of(policy.network, network)
    return None if chain is None else (chain, own)
