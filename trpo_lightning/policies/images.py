"""Networks that see images: convolutions, then dense layers on their outputs and on what else was observed."""

import math
import re
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from trpo_lightning.errors import UserError
from trpo_lightning.policies.observations import Image, Layout
from trpo_lightning.threads import threads_for

WORKING_MEMORY = 1 << 30
"""Bytes of intermediate results that the products of an update keep."""
KEPT_BY_AUTOGRAD = 4
"""How often intermediate results are kept for autograd's second derivatives: they, their gradients and tangents."""
CACHED = 1 << 22
"""Bytes of intermediate results of rows that are evaluated together: few enough to stay in a processor's cache, and for
the allocator to use the same pages again, whose first use costs more than the arithmetic."""


@dataclass(frozen=True)
class Convolution:
    """A layer of `filters` square filters, applied without padding."""

    filters: int
    kernel: int
    stride: int

    @classmethod
    def of(cls, text: str) -> "Convolution | None":
        """From `16x4/2`: 16 filters of 4 x 4 with stride 2; None for any other form."""
        found = re.fullmatch(r"(\d+)x(\d+)/(\d+)", text)
        sizes = [int(number) for number in found.groups()] if found else [0]
        return cls(*sizes) if min(sizes) > 0 else None

    def __str__(self) -> str:
        return f"{self.filters}x{self.kernel}/{self.stride}"


@dataclass(frozen=True)
class Sizes:
    """The layers of a network: convolutions, which see images, and the dense layers before the output."""

    dense: list[int]
    convolutions: list[Convolution]


class NetworkSettings(Protocol):
    """The keys of a policy's or a value function's network."""

    hidden_sizes: list[int]
    activation: str
    image_network: str
    convolutions: list[str]


KNOWN = {
    "trpo_2015": Sizes([20], [Convolution(16, 4, 2), Convolution(16, 4, 2)]),
    "mnih_2015": Sizes([512], [Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3, 1)]),
}
"""Networks by name, as TRPO 2015 (section 8.2) and Mnih et al. 2015 (Methods) describe them."""


def network_sizes(layout: Layout, settings: NetworkSettings, group: str) -> Sizes:
    """The layers that the settings of a group, `policy` or `value`, give to observations of this layout.

    Raises:
        UserError: The settings do not fit the observations or each other.
    """
    default = type(settings)()
    if not layout.images:
        if settings.image_network != default.image_network:
            raise UserError(f"{group}.image_network={settings.image_network}: the observations have no images")
        return Sizes(settings.hidden_sizes, [])
    if settings.image_network == "sizes":
        found = Sizes(settings.hidden_sizes, _parsed(settings.convolutions, group))
    else:
        if settings.hidden_sizes != default.hidden_sizes:
            raise UserError(
                f"{group}.hidden_sizes={settings.hidden_sizes} does not go with {group}.image_network="
                f"{settings.image_network}, which has its own: use {group}.image_network=sizes"
            )
        found = KNOWN[settings.image_network]
    for image in layout.images:
        _check_fit(image, found.convolutions, group)
    return found


def _parsed(texts: list[str], group: str) -> list[Convolution]:
    found = []
    for text in texts:
        convolution = Convolution.of(text)
        if convolution is None:
            raise UserError(
                f"{group}.convolutions: {text} is not FILTERSxKERNEL/STRIDE, such as 16x4/2 for 16 filters of 4 x 4 "
                "with stride 2"
            )
        found.append(convolution)
    return found


def _check_fit(image: Image, convolutions: list[Convolution], group: str) -> None:
    """Raise `UserError` if a layer's kernel is larger than what the layers before it leave of the image."""
    for i, layer in enumerate(convolutions):
        height, width = _remaining(image, convolutions[:i])
        if layer.kernel > min(height, width):
            raise UserError(
                f"{group}.image_network: layer {i + 1} ({layer}) does not fit: the {image} is {height} x {width} "
                f"there: use {group}.image_network=sizes with smaller {group}.convolutions, larger images, or none: "
                "env.wrappers=[gymnasium.wrappers:FlattenObservation]"
            )


