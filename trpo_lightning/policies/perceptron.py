"""Derivatives of multi-layer perceptrons by the chain rule, without autograd's graph: a part of its time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trpo_lightning.policies.inference import IN_PLACE, Layers, perceptron_layers
from trpo_lightning.policies.tanh import Tanh

FROM_OUTPUT: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    Tanh: torch.ops.aten.tanh_backward,
    nn.ReLU: lambda gradient, y: torch.ops.aten.threshold_backward(gradient, y, 0.0),
    nn.ELU: lambda gradient, y: torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, y),
}
"""Derivatives of activations, from their outputs, times something."""

Views = tuple[list[Tensor], list[Tensor]]
"""The weights and the biases of all layers, in one flat vector."""


class Perceptron:
    """A perceptron whose parameters are the flat vector `theta` `[P]`, as it is at each call.

    J is the Jacobian `[B * M, P]` of its outputs in them; `inputs` are what `forward` returned.
    """

    def __init__(self, layers: Layers, theta: Tensor) -> None:
        self._shapes = [tensor.shape for weight, bias, _ in layers for tensor in (weight, bias)]
        self._kinds = [kind for _, _, kind in layers]
        self.size = sum(shape.numel() for shape in self._shapes)
        self._weights, self._biases = self.views(theta)

    @classmethod
    def of(cls, network: nn.Module, theta: Tensor) -> "Perceptron | None":
        """With the layers of `network`; None for a network that is no perceptron."""
        layers = perceptron_layers(network)
        return None if layers is None else cls(layers, theta)

    def views(self, vector: Tensor) -> Views:
        """The layers' parts of a flat vector `[P]`."""
        parts = vector.detach().split([shape.numel() for shape in self._shapes])
        tensors = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return tensors[::2], tensors[1::2]

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """The inputs of all layers for rows `[B, I]`, and the outputs `[B, M]`."""
        inputs = [x]
        for weight, bias, kind in zip(self._weights, self._biases, self._kinds, strict=True):
            x = torch.addmm(bias, x, weight.t())
            if kind is not None:
                IN_PLACE[kind](x)
            inputs.append(x)
        return inputs

    @torch.no_grad()
    def push(self, inputs: list[Tensor], v: Tensor) -> Tensor:
        """J v `[B, M]` for `v` `[P]`."""
        moved: Tensor | None = None
        for i, (weight, bias) in enumerate(zip(*self.views(v), strict=True)):
            moved_input, moved = moved, torch.addmm(bias, inputs[i], weight.t())
            if moved_input is not None:
                moved.addmm_(moved_input, self._weights[i].t())
            moved = self._through(i, moved, inputs)
        assert moved is not None
        return moved

    @torch.no_grad()
    def pull(self, inputs: list[Tensor], u: Tensor, out: Views) -> None:
        """Write J'u into the views of a vector; `u` `[B, M]`."""
        weights, biases = out
        for i in reversed(range(len(self._weights))):
            torch.mm(u.t(), inputs[i], out=weights[i])
            torch.sum(u, 0, out=biases[i])
            if i:
                u = self._through(i - 1, u @ self._weights[i], inputs)

    def _through(self, i: int, moved: Tensor, inputs: list[Tensor]) -> Tensor:
        """Times the derivative of layer i's activation, which is its own transpose."""
        kind = self._kinds[i]
        return moved if kind is None else FROM_OUTPUT[kind](moved, inputs[i + 1])
