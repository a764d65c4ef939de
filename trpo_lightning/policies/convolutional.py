"""Derivatives of networks that see images by the chain rule: products with J and J' without autograd's graph."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trpo_lightning.policies.images import ImageNetwork, scaled
from trpo_lightning.policies.inference import IN_PLACE
from trpo_lightning.policies.perceptron import OF_TENSORS, Perceptron

Filters = list[list[tuple[Tensor, Tensor]]]
"""Weights and biases of each image's convolutions, as views of one flat vector."""
Kept = list[Any]
"""What `ImageChain.forward` keeps: scaled images, outputs of their layers, the dense layers' inputs, outputs."""


class ImageChain:
    """An `ImageNetwork` whose parameters are the flat vector `theta` `[P]`, read at each call; made as a `Perceptron`.

    All numbers are tensors.
    """

    def __init__(self, network: ImageNetwork, theta: Tensor) -> None:
        self._network = network
        self._layers = [_layers(sequence) for sequence in network.convolutions]
        shapes = [tuple(p.shape) for layers in self._layers for conv, _ in layers for p in conv.parameters()]
        self._shapes, self._sizes = shapes, [math.prod(shape) for shape in shapes]
        self._before_dense = sum(self._sizes)
        dense = Perceptron.of(network.dense, theta[self._before_dense :])
        assert dense is not None
        self._dense, self.size = dense, self._before_dense + dense.size
        self._dtype, self._filters = theta.dtype, self.views(theta)[0]

    @staticmethod
    def native(tensor: Tensor) -> Tensor:
        """Tensors stay what they are."""
        return tensor

    tensor = native

    def views(self, vector: Tensor) -> tuple[Filters, Any]:
        """The convolutions' and the dense layers' parameters in a flat vector `[P]`, sharing its memory."""
        convolutional, dense = vector.detach().split([self._before_dense, self._dense.size])
        parts = iter([part.view(s) for part, s in zip(convolutional.split(self._sizes), self._shapes, strict=True)])
        return [[(next(parts), next(parts)) for _ in layers] for layers in self._layers], self._dense.views(dense)

    @torch.no_grad()
    def outputs(self, rows: Tensor) -> Tensor:
        """The outputs `[B, M]` for rows `[B, *row_shape]`."""
        return self._through(rows, for_products=False)[-1]

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Kept:
        """What products need for rows `[B, *row_shape]`, and last the outputs `[B, M]`."""
        return self._through(rows, for_products=True)

    def _through(self, rows: Tensor, *, for_products: bool) -> Kept:
        pictures = self._network.layout.pictures(rows)
        images = [scaled(picture, self._dtype, channels_last=for_products) for picture in pictures]
        outputs = []
        for x, layers, filters in zip(images, self._layers, self._filters, strict=True):
            found = []
            for (layer, kind), (weight, bias) in zip(layers, filters, strict=True):
                x = F.conv2d(x, weight, bias, layer.stride)  # type: ignore[arg-type]
                IN_PLACE[kind](x)
                found.append(x)
            outputs.append(found)
        last = [_last(image, found) for image, found in zip(images, outputs, strict=True)]
        inputs = self._dense.forward(self._dense.native(self._network.joined(last, rows)))
        return [images, outputs, inputs, self._dense.tensor(inputs[-1])]

    @torch.no_grad()
    def push(self, kept: Kept, v: Tensor) -> Tensor:
        """J v `[B, M]` for `v` `[P]`."""
        images, outputs, inputs, _ = kept
        changes, _ = self.views(v)
        parts = []
        for x, layers, filters, found, changed in zip(
            images, self._layers, self._filters, outputs, changes, strict=True
        ):
            moved: Tensor | None = None
            for (layer, kind), (weight, _), (d_weight, d_bias), y in zip(layers, filters, changed, found, strict=True):
                stride: Any = layer.stride
                moved_input, moved = moved, F.conv2d(x, d_weight, d_bias, stride)
                if moved_input is not None:
                    moved += F.conv2d(moved_input, weight, None, stride)
                x, moved = y, OF_TENSORS[kind](moved, y)
            parts.append(torch.zeros_like(x).flatten(1) if moved is None else moved.flatten(1))
        features = torch.zeros_like(self._dense.tensor(inputs[0]))
        filled = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if filled.shape == features.shape:
            features = filled
        else:  # the vector's numbers depend on no parameter
            features[:, : filled.shape[1]] = filled
        dense = v[self._before_dense :]
        return self._dense.tensor(self._dense.push(inputs, dense, self._dense.native(features)))

    @torch.no_grad()
    def pull(self, kept: Kept, u: Tensor, out: tuple[Filters, Any]) -> None:
        """Write J'u into the views `out` of a vector `[P]`, for `u` `[B, M]`."""
        images, outputs, inputs, _ = kept
        filters_out, dense_out = out
        features = self._dense.tensor(self._dense.pull(inputs, self._dense.native(u), dense_out, to_input=True))
        start = 0
        for x, layers, filters, found, gradients in zip(
            images, self._layers, self._filters, outputs, filters_out, strict=True
        ):
            last = _last(x, found)
            moved: Tensor = features[:, start : start + last.shape[1]]
            start += last.shape[1]
            if layers:
                moved = moved.reshape(found[-1].shape).contiguous(memory_format=torch.channels_last)
            for j in reversed(range(len(layers))):
                (layer, kind), (weight, _), (d_weight, d_bias) = layers[j], filters[j], gradients[j]
                moved = OF_TENSORS[kind](moved, found[j])
                before = found[j - 1] if j else x
                moved, *found_gradients = _backward(layer, moved, before, weight, to_input=j > 0)
                d_weight.copy_(found_gradients[0])
                d_bias.copy_(found_gradients[1])


def _last(image: Tensor, found: list[Tensor]) -> Tensor:
    """An image's features `[B, F]`: the last layer's outputs, or its pixels where there is no layer."""
    return (found[-1] if found else image).flatten(1)


def _layers(sequence: Any) -> list[tuple[nn.Conv2d, type[nn.Module]]]:
    modules = list(sequence)
    return [(conv, type(activation)) for conv, activation in zip(modules[::2], modules[1::2], strict=True)]


def _backward(layer: nn.Conv2d, u: Tensor, x: Tensor, weight: Tensor, *, to_input: bool) -> list[Tensor]:
    """Cotangents of a convolution's input (if asked for), weight and bias."""
    return torch.ops.aten.convolution_backward(
        u, x, weight, [len(weight)], layer.stride, [0, 0], [1, 1], False, [0, 0], 1, [to_input, True, True]
    )


def chain_of(network: nn.Module, theta: Tensor) -> Perceptron | ImageChain | None:
    """The derivatives of a perceptron or an image network at `theta` `[P]`; None for other networks."""
    if isinstance(network, ImageNetwork):
        return ImageChain(network, theta) if isinstance(network.dense[-1], nn.Linear) else None
    return Perceptron.of(network, theta)
