"""Fisher-vector products A v = J'M J v (Schulman et al. 2015, appendix C.1), matrix-free and chunked.

J is the Jacobian of the distribution's parameters in theta, M the Fisher matrix of the distribution in those
parameters, known in closed form; for the empirical Fisher matrix J is that of the actions' log-probabilities, M = I.
A model that knows its J applies it itself. Other models need no forward-mode support for J v: the pullback u -> J'u
is linear in u, so differentiating it again in u gives J v from the same graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from trpo_lightning.ranks import Share


class Linearizable(Protocol):
    """Rows of a model at some theta: differentiable `tensors` (rows first), and M applied to their tangents."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Parameters of the distributions, one row each: `[B, ...]`."""
        ...

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """M times tangents, row by row; same shapes as `tensors`."""
        ...


@runtime_checkable
class Linearized(Linearizable, Protocol):
    """Rows of a model at a fixed theta, with products by J and its transpose."""

    def push(self, v: Tensor) -> tuple[Tensor, ...]:
        """J v for `v` `[P]`: tangents of `tensors`."""
        ...

    def pull(self, cotangents: tuple[Tensor, ...]) -> Tensor:
        """J'u `[P]` for cotangents of `tensors`."""
        ...


@dataclass(frozen=True)
class Scalars:
    """Rows of one number each, with M = I: the matrix is the mean of j_n j_n', j_n = grad x_n.

    For log-probabilities of the actions taken it is the empirical Fisher matrix, uncentred (TRPO 2015, section 8.1);
    for predictions it is the Gauss-Newton matrix of their squared error (GAE 2016, section 5).
    """

    x: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The numbers `[B]`, as the only tensor."""
        return (self.x,)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The tangents unchanged: M = I."""
        return tangents


class _Graph:
    """Products by J and its transpose for any model at a fixed theta, from autograd's graph."""

    def __init__(self, model: Linearizable, theta: Tensor) -> None:
        self.model, self.theta = model, theta
        self.probe = tuple(torch.zeros_like(t, requires_grad=True) for t in model.tensors)
        (self.pullback,) = torch.autograd.grad(model.tensors, theta, self.probe, create_graph=True)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.model.tensors

    @torch.no_grad()
    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.model.fisher_product(tangents)

    def push(self, v: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.pullback, self.probe, v, retain_graph=True)

    def pull(self, cotangents: tuple[Tensor, ...]) -> Tensor:
        return torch.autograd.grad(self.model.tensors, self.theta, cotangents, retain_graph=True)[0]


def _linearized(model: Linearizable, theta: Tensor) -> Linearized:
    return model if isinstance(model, Linearized) else _Graph(model, theta)


def _product(model: Linearized, v: Tensor, weights: Tensor | None) -> Tensor:
    """J' W M J v."""
    cotangents = model.fisher_product(model.push(v))
    if weights is not None:
        cotangents = tuple(c * weights.view(-1, *[1] * (c.ndim - 1)) for c in cotangents)
    return model.pull(cotangents)


def fisher_vector_product(
    model: Callable[[Tensor, slice], Linearizable],
    theta: Tensor,
    rows: int,
    *,
    weights: Tensor | None = None,
    chunk: int = 65536,
    share: Share | None = None,
) -> Callable[[Tensor], Tensor]:
    """The operator v `[P]` -> sum_n w_n J_n' M_n J_n v `[P]` at `theta` `[P]`.

    A batch of one chunk keeps its model for all products. A larger batch rebuilds the models of its chunks for each
    product, so memory is bounded by `chunk` rows.

    Args:
        model: `model(theta, rows)` evaluates a slice of the batch.
        theta: Where the matrix is taken.
        rows: The number N of rows in the batch.
        weights: w_n `[rows]`; by default 1/rows each.
        chunk: The largest number of rows evaluated at once.
        share: Which of all ranks' rows these are, so that the sum is over all; by default they are all.
    """
    share = share or Share(rows)
    theta = theta.detach().clone().requires_grad_(True)
    slices = row_slices(rows, chunk)
    kept = _linearized(model(theta, slices[0]), theta) if len(slices) == 1 else None

    def product(v: Tensor) -> Tensor:
        total = torch.zeros_like(v)
        for part in slices:
            linearized = kept or _linearized(model(theta, part), theta)
            total += _product(linearized, v, None if weights is None else weights[part])
        return share.mean(total) if weights is None else share.sum(total)

    return product


def curvature_of_rows(
    model: Callable[[Tensor, slice], Linearizable], theta: Tensor, v: Tensor, rows: int, *, chunk: int = 65536
) -> Tensor:
    """Each row's own curvature along v `[P]`: v' J_n' M_n J_n v, `[rows]`."""
    theta = theta.detach().clone().requires_grad_(True)
    found = []
    for part in row_slices(rows, chunk):
        linearized = _linearized(model(theta, part), theta)
        tangents = linearized.push(v)
        cotangents = linearized.fisher_product(tangents)
        products = [(t * c).reshape(len(t), -1).sum(1) for t, c in zip(tangents, cotangents, strict=True)]
        found.append(torch.stack(products).sum(0))
    return torch.cat(found)


def row_slices(rows: int, chunk: int) -> list[slice]:
    """Consecutive slices of at most `chunk` rows that cover all `rows`; an empty one if there are none."""
    return [slice(start, min(start + chunk, rows)) for start in range(0, max(rows, 1), chunk)]
