"""Derivatives of multi-layer perceptrons by the chain rule: faster than autograd, whose graph they do not build."""

import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trpo_lightning.policies.inference import IN_PLACE, ON_ARRAYS, Layers, perceptron_layers
from trpo_lightning.policies.tanh import Tanh

ArrayLike = Any
"""A NumPy array or a tensor."""

Derivatives = dict[type[nn.Module], Callable[[ArrayLike, ArrayLike], ArrayLike]]
"""Derivatives of activations, from their outputs, times a gradient that may be overwritten."""


def _relu(gradient: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(gradient, y, 0.0, grad_input=gradient)


OF_TENSORS: Derivatives = {
    Tanh: torch.ops.aten.tanh_backward,
    nn.ReLU: _relu,
    nn.ELU: lambda gradient, y: torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, y),
}


def _tanh(gradient: np.ndarray, y: np.ndarray) -> np.ndarray:
    slope = y * y
    np.subtract(1.0, slope, out=slope)
    gradient *= slope
    return gradient


OF_ARRAYS: Derivatives = {
    Tanh: _tanh,
    nn.ReLU: lambda gradient, y: np.where(y <= 0.0, 0.0, gradient).astype(gradient.dtype, copy=False),
    nn.ELU: lambda gradient, y: np.where(y <= 0.0, gradient * (y + 1.0), gradient),
}

Views = tuple[list[ArrayLike], list[ArrayLike]]
"""The weights and the biases of all layers, in one flat vector."""


class Perceptron:
    """A perceptron whose parameters are the flat vector `theta` `[P]`, read at each call.

    J is the Jacobian `[B * M, P]` of its outputs in them; `inputs` are what `forward` returned. All numbers are tensors
    or, on a CPU where torch has one thread, NumPy arrays (`native`): these share the memory, their calls are cheaper,
    and on AMD CPUs their products take half the time of MKL, which does not use AVX-512 there.
    """

    def __init__(self, layers: Layers, theta: Tensor) -> None:
        self._shapes = [tuple(tensor.shape) for weight, bias, _ in layers for tensor in (weight, bias)]
        ends = list(accumulate(map(math.prod, self._shapes), initial=0))
        self._parts, self.size = [slice(*ends) for ends in pairwise(ends)], ends[-1]
        self._kinds = [kind for _, _, kind in layers]
        self._on_arrays = theta.device.type == "cpu" and torch.get_num_threads() == 1
        self._library: Any = np if self._on_arrays else torch
        self._derivatives = OF_ARRAYS if self._on_arrays else OF_TENSORS
        self._activations: dict[type[nn.Module], Callable[[Any], object]] = ON_ARRAYS if self._on_arrays else IN_PLACE
        self._weights, self._biases = self.views(theta)

    @classmethod
    def of(cls, network: nn.Module, theta: Tensor) -> "Perceptron | None":
        """A perceptron with the layers of `network`; None if it is not one, or its last layer has an activation."""
        layers = perceptron_layers(network)
        return None if layers is None or layers[-1][2] is not None else cls(layers, theta)

    def native(self, tensor: Tensor) -> ArrayLike:
        """A tensor in the form that the other methods take."""
        return tensor.numpy() if self._on_arrays else tensor

    def tensor(self, numbers: ArrayLike) -> Tensor:
        """The inverse of `native`: numbers as a tensor."""
        return torch.from_numpy(numbers) if self._on_arrays else numbers

    def views(self, vector: Tensor) -> Views:
        """The layers' weights and biases in a flat vector `[P]`, sharing its memory."""
        numbers = self.native(vector.detach())
        parts = [numbers[part].reshape(shape) for part, shape in zip(self._parts, self._shapes, strict=True)]
        return parts[::2], parts[1::2]

    @torch.no_grad()
    @np.errstate(all="ignore")
    def forward(self, x: ArrayLike) -> list[ArrayLike]:
        """The inputs of all layers for rows `[B, I]`, followed by the outputs `[B, M]`."""
        inputs = [x]
        for weight, bias, kind in zip(self._weights, self._biases, self._kinds, strict=True):
            x = x @ weight.T
            x += bias
            if kind is not None:
                self._activations[kind](x)
            inputs.append(x)
        return inputs

    def outputs(self, x: ArrayLike) -> Tensor:
        """The outputs `[B, M]` for rows `[B, I]`."""
        return self.tensor(self.forward(x)[-1])

    @torch.no_grad()
    @np.errstate(all="ignore")
    def push(self, inputs: list[ArrayLike], v: Tensor, moved: ArrayLike = None) -> ArrayLike:
        """J v `[B, M]` for `v` `[P]`, and for tangents `moved` `[B, I]` of the rows, if they move, too."""
        for i, (weight, bias) in enumerate(zip(*self.views(v), strict=True)):
            moved_input, moved = moved, inputs[i] @ weight.T
            moved += bias
            if moved_input is not None:
                moved += moved_input @ self._weights[i].T
            moved = self._through(i, moved, inputs)
        return moved

    @torch.no_grad()
    @np.errstate(all="ignore")
    def pull(self, inputs: list[ArrayLike], u: ArrayLike, out: Views, *, to_input: bool = False) -> ArrayLike:
        """Write J'u into the views `out` of a vector `[P]`, for `u` `[B, M]`; return cotangents `[B, I]` if asked."""
        weights, biases = out
        ones = self._library.ones_like(u[:, 0])
        for i in reversed(range(len(self._weights))):
            self._library.matmul(u.T, inputs[i], out=weights[i])
            self._library.matmul(u.T, ones, out=biases[i])  # a sum in a quarter of the time
            if i or to_input:
                weight = self._weights[i]
                moved = u @ weight if len(weight) > 1 else u * weight  # equal for one output, again in a quarter
                u = self._through(i - 1, moved, inputs) if i else moved
        return u if to_input else None

    def _through(self, i: int, moved: ArrayLike, inputs: list[ArrayLike]) -> ArrayLike:
        """`moved` times the derivative of layer i's activation, a diagonal matrix and so its own transpose."""
        kind = self._kinds[i]
        return moved if kind is None else self._derivatives[kind](moved, inputs[i + 1])
