from typing import Any

import pytest
import torch
from methods import mlp_policy
from torch import Tensor

from trpo_lightning.numerics.curvature import Scalars, curvature_of_rows, fisher_vector_product
from trpo_lightning.numerics.objectives import mean_kl
from trpo_lightning.policies.distributions import Bernoulli, Categorical, Gaussian
from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions

ROWS = 11
KINDS: dict[str, ActionSpec] = {
    "gaussian": ContinuousActions(3),
    "categorical": DiscreteActions((4,)),
    "multi_discrete": DiscreteActions((2, 3)),
    "multi_binary": BinaryActions(3),
}


@pytest.fixture(params=KINDS)
def policy(request) -> Policy:
    generator = torch.Generator().manual_seed(0)
    policy = mlp_policy(
        (4,), KINDS[request.param], hidden_sizes=[5], activation="tanh", initial_log_std=-0.5, generator=generator
    ).double()
    theta = parameter_vector(policy)
    assign_parameter_vector(policy, 0.6 * torch.randn(theta.shape, dtype=torch.float64, generator=generator))
    return policy


@pytest.fixture
def observations() -> Tensor:
    return torch.randn(ROWS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def operator(policy: Policy, observations: Tensor, chunk: int = 65536):
    theta = parameter_vector(policy)
    return fisher_vector_product(
        lambda th, rows: policy.at(th, observations[rows]), theta, len(observations), chunk=chunk
    )


def dense(product, size: int) -> Tensor:
    return torch.stack([product(column) for column in torch.eye(size, dtype=torch.float64)], dim=1)


def kl_hessian(policy: Policy, observations: Tensor, direction: str) -> Tensor:
    old = policy(observations).detach()
    hessian: Any = torch.autograd.functional.hessian(
        lambda theta: mean_kl(old, policy.at(theta, observations), direction), parameter_vector(policy)
    )
    return hessian


def fisher_of_a_row(distribution, row: int) -> Tensor:
    match distribution:
        case Gaussian(_, log_std):
            return torch.diag(torch.cat([torch.exp(-2.0 * log_std[row]), torch.full_like(log_std[row], 2.0)]))
        case Categorical(logits, choices):
            blocks = [torch.softmax(part, dim=-1) for part in logits[row].split(choices)]
            return torch.block_diag(*[torch.diag(p) - torch.outer(p, p) for p in blocks])
        case Bernoulli(logits):
            p = torch.sigmoid(logits[row])
            return torch.diag(p * (1.0 - p))
    raise AssertionError(distribution)


@pytest.mark.parametrize("direction", ["old_new", "new_old"])
def test_is_the_hessian_of_the_mean_kl_at_the_old_parameters(policy, observations, direction):
    product = dense(operator(policy, observations), len(parameter_vector(policy)))
    torch.testing.assert_close(product, kl_hessian(policy, observations, direction), rtol=1e-8, atol=1e-10)


def test_is_the_dense_gauss_newton_product(policy, observations):
    theta = parameter_vector(policy)
    expected = torch.zeros(len(theta), len(theta), dtype=torch.float64)
    with torch.no_grad():
        distribution = policy(observations)
    for row in range(ROWS):

        def parameters(th: Tensor, row: int = row) -> Tensor:
            return torch.cat([t[0] for t in policy.at(th, observations[row : row + 1]).tensors])

        jacobian = torch.autograd.functional.jacobian(parameters, theta)
        expected += jacobian.T @ fisher_of_a_row(distribution, row) @ jacobian / ROWS
    torch.testing.assert_close(dense(operator(policy, observations), len(theta)), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, ROWS - 1, ROWS, ROWS + 1])
def test_chunks_change_nothing(policy, observations, chunk):
    v = torch.randn(parameter_vector(policy).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(chunk))
    whole = operator(policy, observations)(v)
    torch.testing.assert_close(operator(policy, observations, chunk)(v), whole, rtol=1e-11, atol=1e-13)


