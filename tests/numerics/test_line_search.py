import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trpo_lightning.numerics.line_search import SearchFailure, backtracking_line_search

THETA = torch.tensor([1.0, -2.0], dtype=torch.float64)
STEP = torch.tensor([4.0, 8.0], dtype=torch.float64)


class Script:
    """Answers the start and then the candidates from a list, and remembers where it was asked."""

    def __init__(self, *answers: tuple[float, float]) -> None:
        self.answers = answers
        self.asked: list[torch.Tensor] = []

    def __call__(self, theta: torch.Tensor) -> tuple[float, float]:
        self.asked.append(theta.clone())
        return self.answers[len(self.asked) - 1]


def search(evaluate, *, bound=0.1, ratio=0.5, max_backtracks=3):
    return backtracking_line_search(evaluate, THETA, STEP, bound=bound, ratio=ratio, max_backtracks=max_backtracks)


def test_takes_the_full_step_when_it_is_good():
    evaluate = Script((1.0, 0.0), (3.0, 0.1))
    result = search(evaluate)
    assert (result.accepted, result.fraction, result.backtracks, result.failure) == (True, 1.0, 0, None)
    assert (result.improvement, result.constraint) == (2.0, 0.1)
    assert torch.equal(result.theta, THETA + STEP)


def test_counts_backtracks_and_shrinks_by_the_ratio():
    evaluate = Script((1.0, 0.0), (3.0, 0.2), (0.5, 0.05), (1.5, 0.02))
    result = search(evaluate)
    assert (result.accepted, result.fraction, result.backtracks) == (True, 0.25, 2)
    assert (result.improvement, result.constraint) == (0.5, 0.02)
    expected = [THETA, THETA + STEP, THETA + 0.5 * STEP, THETA + 0.25 * STEP]
    assert all(torch.equal(a, b) for a, b in zip(evaluate.asked, expected, strict=True))
    assert torch.equal(result.theta, THETA + 0.25 * STEP)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ((2.0, 0.1000001), SearchFailure.CONSTRAINT_EXCEEDED),
        ((1.0, 0.05), SearchFailure.NO_IMPROVEMENT),
        ((0.9, 0.05), SearchFailure.NO_IMPROVEMENT),
        ((math.nan, 0.05), SearchFailure.CANDIDATE_NOT_FINITE),
        ((2.0, math.nan), SearchFailure.CANDIDATE_NOT_FINITE),
        ((math.inf, 0.05), SearchFailure.CANDIDATE_NOT_FINITE),
        ((2.0, math.inf), SearchFailure.CANDIDATE_NOT_FINITE),
        ((2.0, -math.inf), SearchFailure.CANDIDATE_NOT_FINITE),
    ],
)
def test_refused_candidates_end_in_the_very_tensor_it_started_from(candidate, reason):
    result = search(Script((1.0, 0.0), *[candidate] * 4))
    assert result.theta is THETA
    assert (result.accepted, result.fraction, result.backtracks) == (False, 0.0, 3)
    assert (result.improvement, result.constraint, result.failure) == (0.0, 0.0, reason)


def test_a_non_finite_candidate_does_not_stop_the_search():
    result = search(Script((1.0, 0.0), (math.nan, math.nan), (1.5, 0.05)))
    assert result.accepted and result.backtracks == 1


@pytest.mark.parametrize("start", [math.nan, math.inf, -math.inf])
def test_non_finite_start_tries_nothing(start):
    evaluate = Script((start, 0.0))
    result = search(evaluate)
    assert not result.accepted and result.theta is THETA
    assert len(evaluate.asked) == 1
    assert result.failure == SearchFailure.START_NOT_FINITE


def test_no_backtracks_is_one_try():
    evaluate = Script((1.0, 0.0), (0.0, 0.0))
    assert not search(evaluate, max_backtracks=0).accepted
    assert len(evaluate.asked) == 2


numbers = st.one_of(
    st.floats(-3.0, 3.0), st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]), st.floats(-1e300, 1e300)
)


@settings(deadline=None)
@given(
    start=st.floats(-2.0, 2.0),
    candidates=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8),
    bound=st.floats(0.0, 2.0),
    ratio=st.floats(0.05, 0.99),
)
def test_takes_the_first_acceptable_candidate_or_none(start, candidates, bound, ratio):
    good = [
        k
        for k, (objective, constraint) in enumerate(candidates)
        if math.isfinite(objective) and math.isfinite(constraint) and objective > start and constraint <= bound
    ]
    evaluate = Script((start, 0.0), *candidates)
    result = search(evaluate, bound=bound, ratio=ratio, max_backtracks=len(candidates) - 1)
    assert result.accepted == bool(good)
    if good:
        k = good[0]
        assert result.backtracks == k and result.fraction == ratio**k
        assert result.improvement == candidates[k][0] - start and result.constraint == candidates[k][1]
        assert torch.equal(result.theta, THETA + ratio**k * STEP)
        assert len(evaluate.asked) == k + 2
    else:
        assert result.theta is THETA and result.failure
        assert len(evaluate.asked) == len(candidates) + 1


@settings(deadline=None)
@given(
    gradient=st.floats(-5.0, 5.0),
    curvature=st.floats(0.0, 50.0),
    stiffness=st.floats(0.0, 50.0),
    bound=st.floats(1e-6, 1.0),
)
def test_what_it_accepts_improves_within_the_bound(gradient, curvature, stiffness, bound):
    def evaluate(theta: torch.Tensor) -> tuple[float, float]:
        x = float(theta - 1.0)
        return gradient * x - curvature * x * x, stiffness * x * x

    theta, step = torch.ones((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    result = backtracking_line_search(evaluate, theta, step, bound=bound, ratio=0.5, max_backtracks=12)
    if result.accepted:
        objective, constraint = evaluate(result.theta)
        assert objective > 0.0 and constraint <= bound
        assert (objective, constraint) == (result.improvement, result.constraint)
    else:
        assert result.theta is theta
        smallest, constraint = evaluate(theta + 0.5**12 * step)
        assert smallest <= 0.0 or constraint > bound
