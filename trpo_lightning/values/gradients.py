"""Gradients of minibatch losses of a network with one output, written into a flat vector."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trpo_lightning.policies.networks import named_views
from trpo_lightning.policies.perceptron import Perceptron

OutputGradient = Callable[[Tensor], Tensor]
"""From values `[B, 1]` to the loss's derivative in them `[B, 1]`."""


def loss_gradient(network: nn.Module, theta: Tensor, gradient: Tensor) -> Callable[[Tensor, OutputGradient], None]:
    """A function of (observations `[B, *O]`, output gradient) that writes dloss/dtheta into `gradient` `[P]`.

    The network is evaluated at `theta` `[P]` as it is at each call. For a multi-layer perceptron the chain rule is
    written out: without autograd's graph a minibatch of 256 takes half the time.
    """
    perceptron = Perceptron.of(network, theta)
    if perceptron is None:
        return _by_autograd(network, theta, gradient)
    out = perceptron.views(gradient)

    @torch.no_grad()
    def write(x: Tensor, output_gradient: OutputGradient) -> None:
        inputs = perceptron.forward(x)
        perceptron.pull(inputs, output_gradient(inputs[-1]), out)

    return write


def _by_autograd(network: nn.Module, theta: Tensor, gradient: Tensor) -> Callable[[Tensor, OutputGradient], None]:
    def write(x: Tensor, output_gradient: OutputGradient) -> None:
        leaf = theta.detach().requires_grad_(True)
        values = torch.func.functional_call(network, named_views(network, leaf), (x,))
        gradient.copy_(torch.autograd.grad(values, leaf, output_gradient(values.detach()))[0])

    return write
