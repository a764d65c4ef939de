import math

import pytest
import torch
from methods import value_settings
from torch import Tensor

from trpo_lightning.values.linear import CHUNK, LinearValueFunction


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(shape: tuple[int, ...] = (3,), **settings) -> LinearValueFunction:
    return LinearValueFunction(shape, value_settings("linear", **settings), generator())


def data(rows: int = 300) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 3, generator=generator(1), dtype=torch.float64)
    noise = torch.randn(rows, generator=generator(2), dtype=torch.float64)
    return x, x[:, 0] - 2.0 * x[:, 1] ** 2 + 4.0 + 0.3 * noise


def test_a_linear_function_of_observations_and_squares_is_learned_exactly():
    x, _ = data()
    targets = 1.5 * x[:, 0] - x[:, 2] + 0.5 * x[:, 1] ** 2 - 2.0 * x[:, 2] ** 2 + 7.0
    vf = linear(l2=0.0)
    assert vf.fit(x, targets, generator()) < 1e-20
    expected = torch.tensor([1.5, 0.0, -1.0, 0.0, 0.5, -2.0, 7.0], dtype=torch.float64)
    torch.testing.assert_close(vf.weights.detach(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("l2", [0.0, 0.03, 10.0])
def test_is_ridge_regression_with_a_free_constant(l2):
    x, y = data()
    vf = linear(l2=l2)
    loss = vf.fit(x, y, generator())
    features = torch.cat([x, x**2], dim=1)
    centred, mean = features - features.mean(0), y.mean()
    rows = math.sqrt(300 * l2) * torch.eye(6, dtype=torch.float64)
    zeros = torch.zeros(6, dtype=torch.float64)
    w = torch.linalg.lstsq(torch.cat([centred, rows]), torch.cat([y - mean, zeros])[:, None]).solution[:, 0]
    expected = centred @ w + mean
    torch.testing.assert_close(vf.predict(x), expected, rtol=1e-9, atol=1e-9)
    assert loss == pytest.approx(float((expected - y).square().mean()), rel=1e-9)


def test_a_large_batch_in_chunks_is_the_same_regression():
    x, y = data(2 * CHUNK + 5)
    vf = linear(l2=0.01)
    vf.fit(x, y, generator())
    features = torch.cat([x, x**2, torch.ones(len(x), 1)], dim=1)
    penalties = torch.diag(torch.tensor([0.01] * 6 + [0.0], dtype=torch.float64))
    expected = torch.linalg.solve(features.T @ features / len(x) + penalties, features.T @ y / len(x))
    torch.testing.assert_close(vf.weights.detach(), expected, rtol=1e-9, atol=1e-11)


def test_a_fit_forgets_the_one_before():
    x, y = data()
    vf, fresh = linear(), linear()
    vf.fit(x, -5.0 * y, generator())
    vf.fit(x, y, generator())
    fresh.fit(x, y, generator())
    assert torch.equal(vf.weights, fresh.weights)


def test_one_hot_observations_whose_squares_are_themselves_are_no_problem():
    x = torch.eye(4)[torch.arange(40) % 4]
    targets = torch.arange(4.0)[torch.arange(40) % 4]
    for l2 in (0.0, 1e-6):
        vf = linear((4,), l2=l2)
        assert vf.fit(x, targets, generator()) < 1e-6


def test_observations_of_any_shape_are_flattened():
    vf = linear((2, 3))
    x = torch.randn(50, 2, 3, generator=generator())
    assert vf.fit(x, x[:, 1, 2], generator()) < 1e-4 and vf.predict(x).shape == (50,)


def test_before_the_first_fit_it_is_zero():
    assert torch.equal(linear().predict(data()[0]), torch.zeros(300, dtype=torch.float64))


def test_a_fit_whose_predictions_overflow_is_not_taken():
    x = data()[0].float()
    vf = linear()
    vf.fit(x, x[:, 0], generator())
    before = vf.weights.clone()
    assert math.isnan(vf.fit(x, 3.3e38 * x[:, 0].sign(), generator()))
    assert torch.equal(vf.weights, before)