def _remaining(image: Image, convolutions: list[Convolution]) -> tuple[int, int]:
    height, width = image.height_and_width
    for layer in convolutions:
        height, width = ((size - layer.kernel) // layer.stride + 1 for size in (height, width))
    return height, width


def feature_count(layout: Layout, convolutions: list[Convolution]) -> int:
    """How many numbers the dense layers see: the flattened outputs of the convolutions, and the vector."""
    found = layout.vector
    for image in layout.images:
        filters = convolutions[-1].filters if convolutions else image.channels
        found += filters * math.prod(_remaining(image, convolutions))
    return found


def convolutional(
    image: Image, convolutions: list[Convolution], activation: type[nn.Module], gain: float, generator: torch.Generator
) -> nn.Sequential:
    """Convolutions with orthogonal filters scaled by `gain` and zero biases, each followed by the activation."""
    layers: list[nn.Module] = []
    channels = image.channels
    for c in convolutions:
        layer = nn.utils.skip_init(nn.Conv2d, channels, c.filters, c.kernel, c.stride)
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        nn.init.orthogonal_(layer.weight, gain, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, activation()]
        channels = c.filters
    return nn.Sequential(*layers)


def scaled(image: Tensor, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
    """Pixels `[B, C, H, W]` as numbers between 0 and 1.

    On the CPU, convolutions' derivatives are several times faster with `channels_last` in memory; an evaluation alone
    is faster without, as stored frames need not be reordered.
    """
    if torch._C._are_functorch_transforms_active():
        return image.to(dtype) * (1.0 / 255.0)
    if not channels_last or image.device.type != "cpu" or image.is_contiguous(memory_format=torch.channels_last):
        return image.to(dtype).mul_(1.0 / 255.0)
    pixels = torch.empty(image.shape, dtype=dtype, memory_format=torch.channels_last)
    for ordered, channel in zip(pixels.unbind(1), image.unbind(1), strict=True):
        ordered.copy_(channel)  # one copy of all channels takes twice the time
    return pixels.mul_(1.0 / 255.0)


class ImageNetwork(nn.Module):
    """Rows of bytes to outputs `[B, M]`; pixels become numbers between 0 and 1 here, and nowhere before.

    Args:
        layout: What a row holds.
        convolutions: The layers that see each image.
        dense: The layers that see the convolutions' flattened outputs, image after image, and then the vector.
    """

    def __init__(self, layout: Layout, convolutions: list[nn.Sequential], dense: nn.Sequential) -> None:
        super().__init__()
        self.layout = layout
        self.convolutions = nn.ModuleList(convolutions)
        self.dense = dense

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs `[B, M]` for rows `[B, *row_shape]`."""
        first = next(self.parameters(), None)  # there is none before a recurrent layer without convolutions
        dtype = torch.get_default_dtype() if first is None else first.dtype
        derived = torch.is_grad_enabled()
        images = [scaled(picture, dtype, channels_last=derived) for picture in self.layout.pictures(rows)]
        parts = [layers(image).flatten(1) for layers, image in zip(self.convolutions, images, strict=True)]
        return self.dense(self.joined(parts, rows))

    def joined(self, parts: list[Tensor], rows: Tensor) -> Tensor:
        """What the dense layers see `[B, F]`: outputs `[B, ...]` of the convolutions, and the vector in the rows."""
        if self.layout.vector:
            parts = [*parts, self.layout.vectors(rows).to(parts[0].dtype)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    @property
    def numbers_per_row(self) -> int:
        """Pixels and outputs of all convolutions for one observation: what its derivatives are computed from."""
        return self.layout.image_bytes + sum(
            layer.out_channels * math.prod(_remaining(image, _layers_of(sequence)[: i + 1]))
            for image, sequence in zip(self.layout.images, self.convolutions, strict=True)
            for i, layer in enumerate(_convs(sequence))
        )


def _convs(sequence: nn.Module) -> list[nn.Conv2d]:
    return [module for module in sequence.children() if isinstance(module, nn.Conv2d)]


def _layers_of(sequence: nn.Module) -> list[Convolution]:
    return [Convolution(m.out_channels, int(m.kernel_size[0]), int(m.stride[0])) for m in _convs(sequence)]


def image_network(network: nn.Module) -> ImageNetwork | None:
    """The part of a network that sees images: the network, or the `encoder` of one with a memory."""
    part = getattr(network, "encoder", network)
    return part if isinstance(part, ImageNetwork) else None


def products_per_row(network: nn.Module) -> int:
    """Multiplications of one forward pass for one observation: the weights, times the places a filter is applied at."""
    images = image_network(network)
    if images is None:
        return _size(network)
    filters = [
        layer.weight.numel() * math.prod(_remaining(image, _layers_of(sequence)[: i + 1]))
        for image, sequence in zip(images.layout.images, images.convolutions, strict=True)
        for i, layer in enumerate(_convs(sequence))
    ]
    return _size(network) - _size(images.convolutions) + sum(filters)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def rows_at_once(network: nn.Module, most: int) -> int:
    """How many rows to evaluate together: `most`, or fewer of images.

    Those alone are to stay in the processor's cache; with a memory, all rows of a sequence are kept for autograd.
    """
    images = image_network(network)
    if images is None:
        return most
    room = CACHED if images is network else WORKING_MEMORY // KEPT_BY_AUTOGRAD
    return max(1, min(most, room // (4 * images.numbers_per_row)))


def inference_threads(network: nn.Module, rows: int) -> int:
    """How many torch threads to evaluate a few rows with between two steps: more than one for many images only."""
    return threads_for(rows, products_per_row(network)) if image_network(network) else 1


def rows_kept(network: nn.Module) -> int | None:
    """How many rows' intermediate results to keep between the products of an update; None where images do not ask."""
    images = image_network(network)
    if images is None:
        return None
    return max(1, WORKING_MEMORY // (4 * images.numbers_per_row * (1 if images is network else KEPT_BY_AUTOGRAD)))
