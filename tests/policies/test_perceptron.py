"""Jacobians by the chain rule against autograd's, in float64."""

import pytest
import torch
from methods import mlp_policy

from trpo_lightning.numerics.curvature import curvature_of_rows, fisher_vector_product
from trpo_lightning.policies.linearized import linearized
from trpo_lightning.policies.networks import ACTIVATIONS, parameter_vector
from trpo_lightning.policies.perceptron import Perceptron
from trpo_lightning.policies.policy import GaussianPolicy
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.threads import torch_threads

ROWS = 9
KINDS: dict[str, ActionSpec] = {
    "gaussian": ContinuousActions(3),
    "categorical": DiscreteActions((4,)),
    "multi_discrete": DiscreteActions((2, 3)),
    "multi_binary": BinaryActions(3),
}


@pytest.fixture(params=[1, 2], ids=["arrays", "tensors"], autouse=True)
def _threads(request):
    """On one thread the numbers are NumPy's."""
    with torch_threads(request.param):
        yield


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(kind, hidden_sizes, activation="tanh"):
    """A policy, and a theta in float64 that is not the policy's own."""
    policy = mlp_policy(
        (4,),
        KINDS[kind],
        hidden_sizes=list(hidden_sizes),
        activation=activation,
        initial_log_std=-0.5,
        generator=generator(),
    )
    theta = parameter_vector(policy).double()
    return policy, theta + 0.5 * torch.randn(theta.shape, dtype=torch.float64, generator=generator(1))


def rows():
    return torch.randn(ROWS, 4, dtype=torch.float64, generator=generator(2))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", [(), (5,), (6, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_push_and_pull_are_the_dense_jacobian(kind, hidden_sizes, activation):
    policy, theta = build(kind, hidden_sizes, activation)
    x, found = rows(), linearized(*(policy, theta, rows()))
    assert found is not None
    dense = torch.autograd.functional.jacobian(lambda th: policy.at(th, x).tensors, theta)
    v = torch.randn(theta.shape, dtype=torch.float64, generator=generator(3))
    pushed = found.push(v)
    assert len(pushed) == len(dense) == len(found.tensors)
    for tangent, jacobian in zip(pushed, dense, strict=True):
        torch.testing.assert_close(tangent, jacobian @ v, rtol=1e-11, atol=1e-12)
    cotangents = tuple(torch.randn(t.shape, dtype=torch.float64, generator=generator(4)) for t in pushed)
    expected = sum(torch.einsum("bm,bmp->p", u, jacobian) for u, jacobian in zip(cotangents, dense, strict=True))
    torch.testing.assert_close(found.pull(cotangents), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [4, ROWS])
@pytest.mark.parametrize("weighted", [False, True])
def test_products_are_those_of_autograds_graph(kind, chunk, weighted):
    policy, theta = build(kind, (6, 5))
    x = rows()
    v = torch.randn(theta.shape, dtype=torch.float64, generator=generator(3))
    weights = torch.rand(ROWS, dtype=torch.float64, generator=generator(5)) if weighted else None
    models = (lambda th, part: linearized(policy, th, x[part])), (lambda th, part: policy.at(th, x[part]))
    found, expected = (fisher_vector_product(m, theta, ROWS, weights=weights, chunk=chunk)(v) for m in models)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    assert not found.requires_grad
    found, expected = (curvature_of_rows(model, theta, v, ROWS, chunk=chunk) for model in models)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    assert not found.requires_grad


def test_other_policies_and_networks_are_left_to_autograd():
    policy, theta = build("gaussian", (5,))

    class Other(GaussianPolicy):
        pass

    assert linearized(Other(policy.network, 3, 0.0), theta, rows()) is None
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid())
    assert Perceptron.of(network, torch.zeros(15)) is None
    assert linearized(GaussianPolicy(network, 3, 0.0), torch.zeros(18, dtype=torch.float64), rows()) is None


def test_what_is_not_finite_stays_so():
    policy, theta = build("gaussian", (5,))
    x = rows()
    x[3, 0] = torch.nan
    product = fisher_vector_product(lambda th, part: linearized(policy, th, x[part]), theta, ROWS)(theta)
    assert not torch.isfinite(product).all()


def test_networks_that_end_in_an_activation_are_left_to_autograd():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    theta = torch.zeros(sum(parameter.numel() for parameter in network.parameters()))
    assert Perceptron.of(network, theta) is None
