"""Policies of perceptrons that know their Jacobian: what the Fisher-vector products of an update are made of."""

import torch
from torch import Tensor

from trpo_lightning.policies.perceptron import Perceptron
from trpo_lightning.policies.policy import BernoulliPolicy, CategoricalPolicy, GaussianPolicy, Policy

PARAMETERS_BESIDE: dict[type[Policy], tuple[str, ...]] = {
    GaussianPolicy: ("log_std",),
    CategoricalPolicy: (),
    BernoulliPolicy: (),
}
"""Policies whose distributions' first tensor is the network's outputs; the others are these, repeated in each row."""


class LinearizedPolicy:
    """The distributions of rows at a fixed theta `[P]`, and J of their `tensors` in it, without autograd.

    A `Linearized` of `numerics/curvature.py`.
    """

    def __init__(self, policy: Policy, perceptron: Perceptron, theta: Tensor, observations: Tensor) -> None:
        with torch.no_grad():
            distribution = policy.at(theta.detach(), observations).detach()
        self.tensors, self.fisher_product = distribution.tensors, distribution.fisher_product
        self._perceptron, self._inputs = perceptron, perceptron.forward(observations)
        self._sizes = [tensor.shape[1] for tensor in self.tensors[1:]]
        self._beside = sum(self._sizes)

    def push(self, v: Tensor) -> tuple[Tensor, ...]:
        """J v for `v` `[P]`."""
        rows = len(self._inputs[0])
        beside = [part.expand(rows, -1) for part in v[: self._beside].split(self._sizes)]
        return self._perceptron.push(self._inputs, v[self._beside :]), *beside

    def pull(self, cotangents: tuple[Tensor, ...]) -> Tensor:
        """J'u `[P]`."""
        outputs, *beside = cotangents
        product = outputs.new_empty(self._beside + self._perceptron.size)
        for part, cotangent in zip(product.split([*self._sizes, self._perceptron.size]), beside, strict=False):
            torch.sum(cotangent, 0, out=part)
        self._perceptron.pull(self._inputs, outputs, self._perceptron.views(product[self._beside :]))
        return product


def linearized(policy: Policy, theta: Tensor, observations: Tensor) -> LinearizedPolicy | None:
    """`policy` at `theta` `[P]` for observations `[B, *O]`; None for one of another kind, or of another network."""
    beside = PARAMETERS_BESIDE.get(type(policy))
    first = [name for name, _ in policy.named_parameters() if not name.startswith("network.")]
    if beside is None or tuple(first) != beside:
        return None
    own = sum(policy.get_parameter(name).numel() for name in first)  # of theta, before the network's
    perceptron = Perceptron.of(policy.network, theta[own:])
    return None if perceptron is None else LinearizedPolicy(policy, perceptron, theta, observations)
