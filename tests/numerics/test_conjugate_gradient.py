import math

import pytest
import torch
from torch import Tensor

from trpo_lightning.numerics.conjugate_gradient import conjugate_gradient, dot


def spd(size: int, condition: float = 100.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    eigenvalues = torch.logspace(0, math.log10(condition), size, dtype=torch.float64)
    return q @ torch.diag(eigenvalues) @ q.T


def vector(size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 2, 5, 20])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("damping", [0.0, 0.1, 3.0])
def test_agrees_with_the_dense_solution(size, condition, damping):
    a, b = spd(size, condition), vector(size)
    expected = torch.linalg.solve(a + damping * torch.eye(size, dtype=torch.float64), b)
    solution = conjugate_gradient(lambda v: a @ v, b, iterations=20 * size, tolerance=1e-13, damping=damping)
    torch.testing.assert_close(solution.x, expected, rtol=1e-8, atol=1e-9)
    assert solution.residual < 1e-10


def test_needs_no_more_iterations_than_distinct_eigenvalues():
    a = torch.diag(torch.tensor([1.0, 1.0, 4.0, 4.0, 9.0], dtype=torch.float64))
    solution = conjugate_gradient(lambda v: a @ v, vector(5), iterations=50, tolerance=1e-12)
    assert solution.iterations == 3


@pytest.mark.parametrize("iterations", range(1, 8))
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_curvature_of_every_iterate_equals_its_ascent(iterations, damping):
    a, b = spd(8, 1e3), vector(8)
    x = conjugate_gradient(lambda v: a @ v, b, iterations=iterations, tolerance=0.0, damping=damping).x
    assert float(x @ (a @ x) + damping * x @ x) == pytest.approx(float(x @ b), rel=1e-9)


@pytest.mark.parametrize("iterations", range(1, 7))
def test_iterates_minimise_the_quadratic_over_their_krylov_space(iterations):
    a, b = spd(7, 50.0), vector(7)
    powers = torch.stack([torch.linalg.matrix_power(a, k) @ b for k in range(iterations)], dim=1)
    basis, _ = torch.linalg.qr(powers)
    expected = basis @ torch.linalg.solve(basis.T @ a @ basis, basis.T @ b)
    x = conjugate_gradient(lambda v: a @ v, b, iterations=iterations, tolerance=0.0).x
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-8)


def test_product_is_undamped():
    a, b = spd(6), vector(6)
    solution = conjugate_gradient(lambda v: a @ v, b, iterations=3, damping=0.7)
    torch.testing.assert_close(solution.product, a @ solution.x, rtol=0, atol=1e-12)


def test_zero_right_hand_side_asks_for_no_product():
    def matvec(v: Tensor) -> Tensor:
        raise AssertionError("no product is needed")

    solution = conjugate_gradient(matvec, torch.zeros(4), iterations=10)
    assert torch.equal(solution.x, torch.zeros(4)) and torch.equal(solution.product, torch.zeros(4))
    assert (solution.iterations, solution.residual) == (0, 0.0)


def test_indefinite_matrix_stops_and_keeps_the_iterate():
    a = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    b = torch.tensor([1.0, 0.5], dtype=torch.float64)
    solution = conjugate_gradient(lambda v: a @ v, b, iterations=10)
    assert solution.iterations == 1
    torch.testing.assert_close(solution.x, b * (b @ b) / (b @ a @ b))


def test_negative_curvature_at_once_leaves_zero():
    b = vector(3)
    solution = conjugate_gradient(lambda v: -v, b, iterations=10)
    assert torch.equal(solution.x, torch.zeros_like(b))
    assert (solution.iterations, solution.residual) == (0, pytest.approx(1.0))


