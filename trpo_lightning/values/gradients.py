"""Gradients of minibatch losses for a network with one output, written into a flat vector."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trpo_lightning.policies.networks import named_views
from trpo_lightning.policies.perceptron import ArrayLike, Perceptron

OutputGradient = Callable[[ArrayLike], ArrayLike]
"""From values `[B, 1]` to the loss's derivative in them, `[B, 1]`; it must not keep the values."""


class LossGradient(Protocol):
    """Writes dloss/dtheta `[P]` into a vector; theta `[P]` is read anew at each call."""

    def native(self, tensor: Tensor) -> ArrayLike:
        """A tensor in the form that `write` takes and passes to `output_gradient`."""
        ...

    def write(self, x: ArrayLike, output_gradient: OutputGradient) -> None:
        """Write the gradient for the rows `x` `[B, *O]`."""
        ...


def loss_gradient(network: nn.Module, theta: Tensor, gradient: Tensor) -> LossGradient:
    """The `LossGradient` of `network` at `theta` `[P]`, which writes into `gradient` `[P]`.

    For a multi-layer perceptron the chain rule is written out: without autograd's graph, a minibatch of 256 takes half
    the time.
    """
    perceptron = Perceptron.of(network, theta)
    return _Autograd(network, theta, gradient) if perceptron is None else _ChainRule(perceptron, gradient)


class _ChainRule:
    def __init__(self, perceptron: Perceptron, gradient: Tensor) -> None:
        self._perceptron, self._out = perceptron, perceptron.views(gradient)
        self.native = perceptron.native

    def write(self, x: ArrayLike, output_gradient: OutputGradient) -> None:
        inputs = self._perceptron.forward(x)
        self._perceptron.pull(inputs, output_gradient(inputs[-1]), self._out)


class _Autograd:
    def __init__(self, network: nn.Module, theta: Tensor, gradient: Tensor) -> None:
        self._network, self._theta, self._gradient = network, theta, gradient

    def native(self, tensor: Tensor) -> Tensor:
        return tensor

    @torch.enable_grad()
    def write(self, x: Any, output_gradient: OutputGradient) -> None:
        leaf = self._theta.detach().requires_grad_(True)
        values = torch.func.functional_call(self._network, named_views(self._network, leaf), (x,))
        self._gradient.copy_(torch.autograd.grad(values, leaf, output_gradient(values.detach()))[0])
