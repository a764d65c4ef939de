import math

import pytest
import torch
from torch import Tensor

from trpo_lightning.numerics.least_squares import (
    lbfgs_least_squares,
    mean_square,
    predictions,
    squared_error_gradient,
    trust_region_least_squares,
)

ROWS, HIDDEN = 40, 4
EXACT = {"cg_iterations": 200}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


class Problem:
    """V of a model linear in theta (`hidden` False), or of tanh units; x `[N, 3]`, y `[N]`."""

    def __init__(self, hidden: bool, rows: int = ROWS, seed: int = 0, dtype=torch.float64) -> None:
        self.hidden = hidden
        self.x = normal(rows, 3, seed=seed, dtype=dtype)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5], dtype=dtype) + 3.0 + normal(rows, seed=seed + 1, dtype=dtype)
        self.theta = 0.7 * normal(3 * HIDDEN + HIDDEN if hidden else 3, seed=seed + 2, dtype=dtype)

    def __call__(self, theta: Tensor, rows: slice) -> Tensor:
        if not self.hidden:
            return self.x[rows] @ theta
        return torch.tanh(self.x[rows] @ theta[: 3 * HIDDEN].view(3, HIDDEN)) @ theta[3 * HIDDEN :]

    def values(self, theta: Tensor) -> Tensor:
        return self(theta, slice(None))

    def error(self, theta: Tensor) -> float:
        return float((self.values(theta) - self.y).square().mean())

    def constraint(self, theta: Tensor) -> float:
        moved = (self.values(theta) - self.values(self.theta)).square().mean()
        return float(moved / (2.0 * (self.values(self.theta) - self.y).square().mean()))

    def gauss_newton(self) -> tuple[Tensor, Tensor, Tensor]:
        """Dense H, g and J."""
        jacobian = torch.autograd.functional.jacobian(self.values, self.theta)
        assert isinstance(jacobian, Tensor)
        errors = self.values(self.theta) - self.y
        return jacobian.T @ jacobian / len(self.y), jacobian.T @ errors / len(self.y), jacobian

    def step(self, **arguments) -> Tensor:
        arguments = {"epsilon": 0.01, **EXACT, **arguments}
        return trust_region_least_squares(self, self.theta, self.y, **arguments)


@pytest.fixture(params=[False, True], ids=["linear", "hidden"])
def problem(request) -> Problem:
    return Problem(request.param)


def test_gradient_is_that_of_the_mean_squared_error(problem):
    error, gradient = squared_error_gradient(problem, problem.theta, problem.y)
    assert error == pytest.approx(problem.error(problem.theta), rel=1e-12)
    for i in range(len(gradient)):
        h = torch.zeros_like(problem.theta)
        h[i] = 1e-6
        numeric = (problem.error(problem.theta + h) - problem.error(problem.theta - h)) / 2e-6
        assert float(gradient[i]) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("chunk", [1, 7, ROWS - 1, ROWS, 1000])
def test_chunks_change_nothing(problem, chunk):
    def close(a, b):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)

    theta, y = problem.theta, problem.y
    close(predictions(problem, theta, ROWS, chunk=chunk), problem.values(theta))
    (error, gradient), whole = (
        squared_error_gradient(problem, theta, y, chunk=chunk),
        squared_error_gradient(problem, theta, y),
    )
    assert error == pytest.approx(whole[0], rel=1e-12)
    close(gradient, whole[1])
    close(problem.step(chunk=chunk, damping=0.1, cg_iterations=5), problem.step(damping=0.1, cg_iterations=5))
    whole = lbfgs_least_squares(problem, theta, y, iterations=3, l2=0.1)
    close(lbfgs_least_squares(problem, theta, y, iterations=3, l2=0.1, chunk=chunk), whole)