def test_chunks_cover_every_row_once_and_one_chunk_keeps_its_graph(policy, observations):
    theta = parameter_vector(policy)
    asked: list[list[int]] = []

    def model(th: Tensor, rows: slice):
        asked.append(list(range(ROWS))[rows])
        return policy.at(th, observations[rows])

    chunked = fisher_vector_product(model, theta, ROWS, chunk=4)
    asked.clear()
    chunked(theta)
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]

    whole = fisher_vector_product(model, theta, ROWS, chunk=ROWS)
    asked.clear()
    whole(theta)
    whole(theta)
    assert asked == []


def scores(policy: Policy, observations: Tensor, actions: Tensor) -> Tensor:
    """grad log pi of each row, `[B, P]`, one backward pass each."""
    rows = []
    for observation, action in zip(observations, actions, strict=True):
        log_prob = policy(observation[None]).log_prob(action[None]).squeeze()
        parts = torch.autograd.grad(log_prob, list(policy.parameters()))
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk", [4, 65536])
def test_empirical_fisher_is_the_uncentred_mean_of_dense_outer_products(policy, observations, chunk):
    with torch.no_grad():
        noise = torch.rand(ROWS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        actions = policy(observations).sample(noise)
    theta = parameter_vector(policy)

    def model(th: Tensor, rows: slice) -> Scalars:
        return Scalars(policy.at(th, observations[rows]).log_prob(actions[rows]))

    g = scores(policy, observations, actions)
    assert g.mean(0).norm() > 1e-2  # centring would show
    product = dense(fisher_vector_product(model, theta, ROWS, chunk=chunk), len(theta))
    torch.testing.assert_close(product, g.T @ g / ROWS, rtol=1e-10, atol=1e-12)
    along = curvature_of_rows(model, theta, g[0], ROWS, chunk=chunk)
    torch.testing.assert_close(along, (g @ g[0]) ** 2, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [4, 65536])
def test_weights_count_as_repeated_rows(policy, observations, chunk):
    times = torch.arange(ROWS) % 3
    repeated = observations.repeat_interleave(times, dim=0)
    expected = dense(operator(policy, repeated), len(parameter_vector(policy)))
    product = fisher_vector_product(
        lambda th, rows: policy.at(th, observations[rows]),
        parameter_vector(policy),
        ROWS,
        weights=times.double() / times.sum(),
        chunk=chunk,
    )
    torch.testing.assert_close(dense(product, len(expected)), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [4, 65536])
def test_curvature_of_rows_is_that_of_each_state_alone(policy, observations, chunk):
    theta = parameter_vector(policy)
    v = torch.randn(theta.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    expected = [v @ kl_hessian(policy, observation[None], "old_new") @ v for observation in observations]
    found = curvature_of_rows(lambda th, rows: policy.at(th, observations[rows]), theta, v, ROWS, chunk=chunk)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-8, atol=1e-10)
    assert not found.requires_grad and not theta.requires_grad


@pytest.mark.parametrize("chunk", [4, 65536])
def test_is_linear(policy, observations, chunk):
    generator = torch.Generator().manual_seed(2)
    u, v = torch.randn(2, len(parameter_vector(policy)), dtype=torch.float64, generator=generator)
    product = operator(policy, observations, chunk)
    torch.testing.assert_close(product(2.0 * u - 3.0 * v), 2.0 * product(u) - 3.0 * product(v), rtol=1e-10, atol=1e-12)
    assert torch.equal(product(torch.zeros_like(u)), torch.zeros_like(u))
    assert torch.equal(product(u), product(u))


def test_is_symmetric_and_positive_semi_definite(policy, observations):
    matrix = dense(operator(policy, observations), len(parameter_vector(policy)))
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-13)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues.min() > -1e-12
    assert eigenvalues.max() > 1e-3


def test_leaves_parameters_gradients_and_theta_alone(policy, observations):
    theta = parameter_vector(policy)
    before = theta.clone()
    result = fisher_vector_product(lambda th, rows: policy.at(th, observations[rows]), theta, ROWS)(theta)
    assert torch.equal(theta, before) and torch.equal(parameter_vector(policy), before)
    assert not theta.requires_grad and not result.requires_grad
    assert all(p.grad is None for p in policy.parameters())
