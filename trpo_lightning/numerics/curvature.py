"""Fisher-vector products A v = J'M J v (Schulman et al. 2015, appendix C.1), matrix-free and chunked.

J is the Jacobian of the distribution's parameters in theta, M the Fisher matrix of the distribution in those
parameters, known in closed form. J v needs no forward-mode support: the pullback u -> J'u is linear in u, so
differentiating it again in u gives J v from the same reused graph.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Linearizable(Protocol):
    """Rows of a model at some theta: differentiable `tensors` (rows first), and M applied to tangents of them."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Parameters of the rows' distributions, each `[B, ...]`."""
        ...

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """M times tangents, row by row; same shapes as `tensors`."""
        ...


class _Linearization:
    """J v and J'u at a fixed theta, from one graph."""

    def __init__(self, model: Linearizable, theta: Tensor) -> None:
        self.model, self.theta = model, theta
        self.probe = tuple(torch.zeros_like(t, requires_grad=True) for t in model.tensors)
        (self.pullback,) = torch.autograd.grad(model.tensors, theta, self.probe, create_graph=True)

    def product(self, v: Tensor) -> Tensor:
        tangents = torch.autograd.grad(self.pullback, self.probe, v, retain_graph=True)  # J v
        with torch.no_grad():
            cotangents = self.model.fisher_product(tangents)  # M J v
        return torch.autograd.grad(self.model.tensors, self.theta, cotangents, retain_graph=True)[0]  # J' M J v


def fisher_vector_product(
    model: Callable[[Tensor, slice], Linearizable], theta: Tensor, rows: int, *, chunk: int = 65536
) -> Callable[[Tensor], Tensor]:
    """The operator v `[P]` -> (1/rows) sum_n J_n' M_n J_n v `[P]` at `theta` `[P]`.

    `model(theta, rows)` evaluates a slice of the batch. A batch of one chunk keeps one graph for all products; a larger
    one builds the graphs of its chunks anew for each product, so that memory is bounded by `chunk` rows.
    """
    theta = theta.detach().clone().requires_grad_(True)
    slices = [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]
    kept = _Linearization(model(theta, slices[0]), theta) if len(slices) == 1 else None

    def product(v: Tensor) -> Tensor:
        if kept is not None:
            return kept.product(v) / rows
        total = torch.zeros_like(v)
        for part in slices:
            total += _Linearization(model(theta, part), theta).product(v)
        return total / rows

    return product
