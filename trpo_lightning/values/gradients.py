"""Gradients of minibatch losses of a network with one output, written into a flat vector."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trpo_lightning.policies.inference import IN_PLACE, perceptron_layers
from trpo_lightning.policies.networks import named_views
from trpo_lightning.policies.tanh import Tanh

OutputGradient = Callable[[Tensor], Tensor]
"""From values `[B, 1]` to the loss's derivative in them `[B, 1]`."""

FROM_OUTPUT: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    Tanh: torch.ops.aten.tanh_backward,
    nn.ReLU: lambda gradient, y: torch.ops.aten.threshold_backward(gradient, y, 0.0),
    nn.ELU: lambda gradient, y: torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, y),
}
"""Derivatives of activations, from their outputs."""


def loss_gradient(network: nn.Module, theta: Tensor, gradient: Tensor) -> Callable[[Tensor, OutputGradient], None]:
    """A function of (observations `[B, *O]`, output gradient) that writes dloss/dtheta into `gradient` `[P]`.

    The network is evaluated at `theta` `[P]` as it is at each call. For a multi-layer perceptron the chain rule is
    written out: without autograd's graph a minibatch of 256 takes half the time.
    """
    layers = perceptron_layers(network)
    if layers is None:
        return _by_autograd(network, theta, gradient)
    kinds = [kind for _, _, kind in layers]
    weights, biases = _views(layers, theta)
    weight_gradients, bias_gradients = _views(layers, gradient)

    def write(x: Tensor, output_gradient: OutputGradient) -> None:
        inputs = [x]
        for weight, bias, kind in zip(weights, biases, kinds, strict=True):
            x = torch.addmm(bias, x, weight.t())
            if kind is not None:
                IN_PLACE[kind](x)
            inputs.append(x)
        error = output_gradient(x)
        for i in reversed(range(len(weights))):
            torch.mm(error.t(), inputs[i], out=weight_gradients[i])
            torch.sum(error, 0, out=bias_gradients[i])
            if i:
                error = FROM_OUTPUT[kinds[i - 1]](error @ weights[i], inputs[i])  # pyright: ignore[reportArgumentType]

    return torch.no_grad()(write)


def _views(layers: list, vector: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The weights and the biases in a flat vector of all parameters."""
    shapes = [tensor.shape for weight, bias, _ in layers for tensor in (weight, bias)]
    parts = vector.detach().split([shape.numel() for shape in shapes])
    tensors = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    return tensors[::2], tensors[1::2]


def _by_autograd(network: nn.Module, theta: Tensor, gradient: Tensor) -> Callable[[Tensor, OutputGradient], None]:
    def write(x: Tensor, output_gradient: OutputGradient) -> None:
        leaf = theta.detach().requires_grad_(True)
        values = torch.func.functional_call(network, named_views(network, leaf), (x,))
        gradient.copy_(torch.autograd.grad(values, leaf, output_gradient(values.detach()))[0])

    return write
