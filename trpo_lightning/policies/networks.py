"""Networks for observations of any shape, initialised from a given random generator."""

import math

import torch
from torch import Tensor, nn

from trpo_lightning.policies.images import KNOWN, Convolution, ImageNetwork, convolutional, feature_count
from trpo_lightning.policies.observations import Layout, Shape
from trpo_lightning.policies.tanh import Tanh

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU, "elu": nn.ELU}


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A layer with orthogonal weights (Saxe et al. 2014) scaled by `gain` and zero bias; no global random numbers."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    assert isinstance(layer, nn.Linear)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def build_network(
    observation_shape: Shape,
    outputs: int,
    *,
    hidden_sizes: list[int],
    activation: str,
    output_gain: float,
    generator: torch.Generator,
    convolutions: list[Convolution] | None = None,
) -> nn.Module:
    """A network `[B, *observation_shape] -> [B, outputs]`; the only place where the observation's shape decides.

    Vectors get a multi-layer perceptron, images convolutions before it, with hidden gains of sqrt(2) (Engstrom et al.
    2020, code-level optimizations).

    Args:
        observation_shape: The shape of one observation: of a vector, of an image, or of the parts of a mixture.
        outputs: The number of outputs.
        hidden_sizes: Units of each hidden layer; empty for a linear network.
        activation: `"tanh"`, `"relu"` or `"elu"`.
        output_gain: Scale of the last layer's orthogonal weights.
        generator: Source of the initial weights.
        convolutions: The layers that see each image; by default those of TRPO 2015.

    Raises:
        ValueError: The observations are neither vectors nor images.
    """
    hidden, width = hidden_layers(
        observation_shape, hidden_sizes, activation=activation, generator=generator, convolutions=convolutions
    )
    dense = hidden.dense if isinstance(hidden, ImageNetwork) else hidden
    dense.append(linear(width, outputs, output_gain, generator))
    return hidden


def hidden_layers(
    observation_shape: Shape,
    hidden_sizes: list[int],
    *,
    activation: str,
    generator: torch.Generator,
    convolutions: list[Convolution] | None = None,
) -> tuple[ImageNetwork | nn.Sequential, int]:
    """The network of `build_network` without its last layer, and how many numbers it gives."""
    layout = Layout.of(observation_shape)
    if layout.shape != observation_shape:
        raise ValueError(f"no network for observations of shape {observation_shape}")
    gain, kind = math.sqrt(2.0), ACTIVATIONS[activation]
    filters = KNOWN["trpo_2015"].convolutions if convolutions is None else convolutions
    before = [convolutional(image, filters, kind, gain, generator) for image in layout.images]
    layers: list[nn.Module] = []
    width = feature_count(layout, filters)
    for size in hidden_sizes:
        layers += [linear(width, size, gain, generator), kind()]
        width = size
    dense = nn.Sequential(*layers)
    return (ImageNetwork(layout, before, dense) if layout.images else dense), width


def parameter_vector(module: nn.Module) -> Tensor:
    """A copy of all parameters as one vector `[P]`, in `module.parameters()` order."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def assign_parameter_vector(module: nn.Module, theta: Tensor) -> None:
    """Write `theta` `[P]` into the parameters, in place. Raises `ValueError` if the length does not match."""
    sizes = [p.numel() for p in module.parameters()]
    if theta.numel() != sum(sizes):
        raise ValueError(f"{theta.numel()} numbers for {sum(sizes)} parameters")
    with torch.no_grad():
        for p, part in zip(module.parameters(), theta.split(sizes), strict=True):
            p.copy_(part.view_as(p))


def named_views(module: nn.Module, theta: Tensor) -> dict[str, Tensor]:
    """The parameters' names with differentiable views of `theta` `[P]`, for `torch.func.functional_call`."""
    named = dict(module.named_parameters())
    parts = theta.split([p.numel() for p in named.values()])
    return {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
