"""Written-out minibatch gradients against autograd in float64."""

import pytest
import torch
from torch import nn

from trpo_lightning.policies.networks import ACTIVATIONS, build_network, parameter_vector
from trpo_lightning.threads import torch_threads
from trpo_lightning.values.gradients import loss_gradient


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", [[], [6], [6, 4], [5, 5, 5]])
def test_written_out_gradient_is_autograds(activation, hidden_sizes, threads):
    network = build_network(
        (3,), 1, hidden_sizes=hidden_sizes, activation=activation, output_gain=1.0, generator=generator()
    ).double()
    x, y = (torch.randn(9, n, generator=generator(n), dtype=torch.float64) for n in (3, 1))
    with torch_threads(threads):
        assert_gradient(network, x, y)


def test_other_networks_are_differentiated_by_autograd():
    network = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.LayerNorm(4), nn.Linear(4, 1)).double()
    x, y = (torch.randn(9, n, generator=generator(n), dtype=torch.float64) for n in (3, 1))
    assert_gradient(network, x, y)


def assert_gradient(network, x, y):
    theta = parameter_vector(network)
    gradient = torch.full_like(theta, float("nan"))
    found = loss_gradient(network, theta, gradient)
    for _ in range(2):  # again after theta has moved: the network's own parameters do not count
        found.write(found.native(x), lambda v: 2.0 * (v - found.native(y)) / len(v))
        loss = (torch.func.functional_call(network, views(network, theta), (x,)) - y).square().mean()
        (expected,) = torch.autograd.grad(loss, theta_leaf)
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
        theta.add_(0.1)


def views(network, theta):
    global theta_leaf
    theta_leaf = theta.clone().requires_grad_(True)
    parts = theta_leaf.split([p.numel() for p in network.parameters()])
    return {name: part.view_as(p) for (name, p), part in zip(network.named_parameters(), parts, strict=True)}