def test_no_more_rows_than_a_chunk_are_evaluated_at_once(problem):
    seen = []

    def model(theta: Tensor, rows: slice) -> Tensor:
        values = problem(theta, rows)
        seen.append(len(values))
        return values

    trust_region_least_squares(model, problem.theta, problem.y, epsilon=0.01, cg_iterations=3, chunk=11)
    lbfgs_least_squares(model, problem.theta, problem.y, iterations=2, chunk=11)
    assert set(seen) == {11, 7}


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_always_is_the_dense_gauss_newton_step_to_the_boundary(problem, damping):
    h, g, _ = problem.gauss_newton()
    epsilon, sigma2 = 0.02, problem.error(problem.theta)
    s = -torch.linalg.solve(h + damping * torch.eye(len(g)), g)
    alpha = math.sqrt(2.0 * sigma2 * epsilon / float(s @ h @ s))
    new = problem.step(epsilon=epsilon, damping=damping, rescale="always", cg_iterations=500)
    tolerance = 1e-4 if damping == 0.0 else 1e-7  # an undamped system of tanh units is ill-conditioned
    torch.testing.assert_close(new, problem.theta + alpha * s, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_always_lands_on_the_boundary_of_a_linear_model(dtype, tolerance, epsilon, damping):
    problem = Problem(False, dtype=dtype)
    new = problem.step(epsilon=epsilon, damping=damping, rescale="always")
    assert problem.constraint(new) == pytest.approx(epsilon, rel=max(tolerance, 1e-5 if epsilon < 1e-3 else 0))


def test_outside_takes_the_whole_step_where_it_lies_within_and_so_solves_least_squares():
    problem = Problem(False)
    new = problem.step(epsilon=1e6)
    expected = torch.linalg.lstsq(problem.x, problem.y[:, None]).solution[:, 0]
    torch.testing.assert_close(new, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outside_scales_a_step_that_lies_beyond_to_the_boundary(dtype):
    problem = Problem(False, dtype=dtype)
    whole = problem.step(epsilon=1e6) - problem.theta
    taken = problem.step(epsilon=1e-3) - problem.theta
    share = float(taken.norm() / whole.norm())
    torch.testing.assert_close(taken, share * whole, rtol=1e-4, atol=1e-6)
    assert 0.9997e-3 < problem.constraint(problem.theta + taken) < 1e-3


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_outside_never_raises_the_error_and_keeps_the_constraint(seed, epsilon, damping):
    problem = Problem(True, seed=10 * seed)
    for _ in range(4):
        new = problem.step(epsilon=epsilon, damping=damping, cg_iterations=20)
        assert problem.constraint(new) <= epsilon * (1 + 1e-12)
        assert new is problem.theta or problem.error(new) < problem.error(problem.theta)
        problem.theta = new


def test_always_raises_the_error_of_a_fit_that_is_good_and_outside_does_not():
    problem = Problem(False)
    best = torch.linalg.lstsq(problem.x, problem.y[:, None]).solution[:, 0]
    problem.theta = best + 1e-3
    before = problem.error(problem.theta)
    assert problem.error(problem.step(epsilon=0.1, rescale="always")) > before
    assert problem.error(problem.step(epsilon=0.1)) < before


def test_more_iterations_of_conjugate_gradients_solve_more():
    problem = Problem(False)
    errors = [problem.error(problem.step(epsilon=1e6, damping=0.01, cg_iterations=k)) for k in (1, 2, 50)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("rescale", ["outside", "always"])
def test_a_perfect_fit_takes_no_step(problem, rescale):
    problem.y = problem.values(problem.theta)
    assert problem.step(rescale=rescale) is problem.theta


@pytest.mark.parametrize("rescale", ["outside", "always"])
def test_what_is_not_finite_takes_no_step(problem, rescale):
    beyond = lambda theta, rows: torch.where(  # noqa: E731
        (theta == problem.theta).all(), problem(theta, rows), problem(theta, rows) / 0.0
    )
    zero_over_zero = lambda theta, rows: problem(theta, rows) + torch.sqrt(theta[0] - theta[0].detach())  # noqa: E731
    for model in (beyond, zero_over_zero):  # infinite at any other theta; finite with a NaN gradient
        new = trust_region_least_squares(model, problem.theta, problem.y, epsilon=0.1, cg_iterations=3, rescale=rescale)
        assert new is problem.theta


def test_lbfgs_solves_ridge_regression():
    problem, l2 = Problem(False), 0.2
    h, _, j = problem.gauss_newton()
    expected = torch.linalg.solve(h + l2 * torch.eye(3), j.T @ problem.y / ROWS)
    found = lbfgs_least_squares(problem, problem.theta, problem.y, iterations=100, l2=l2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_one_iteration_of_lbfgs_goes_down_the_gradient(problem):
    _, gradient = squared_error_gradient(problem, problem.theta, problem.y)
    l2 = 0.3
    gradient = gradient + 2.0 * l2 * problem.theta
    step = lbfgs_least_squares(problem, problem.theta, problem.y, iterations=1, l2=l2) - problem.theta
    assert float(step @ gradient) == pytest.approx(-float(step.norm() * gradient.norm()), rel=1e-9)


def test_lbfgs_goes_on_for_its_iterations_and_draws_no_random_numbers():
    problem, state = Problem(True), torch.get_rng_state()
    runs = [lbfgs_least_squares(problem, problem.theta, problem.y, iterations=k) for k in (1, 5, 60, 60)]
    errors = [problem.error(theta) for theta in runs]
    assert problem.error(problem.theta) > errors[0] > errors[1] > errors[2]
    assert torch.equal(runs[2], runs[3]) and torch.equal(torch.get_rng_state(), state)
    assert mean_square(squared_error_gradient(problem, runs[2], problem.y)[1]) < 1e-6


def test_theta_is_left_alone(problem):
    theta = problem.theta.clone()
    problem.step()
    problem.step(rescale="always")
    lbfgs_least_squares(problem, problem.theta, problem.y, iterations=3)
    assert torch.equal(theta, problem.theta) and not problem.theta.requires_grad