def test_damping_makes_a_slightly_indefinite_matrix_solvable():
    a = torch.diag(torch.tensor([1.0, -0.1], dtype=torch.float64))
    b = torch.tensor([1.0, 1.0], dtype=torch.float64)
    solution = conjugate_gradient(lambda v: a @ v, b, iterations=10, damping=0.6)
    torch.testing.assert_close(solution.x, b / torch.tensor([1.6, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("good_products", [0, 1, 2])
def test_nan_product_stops_and_keeps_the_iterate(good_products):
    a, b = spd(5), vector(5)
    calls = 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return a @ v if calls <= good_products else torch.full_like(v, math.nan)

    solution = conjugate_gradient(matvec, b, iterations=10)
    expected = conjugate_gradient(lambda v: a @ v, b, iterations=good_products).x
    assert solution.iterations == good_products
    assert torch.equal(solution.x, expected)


def test_nan_right_hand_side_returns_without_an_exception():
    solution = conjugate_gradient(lambda v: v, torch.tensor([math.nan, 1.0]), iterations=10)
    assert solution.iterations == 0 and math.isnan(solution.residual)


def test_tolerance_stops_at_the_first_iterate_that_meets_it():
    a, b = spd(30, 1e3), vector(30)
    solution = conjugate_gradient(lambda v: a @ v, b, iterations=100, tolerance=1e-3)
    before = conjugate_gradient(lambda v: a @ v, b, iterations=solution.iterations - 1, tolerance=0.0)
    assert 2 < solution.iterations < 100
    assert solution.residual <= 1e-3 < before.residual


def test_tolerance_is_relative_to_the_right_hand_side():
    a, b = spd(20), vector(20)
    iterations = [
        conjugate_gradient(lambda v: a @ v, scale * b, iterations=100, tolerance=1e-4).iterations
        for scale in (2.0**-60, 1.0, 2.0**60)
    ]
    assert len(set(iterations)) == 1


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_residual_is_recomputed_not_the_recursions(damping):
    index = torch.arange(1.0, 13.0)
    a = 1.0 / (index[:, None] + index[None, :] - 1.0)
    b = torch.ones(12)
    solution = conjugate_gradient(lambda v: a @ v, b, iterations=100, tolerance=0.0, damping=damping)
    error = (b - a @ solution.x - damping * solution.x).double().norm() / b.double().norm()
    assert solution.residual == pytest.approx(float(error), rel=0.3)
    assert solution.residual > 1e-9


def test_one_product_more_than_iterations():
    a, b = spd(9), vector(9)
    arguments = []

    def matvec(v: Tensor) -> Tensor:
        arguments.append(v.clone())
        return a @ v

    solution = conjugate_gradient(matvec, b, iterations=4, tolerance=0.0)
    assert solution.iterations == 4 and len(arguments) == 5
    assert torch.equal(arguments[0], b) and torch.equal(arguments[-1], solution.x)


def test_right_hand_side_is_neither_changed_nor_aliased():
    a, b = spd(6), vector(6)
    before = b.clone()
    one = conjugate_gradient(lambda v: v, b, iterations=1)
    conjugate_gradient(lambda v: a @ v, b, iterations=6)
    assert torch.equal(b, before)
    assert one.x.data_ptr() != b.data_ptr()


def test_matvec_may_return_a_buffer_it_reuses_or_its_argument():
    a, b = spd(6), vector(6)
    buffer = torch.empty_like(b)
    expected = conjugate_gradient(lambda v: a @ v, b, iterations=4)
    reused = conjugate_gradient(lambda v: torch.mv(a, v, out=buffer), b, iterations=4)
    assert torch.equal(reused.x, expected.x)
    assert torch.equal(conjugate_gradient(lambda v: v, b, iterations=3).x, b)


def test_draws_no_random_numbers():
    a, b = spd(6), vector(6)
    state = torch.get_rng_state()
    first = conjugate_gradient(lambda v: a @ v, b, iterations=3)
    second = conjugate_gradient(lambda v: a @ v, b, iterations=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.x, second.x)


@pytest.mark.parametrize("scale", [1e-28, 1e28])
def test_float32_dot_products_are_accumulated_in_float64(scale):
    eigenvalues = torch.tensor([1.0, 2.0, 4.0])
    b = torch.tensor([scale, scale, scale])
    solution = conjugate_gradient(lambda v: eigenvalues * v, b, iterations=10, tolerance=1e-6)
    assert solution.x.dtype == torch.float32
    torch.testing.assert_close(solution.x / scale, 1.0 / eigenvalues, rtol=1e-5, atol=0.0)


def test_dot_survives_cancellation_beyond_float32():
    a = torch.tensor([2.0**24, 1.0, -(2.0**24)])
    assert dot(a, torch.ones(3)) == 1.0
