import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trpo_lightning.numerics.conjugate_gradient import conjugate_gradient
from trpo_lightning.numerics.line_search import SearchFailure
from trpo_lightning.numerics.trust_region import StepRejection, TrustRegionProblem, trust_region_step

SIZE = 6
DELTA = 0.02
EXACT = {"cg_iterations": 50, "cg_tolerance": 1e-14}


def spd(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator)
    return root @ root.T + 0.3 * torch.eye(SIZE, dtype=torch.float64)


def vector(seed: int) -> Tensor:
    return torch.randn(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


A, G, THETA = spd(), vector(1), vector(2)
EYE = torch.eye(SIZE, dtype=torch.float64)


def linear_quadratic(
    a: Tensor = A, g: Tensor = G, theta: Tensor = THETA, *, kl_factor: float = 1.0 - 1e-9, offset: float = 5.0
) -> TrustRegionProblem:
    """Surrogate linear, KL `kl_factor` times its quadratic model: just below 1, so that rounding is no violation."""

    def evaluate(x: Tensor) -> tuple[float, float]:
        step = x - theta
        return offset + float(g @ step), kl_factor * 0.5 * float(step @ a @ step)

    return TrustRegionProblem(theta, evaluate, lambda: g.clone(), lambda v: a @ v)


def test_solves_the_linear_quadratic_problem_in_closed_form():
    natural = torch.linalg.solve(A, G)
    step = trust_region_step(linear_quadratic(), delta=DELTA, damping=0.0, **EXACT)
    expected = THETA + math.sqrt(2.0 * DELTA / float(G @ natural)) * natural
    assert step.rejection is None
    torch.testing.assert_close(step.theta, expected, rtol=1e-9, atol=1e-10)


def test_no_feasible_point_is_better():
    problem = linear_quadratic()
    step = trust_region_step(problem, delta=DELTA, damping=0.0, **EXACT)
    best, _ = problem.evaluate(step.theta)
    root = torch.linalg.cholesky(torch.linalg.inv(A))
    directions = torch.randn(2000, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    boundary = THETA + math.sqrt(2.0 * DELTA) * (directions / directions.norm(dim=1, keepdim=True)) @ root.T
    assert max(problem.evaluate(x)[0] for x in boundary) < best


@pytest.mark.parametrize("damping", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("step_length", ["damped", "undamped"])
def test_length_and_direction_of_the_damped_step(damping, step_length):
    damped = A + damping * EYE
    s = torch.linalg.solve(damped, G)
    length = damped if step_length == "damped" else A
    expected = math.sqrt(2.0 * DELTA / float(s @ length @ s)) * s
    step = trust_region_step(linear_quadratic(), delta=DELTA, damping=damping, step_length=step_length, **EXACT)
    torch.testing.assert_close(step.theta - THETA, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("damping", [0.1, 2.0])
def test_quadratic_predictions_separate_damped_from_undamped(damping):
    by_length = {
        length: trust_region_step(linear_quadratic(), delta=DELTA, damping=damping, step_length=length, **EXACT)
        for length in ("damped", "undamped")
    }
    assert by_length["undamped"].quadratic == pytest.approx(DELTA, rel=1e-12)
    assert by_length["undamped"].quadratic_damped > 1.01 * DELTA
    assert by_length["damped"].quadratic_damped == pytest.approx(DELTA, rel=1e-12)
    assert by_length["damped"].quadratic < 0.99 * DELTA
    assert by_length["damped"].norm < by_length["undamped"].norm


@pytest.mark.parametrize(("kl_factor", "backtracks"), [(0.999, 0), (3.0, 3)])
@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_the_numbers_describe_the_step_that_was_taken(kl_factor, backtracks, iterations):
    problem = linear_quadratic(kl_factor=kl_factor)
    result = trust_region_step(
        problem, delta=DELTA, damping=0.1, step_length="undamped", cg_iterations=iterations, cg_tolerance=1e-14
    )
    step = result.theta - THETA
    quadratic = 0.5 * float(step @ A @ step)
    assert result.search.backtracks == backtracks and result.search.accepted
    assert result.search.constraint == pytest.approx(kl_factor * quadratic)
    assert result.quadratic == pytest.approx(quadratic)
    assert result.quadratic == pytest.approx(DELTA * 0.8 ** (2 * backtracks))
    assert result.quadratic_damped == pytest.approx(quadratic + 0.05 * float(step @ step))
    assert result.expected_improvement == pytest.approx(float(G @ step))
    assert result.search.improvement == pytest.approx(float(G @ step))
    assert result.norm == pytest.approx(float(step.norm()))
    solution = conjugate_gradient(lambda v: A @ v, G, iterations=iterations, tolerance=1e-14, damping=0.1)
    assert result.solution.iterations == solution.iterations
    assert result.solution.residual == solution.residual
    torch.testing.assert_close(step / step.norm(), solution.x / solution.x.norm(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_a_limited_step_maximises_the_penalized_problem(damping):
    """If the limit c binds, no other point has a larger g'd - d'(A + damping I)d / 2c; beyond, it changes nothing."""
    free = trust_region_step(linear_quadratic(), delta=DELTA, damping=damping, **EXACT)
    limit = 0.3 * free.scale
    step = trust_region_step(linear_quadratic(), delta=DELTA, damping=damping, max_step_size=limit, **EXACT)
    assert step.scale == limit and step.quadratic == pytest.approx(0.09 * free.quadratic)

    def penalized(d: Tensor) -> float:
        return float(G @ d - d @ (A + damping * EYE) @ d / (2.0 * limit))

    found, generator = step.theta - THETA, torch.Generator().manual_seed(4)
    others = [found + 0.1 * torch.randn(SIZE, dtype=torch.float64, generator=generator) for _ in range(500)]
    assert penalized(found) > max(penalized(d) for d in others)
    beyond = trust_region_step(
        linear_quadratic(), delta=DELTA, damping=damping, max_step_size=9.0 * free.scale, **EXACT
    )
    assert torch.equal(beyond.theta, free.theta)


@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_fixed_length_is_the_natural_gradient_times_a_multiplier(damping):
    natural = torch.linalg.solve(A + damping * EYE, G)
    for step_size in (0.01, 3.0):
        step = trust_region_step(
            linear_quadratic(), delta=1e9, damping=damping, step_length="fixed", step_size=step_size, **EXACT
        )
        torch.testing.assert_close(step.theta, THETA + step_size * natural, rtol=1e-9, atol=1e-10)
        assert step.scale == step_size


@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize("step_length", ["damped", "undamped"])
def test_a_maximum_is_bounded_by_its_largest_curvature(damping, step_length):
    matrices = [spd(seed) for seed in range(20, 25)]
    mean = torch.stack(matrices).mean(0)
    s = torch.linalg.solve(mean + damping * EYE, G)
    extra = damping * float(s @ s) if step_length == "damped" else 0.0
    bounded = [float(s @ matrix @ s) + extra for matrix in matrices]
    problem = replace(
        linear_quadratic(mean, kl_factor=0.1), largest_curvature=lambda v: max(float(v @ m @ v) for m in matrices)
    )
    step = trust_region_step(problem, delta=DELTA, damping=damping, step_length=step_length, **EXACT)
    beta = min(math.sqrt(2.0 * DELTA / b) for b in bounded)
    torch.testing.assert_close(step.theta, THETA + beta * s, rtol=1e-8, atol=1e-10)
    assert step.quadratic == pytest.approx(beta**2 * float(s @ mean @ s) / 2.0)


def test_solves_in_the_precision_of_the_gradient_and_steps_in_that_of_theta():
    ill = A.clone()
    ill[0] *= 1e-4
    ill[:, 0] *= 1e-4
    problem = replace(linear_quadratic(ill, theta=THETA.float()), gradient=lambda: G.clone())
    problem = replace(
        problem, evaluate=lambda x: linear_quadratic(ill, theta=THETA.float().double()).evaluate(x.double())
    )
    step = trust_region_step(problem, delta=1e3, damping=0.0, kl_slack=None, **EXACT)
    assert step.theta.dtype == torch.float32 and step.rejection is None
    assert step.solution.residual < 1e-9
    full_step = step.scale * torch.linalg.solve(ill, G)
    torch.testing.assert_close(step.theta, THETA.float() + full_step.float(), rtol=1e-6, atol=1e-6)


def curved(x: Tensor) -> tuple[float, float]:
    """A surrogate that bends down along the step, and a KL that grows faster than its quadratic model."""
    step = x - THETA
    quadratic = float(step @ A @ step) / 2.0
    return float(G @ step) - 30.0 * quadratic**1.5, quadratic + 4.0 * quadratic**2


@pytest.mark.parametrize("kl_slack", [0.3, 1.0, 1.5, None])
@pytest.mark.parametrize("improvement_ratio", [None, 0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("delta", [0.02, 0.5, 2.0])
def test_acceptance_is_the_first_candidate_of_a_scan_that_fulfils_the_rules(kl_slack, improvement_ratio, delta):
    s = torch.linalg.solve(A + 0.1 * EYE, G)
    full_step = math.sqrt(2.0 * delta / float(s @ A @ s)) * s
    fitting = []
    for k in range(41):
        step = 0.85**k * full_step
        rise, kl = curved(THETA + step)
        improves = improvement_ratio is None or rise > improvement_ratio * float(G @ step)
        if improves and (kl_slack is None or kl <= kl_slack * delta):
            fitting.append(k)
    found = trust_region_step(
        replace(linear_quadratic(), evaluate=curved),
        delta=delta,
        step_length="undamped",
        kl_slack=kl_slack,
        improvement_ratio=improvement_ratio,
        backtrack_ratio=0.85,
        max_backtracks=40,
        **EXACT,
    )
    assert fitting and found.search.backtracks == fitting[0]
    torch.testing.assert_close(found.theta, THETA + 0.85 ** fitting[0] * full_step, rtol=1e-8, atol=1e-10)


def test_backtrack_ratio_and_limit_are_the_callers():
    problem = linear_quadratic(kl_factor=3.0)
    step = trust_region_step(problem, delta=DELTA, backtrack_ratio=0.5, max_backtracks=1)
    assert step.search.backtracks == 1.0
    rejected = trust_region_step(problem, delta=DELTA, backtrack_ratio=0.8, max_backtracks=1)
    assert rejected.rejection is StepRejection.SEARCH_FAILED


def test_step_grows_with_the_root_of_delta():
    norms = [trust_region_step(linear_quadratic(), delta=delta).norm for delta in (0.01, 0.04)]
    assert norms[1] == pytest.approx(2.0 * norms[0])


def test_undamped_step_is_invariant_under_linear_reparametrisation():
    t = spd(7) + vector(8)[:, None] * vector(9)
    transformed = linear_quadratic(t.T @ A @ t, t.T @ G, torch.linalg.solve(t, THETA))
    plain = trust_region_step(linear_quadratic(), delta=DELTA, damping=0.0, **EXACT)
    other = trust_region_step(transformed, delta=DELTA, damping=0.0, **EXACT)
    torch.testing.assert_close(t @ other.theta, plain.theta, rtol=1e-6, atol=1e-7)


def test_step_does_not_depend_on_the_scale_of_an_undamped_surrogate():
    plain = trust_region_step(linear_quadratic(), delta=DELTA, damping=0.0, **EXACT)
    scaled = trust_region_step(linear_quadratic(g=1e6 * G), delta=DELTA, damping=0.0, **EXACT)
    torch.testing.assert_close(scaled.theta, plain.theta, rtol=1e-9, atol=1e-10)


def nan_after(products: int) -> Callable[[Tensor], Tensor]:
    calls = 0

    def product(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return A @ v if calls <= products else torch.full_like(v, math.nan)

    return product


def with_candidates(answer: tuple[float, float]) -> Callable[[Tensor], tuple[float, float]]:
    return lambda x: (5.0, 0.0) if torch.equal(x, THETA) else answer


NO_ASCENT = StepRejection.NO_ASCENT_DIRECTION
GRADIENT = StepRejection.GRADIENT_NOT_FINITE
SOLUTION = StepRejection.SOLUTION_NOT_FINITE
REJECTIONS = {
    "NaN gradient": ({"gradient": lambda: G * math.nan}, GRADIENT),
    "one infinite entry": ({"gradient": lambda: torch.where(G == G.max(), math.inf, G)}, GRADIENT),
    "zero gradient": ({"gradient": lambda: torch.zeros_like(G)}, NO_ASCENT),
    "NaN curvature": ({"curvature_product": lambda v: v * math.nan}, NO_ASCENT),
    "NaN curvature at the solution": ({"curvature_product": nan_after(3)}, SOLUTION),
    "infinite solution": ({"curvature_product": lambda v: v * 1e-320}, NO_ASCENT),
    "negative curvature": ({"curvature_product": lambda v: -v}, NO_ASCENT),
    "negative curvature hidden by damping": ({"curvature_product": lambda v: -0.05 * v}, NO_ASCENT),
    "zero curvature": ({"curvature_product": lambda v: 0.0 * v}, NO_ASCENT),
    "NaN in the largest curvature": ({"largest_curvature": lambda v: math.nan}, NO_ASCENT),
    "infinite largest curvature": ({"largest_curvature": lambda v: math.inf}, NO_ASCENT),
    "no largest curvature": ({"largest_curvature": lambda v: 0.0}, NO_ASCENT),
    "KL beyond delta": ({"evaluate": with_candidates((6.0, 2.0 * DELTA))}, SearchFailure.CONSTRAINT_EXCEEDED),
    "no improvement": ({"evaluate": with_candidates((5.0, 0.0))}, SearchFailure.NO_IMPROVEMENT),
    "NaN surrogate": ({"evaluate": with_candidates((math.nan, 0.0))}, SearchFailure.CANDIDATE_NOT_FINITE),
    "NaN KL": ({"evaluate": with_candidates((6.0, math.nan))}, SearchFailure.CANDIDATE_NOT_FINITE),
    "infinite surrogate": ({"evaluate": with_candidates((math.inf, 0.0))}, SearchFailure.CANDIDATE_NOT_FINITE),
    "NaN at the old policy": (
        {"evaluate": lambda x: (math.nan, 0.0)},
        SearchFailure.START_NOT_FINITE,
    ),
}


@pytest.mark.parametrize("case", REJECTIONS)
def test_rejection_has_its_reason_and_leaves_theta_bit_identical(case):
    broken, reason = REJECTIONS[case]
    theta = THETA.clone()
    problem = replace(linear_quadratic(theta=theta), **broken)
    cg_iterations = 3 if case == "NaN curvature at the solution" else 10
    damping = 0.0 if case == "infinite solution" else 0.1
    step = trust_region_step(problem, delta=DELTA, damping=damping, cg_iterations=cg_iterations, cg_tolerance=1e-14)
    searched = isinstance(reason, SearchFailure)
    assert step.rejection is (StepRejection.SEARCH_FAILED if searched else reason)
    assert (step.search.failure if searched else step.search) is (reason if searched else None)
    assert step.theta is theta
    assert torch.equal(theta, THETA)
    assert step.scale == step.norm == step.quadratic == step.expected_improvement == 0.0
    assert step.nothing_to_gain == (case == "zero gradient")


@pytest.mark.parametrize(
    ("scale", "resolution", "nothing"),
    [(1.0, 1e-6, False), (1e-9, 1e-6, True), (1e-9, 0.0, False), (0.0, 0.0, True)],
)
@pytest.mark.parametrize("search", ["does not improve", "is beyond delta", "is not finite"])
@pytest.mark.parametrize("step_length", ["damped", "undamped", "fixed"])
def test_a_rejection_is_no_failure_where_the_gradient_promises_less_than_can_be_resolved(
    scale, resolution, nothing, search, step_length
):
    """A gradient of rounding errors promises much for the paper's step: delta is always used up."""
    answers = {"does not improve": (5.0, 0.0), "is beyond delta": (6.0, 1.0), "is not finite": (math.nan, 0.0)}
    problem = replace(linear_quadratic(g=scale * G), evaluate=with_candidates(answers[search]), resolution=resolution)
    step = trust_region_step(problem, delta=DELTA, step_length=step_length, max_backtracks=2)
    assert step.rejection is (StepRejection.SEARCH_FAILED if scale else StepRejection.NO_ASCENT_DIRECTION)
    assert step.nothing_to_gain == (nothing and not (scale and search == "is not finite"))


@pytest.mark.parametrize(("scale", "nothing"), [(1.0, False), (1e-9, True)])
def test_nor_is_a_direction_that_is_missing(scale, nothing):
    problem = replace(linear_quadratic(g=scale * G), curvature_product=lambda v: 0.0 * v, resolution=1e-6)
    step = trust_region_step(problem, delta=DELTA)
    assert step.rejection is NO_ASCENT and step.nothing_to_gain == nothing


def test_exhausted_line_search_tries_the_full_step_and_each_backtrack():
    tried = []

    def evaluate(x: Tensor) -> tuple[float, float]:
        tried.append(x.clone())
        return 5.0, 0.0

    step = trust_region_step(replace(linear_quadratic(), evaluate=evaluate), delta=DELTA, max_backtracks=4)
    assert len(tried) == 1 + 5
    assert step.search.backtracks == 4.0


def test_draws_no_random_numbers_and_keeps_float32():
    state = torch.get_rng_state()
    a, g, theta = A.float(), G.float(), THETA.float()
    step = trust_region_step(linear_quadratic(a, g, theta, kl_factor=0.99), delta=DELTA)
    assert step.rejection is None and step.theta.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)
