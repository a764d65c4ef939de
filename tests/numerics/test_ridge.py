import math

import pytest
import torch
from torch import Tensor

from trpo_lightning.numerics.ridge import ridge_regression


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([1.0, -2.0, 0.5, 0.0]).double() + torch.randn(30, generator=generator).double()


def solve(x: Tensor, y: Tensor, penalties: Tensor) -> Tensor | None:
    return ridge_regression(x.T @ x / len(x), x.T @ y / len(x), penalties)


def test_is_least_squares_with_a_row_for_each_penalty():
    x, y = data()
    penalties = torch.tensor([0.0, 0.1, 2.0, 1e-5], dtype=torch.float64)
    rows = torch.diag((len(x) * penalties).sqrt())
    oracle = torch.linalg.lstsq(torch.cat([x, rows]), torch.cat([y, torch.zeros(4).double()])[:, None]).solution[:, 0]
    torch.testing.assert_close(solve(x, y, penalties), oracle, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["collinear", "zero", "few rows"])
def test_a_singular_system_gets_a_solution_that_predicts_as_well(kind, scale):
    x, y = data()
    x = scale * x
    if kind == "few rows":
        x, y = x[:2], y[:2]
    else:
        x[:, 3] = 2.0 * x[:, 1] if kind == "collinear" else 0.0
    w = solve(x, y, torch.zeros(4))
    best = x @ torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]
    assert w is not None and torch.isfinite(w).all()
    assert float((x @ w - y).square().mean()) <= float((best - y).square().mean()) * 1.01 + 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_what_is_not_finite_has_no_solution(bad, where):
    x, y = data()
    (x, y)[where][3] = bad
    assert solve(x, y, torch.zeros(4)) is None


def test_float32_systems_are_solved_in_float64():
    x, y = data()
    w = solve(x.float(), y.float(), torch.ones(4))
    assert w is not None and w.dtype == torch.float64
    torch.testing.assert_close(w, solve(x, y, torch.ones(4)), rtol=1e-5, atol=1e-6)
