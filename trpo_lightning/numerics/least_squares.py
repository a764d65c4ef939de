"""Nonlinear least squares in the parameters of a model: one step in a trust region, or L-BFGS, on the whole batch.

    minimise (1/N) sum_n (V_n(theta) - y_n)^2

Every function takes `model(theta, rows)`, the predictions `[b]` for a slice of the N rows, differentiable in `theta`
`[P]`, and evaluates at most `chunk` rows at once. `share` says which of all ranks' rows they are; by default, all.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trpo_lightning.numerics.conjugate_gradient import dot
from trpo_lightning.numerics.curvature import Scalars, fisher_vector_product, row_slices
from trpo_lightning.numerics.trust_region import TrustRegionProblem, trust_region_step
from trpo_lightning.ranks import Share

CHUNK = 65536
JUST_INSIDE = 1.0 - 1e-4
"""Share of epsilon that a checked step aims at, so that rounding alone cannot put it outside and have it shrunk."""
Model = Callable[[Tensor, slice], Tensor]


@torch.no_grad()
def predictions(model: Model, theta: Tensor, rows: int, *, chunk: int = CHUNK) -> Tensor:
    """The model's predictions V `[N]` for all rows at `theta`."""
    return torch.cat([model(theta, part) for part in row_slices(rows, chunk)])


def mean_square(x: Tensor, share: Share | None = None) -> float:
    """(1/N) sum_n x_n^2, accumulated in float64 (on the CPU where the device has no float64)."""
    return (share or Share(len(x))).mean(dot(x, x))


def squared_error_gradient(
    model: Model, theta: Tensor, targets: Tensor, *, chunk: int = CHUNK, share: Share | None = None
) -> tuple[float, Tensor]:
    """The mean squared error at `theta` and its gradient 2/N sum_n (V_n - y_n) grad V_n, `[P]`."""
    theta, share = theta.detach().requires_grad_(True), share or Share(len(targets))
    total, gradient = 0.0, torch.zeros_like(theta)
    with torch.enable_grad():
        for part in row_slices(len(targets), chunk):
            errors = model(theta, part) - targets[part]
            gradient += torch.autograd.grad(errors, theta, 2.0 * errors.detach())[0]
            total += dot(errors.detach(), errors.detach())
    return share.mean(total), share.mean(gradient.detach())


def trust_region_least_squares(
    model: Model,
    theta: Tensor,
    targets: Tensor,
    *,
    epsilon: float,
    cg_iterations: int,
    damping: float = 0.0,
    rescale: str = "outside",
    chunk: int = CHUNK,
    share: Share | None = None,
) -> Tensor:
    r"""One step of least squares under (1/N) sum_n (V_n - V_old,n)^2 / (2 sigma^2) <= epsilon (GAE 2016, section 5).

    sigma^2 = (1/N) sum_n (V_old,n - y_n)^2, and s ~ -(H + damping I)^-1 g by conjugate gradients, H = (1/N) sum_n
    j_n j_n' the Gauss-Newton matrix (j = grad V), g = (1/N) sum_n (V_n - y_n) j_n. For a model linear in theta the
    boundary is at alpha = sqrt(2 sigma^2 epsilon / s'Hs). `rescale="outside"` takes min(1, alpha) s and shrinks it
    until the error falls and the constraint holds; `"always"` takes alpha s unchecked, the paper's step, which can
    raise the error once the fit is good.

    Returns:
        The new parameters `[P]`; the `theta` object itself if there is no step, because sigma = 0, the gradient is
        zero, a number is not finite, or the search fails.
    """
    old = predictions(model, theta, len(targets), chunk=chunk)
    variance = mean_square(old - targets, share)  # sigma^2

    def evaluate(candidate: Tensor) -> tuple[float, float]:
        new = predictions(model, candidate, len(targets), chunk=chunk)
        return -0.5 * mean_square(new - targets, share), 0.5 * mean_square(new - old, share)

    problem = TrustRegionProblem(
        theta=theta,
        evaluate=evaluate,
        gradient=lambda: -0.5 * squared_error_gradient(model, theta, targets, chunk=chunk, share=share)[1],
        curvature_product=fisher_vector_product(
            lambda th, rows: Scalars(model(th, rows)), theta, len(targets), chunk=chunk, share=share
        ),
    )
    always = rescale == "always"
    aim = 1.0 if always else JUST_INSIDE
    return trust_region_step(
        problem,
        delta=aim * epsilon * variance,  # the constraint times sigma^2
        cg_iterations=cg_iterations,
        damping=damping,
        step_length="undamped",
        max_step_size=math.inf if always else 1.0,
        backtrack_ratio=0.8,
        max_backtracks=0 if always else 10,
        kl_slack=None if always else 1.0 / aim,
        improvement_ratio=None if always else 0.0,
    ).theta


def lbfgs_least_squares(
    model: Model,
    theta: Tensor,
    targets: Tensor,
    *,
    iterations: int,
    l2: float = 0.0,
    chunk: int = CHUNK,
    share: Share | None = None,
) -> Tensor:
    """L-BFGS with a strong-Wolfe line search on the mean squared error + l2 |theta|^2 (Nocedal & Wright, ch. 7).

    Starts without history and draws no random numbers. Returns the new parameters `[P]`, not finite if it diverged.
    """
    solution = theta.detach().clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [solution],
        max_iter=iterations,
        max_eval=26 * iterations,  # so that `iterations` is the limit: a line search takes up to 25 evaluations
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        error, gradient = squared_error_gradient(model, solution, targets, chunk=chunk, share=share)
        point = solution.detach()
        solution.grad = gradient.add(point, alpha=2.0 * l2)
        return error + l2 * dot(point, point)

    return solved(optimizer, closure, solution)


def solved(optimizer: torch.optim.LBFGS, closure: Callable[[], Any], solution: Tensor) -> Tensor:
    """The solution after one optimizer step; NaN if its step length overflows, for which torch raises."""
    try:
        optimizer.step(closure)
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        return torch.full_like(solution, math.nan, requires_grad=False)
    return solution.detach()
