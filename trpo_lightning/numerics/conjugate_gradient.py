"""Conjugate gradients for a symmetric positive semi-definite operator (Hestenes & Stiefel 1952)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConjugateGradientSolution:
    """The approximate solution and how good it is.

    `x` `[P]`; `product` A x `[P]`, undamped; the number of `iterations`; `residual`, the recomputed
    |b - (A + damping I) x| / |b|.
    """

    x: Tensor
    product: Tensor
    iterations: int
    residual: float


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, *, iterations: int, tolerance: float = 1e-10, damping: float = 0.0
) -> ConjugateGradientSolution:
    """Approximate the solution of (A + damping I) x = b from x = 0, A given as `matvec(v)` = A v.

    Stops after `iterations`, at a relative residual of `tolerance`, or if p'(A + damping I)p is not positive, is NaN,
    or is so small that the step overflows; the current iterate is then the result. Draws no random numbers. Computes
    one product more than there are iterations, because the residual returned is the true one, not the recursion's.

    Args:
        matvec: The operator v `[P]` -> A v `[P]`.
        b: The right-hand side `[P]`.
        iterations: The maximum number of iterations.
        tolerance: Relative residual at which to stop.
        damping: Multiple of the identity added to A.
    """
    x = torch.zeros_like(b)
    residual = b.clone()
    direction = b.clone()  # not an alias of residual: both are updated in place
    squared = dot(residual, residual)
    enough = tolerance**2 * squared
    largest = torch.finfo(b.dtype).max
    done = 0
    while done < iterations and squared > enough:
        product = matvec(direction).add(direction, alpha=damping)
        curvature = dot(direction, product)
        if not curvature > 0.0:
            break
        alpha = squared / curvature
        if not alpha <= largest:
            break
        x.add_(direction, alpha=alpha)
        residual.sub_(product, alpha=alpha)
        previous, squared = squared, dot(residual, residual)
        direction.mul_(squared / previous).add_(residual)
        done += 1
    product = matvec(x) if done else torch.zeros_like(b)
    error = b - product - damping * x
    norm = math.sqrt(dot(b, b))
    return ConjugateGradientSolution(x, product, done, math.sqrt(dot(error, error)) / norm if norm else 0.0)


def dot(a: Tensor, b: Tensor) -> float:
    """a'b, accumulated in float64 (on the CPU where the device has no float64)."""
    if a.device.type == "mps":
        a, b = a.cpu(), b.cpu()
    return float(torch.dot(a.double(), b.double()))
