"""Fast evaluation of a network on a few rows at a time, as a rollout needs it between two environment steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trpo_lightning.policies.tanh import Tanh, tanh_

IN_PLACE: dict[type[nn.Module], Callable[[Tensor], object]] = {
    Tanh: tanh_,
    nn.ReLU: torch.relu_,
    nn.ELU: torch.nn.functional.elu_,
}


def _elu(x: np.ndarray) -> None:
    np.copyto(x, np.expm1(x), where=x < 0.0)


ON_ARRAYS: dict[type[nn.Module], Callable[[np.ndarray], object]] = {
    Tanh: lambda x: np.tanh(x, out=x),
    nn.ReLU: lambda x: np.maximum(x, 0.0, out=x),
    nn.ELU: _elu,
}
"""The activations of `IN_PLACE` for NumPy arrays, also in place."""


Layers = list[tuple[Tensor, Tensor, type[nn.Module] | None]]
"""(weight, bias, activation or None) of each layer."""


def perceptron_layers(network: nn.Module) -> Layers | None:
    """The layers of a multi-layer perceptron; None for any other network."""
    if not isinstance(network, nn.Sequential):
        return None
    layers: Layers = []
    for module in network:
        if type(module) is nn.Linear and module.bias is not None:
            layers.append((module.weight.detach(), module.bias.detach(), None))
        elif type(module) in IN_PLACE and layers and layers[-1][2] is None:
            layers[-1] = (*layers[-1][:2], type(module))
        else:
            return None
    return layers


def remembering_forward(network: nn.Module) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """As `fast_forward`, from float32 arrays `[N, *O]` and states `[N, M]`, which it moves in place if M > 0."""
    if not getattr(network, "state_size", 0):
        forward = fast_forward(network)
        return lambda x, state: forward(x)
    step: Any = network.step

    @torch.no_grad()
    def step_forward(x: np.ndarray, state: np.ndarray) -> np.ndarray:
        outputs, moved = step(torch.from_numpy(x), torch.from_numpy(state))
        state[...] = moved.numpy()
        return outputs.numpy()

    return step_forward


def fast_forward(network: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """The network on the CPU from float32 arrays `[N, *O]` to outputs `[N, M]`, without autograd or module calls.

    Reads the current parameters at each call. A perceptron uses NumPy's products: a simulator's step evicts torch from
    the caches, after which its dispatch costs two thirds of a call (32 rows of a 64-64 network: 30 us instead of
    100).
    """
    layers = perceptron_layers(network)
    if layers is None:
        return lambda x: _without_gradient(network, x)
    steps = [(weight.numpy().T, bias.numpy(), ON_ARRAYS[kind] if kind else None) for weight, bias, kind in layers]

    def forward(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            for weight, bias, activation in steps:
                x = x @ weight
                x += bias
                if activation is not None:
                    activation(x)
        return x

    return forward


@torch.no_grad()
def _without_gradient(network: nn.Module, x: np.ndarray) -> np.ndarray:
    return network(torch.from_numpy(x)).numpy()


def forward_each(network: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The network with separate parameters per row: named ones `[N, ...]` and inputs `[N, *O]` to outputs `[N, M]`.

    Without autograd. Multi-layer perceptrons use batched products, which take a small part of `vmap`'s time on the CPU.
    """
    if perceptron_layers(network) is None:
        each = torch.func.vmap(lambda named, x: torch.func.functional_call(network, named, (x[None],))[0])
        return torch.no_grad()(each)

    def forward(named: dict[str, Tensor], x: Tensor) -> Tensor:
        for i, module in enumerate(network.children()):
            if type(module) is nn.Linear:
                weight, bias = named[f"{i}.weight"], named[f"{i}.bias"]
                x = torch.baddbmm(bias[:, None], x[:, None], weight.transpose(1, 2))[:, 0]
            else:
                IN_PLACE[type(module)](x)
        return x

    return forward
