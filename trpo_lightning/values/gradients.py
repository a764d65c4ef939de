"""Gradients of minibatch losses for a network with one output, written into a flat vector."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trpo_lightning.policies.convolutional import ImageChain, chain_of
from trpo_lightning.policies.images import image_network, rows_at_once
from trpo_lightning.policies.networks import named_views
from trpo_lightning.policies.perceptron import ArrayLike, Perceptron
from trpo_lightning.policies.sequences import Sequences

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

    For perceptrons and image networks the chain rule is written out: without autograd's graph, a minibatch of 256 takes
    half the time.
    """
    chain = chain_of(network, theta)
    return _Autograd(network, theta, gradient) if chain is None else _ChainRule(chain, gradient)


class _ChainRule:
    def __init__(self, chain: Perceptron | ImageChain, gradient: Tensor) -> None:
        self._chain, self._out = chain, chain.views(gradient)
        self.native = chain.native

    def write(self, x: ArrayLike, output_gradient: OutputGradient) -> None:
        inputs = self._chain.forward(x)
        self._chain.pull(inputs, output_gradient(inputs[-1]), self._out)


class _Autograd:
    def __init__(self, network: nn.Module, theta: Tensor, gradient: Tensor) -> None:
        self._network, self._theta, self._gradient = network, theta, gradient

    def native(self, tensor: Tensor) -> Tensor:
        return tensor

    @torch.enable_grad()
    def write(self, x: Any, output_gradient: OutputGradient) -> None:
        leaf = self._theta.detach().requires_grad_(True)
        views = named_views(self._network, leaf)
        parts = self._parts(x)
        if len(parts) == 1:
            values = self._values(views, x)
            self._gradient.copy_(torch.autograd.grad(values, leaf, output_gradient(values.detach()))[0])
            return
        with torch.no_grad():  # one part's graph at a time: the loss's derivative takes all values
            outer = output_gradient(torch.cat([self._values(views, x[part]) for part in parts]))
        self._gradient.zero_()
        for part in parts:
            self._gradient += torch.autograd.grad(self._values(views, x[part]), leaf, outer[part])[0]

    def _values(self, views: dict[str, Tensor], x: Any) -> Tensor:
        return torch.func.functional_call(self._network, views, (x,))

    def _parts(self, x: Any) -> list[slice]:
        """Whole sequences of images whose intermediate results fit into the working memory; else all rows."""
        if isinstance(x, Sequences) and image_network(self._network) is not None:
            return x.parts(rows_at_once(self._network, len(x)))
        return [slice(None)]
