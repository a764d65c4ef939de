"""The fast paths of evaluation, against plain torch modules in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from trpo_lightning.policies.inference import fast_forward, forward_each, perceptron_layers
from trpo_lightning.policies.networks import ACTIVATIONS, build_network
from trpo_lightning.policies.tanh import Tanh, tanh


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(hidden_sizes=(7, 5), activation="tanh", outputs=3):
    made = build_network(
        (4,),
        outputs,
        hidden_sizes=list(hidden_sizes),
        activation=activation,
        output_gain=1.0,
        generator=generator(),
    )
    for p in made.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator(p.numel()))
    return made


def plain(made):
    """The same network of torch's own modules in float64."""
    layers = [nn.Tanh() if isinstance(m, Tanh) else m for m in made]
    return nn.Sequential(*(nn.Linear(m.in_features, m.out_features) if isinstance(m, nn.Linear) else m for m in layers))


def twin(made):
    copy = plain(made)
    copy.load_state_dict(made.state_dict())
    return copy.double()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", [(), (7,), (7, 5)])
@pytest.mark.parametrize("rows", [1, 33])
def test_fast_forward_is_the_network(activation, hidden_sizes, rows):
    made = network(hidden_sizes, activation)
    x = 3.0 * torch.randn(rows, 4, generator=generator(1))
    before = x.clone()
    with torch.inference_mode():
        found = torch.from_numpy(fast_forward(made)(x.numpy()))
    torch.testing.assert_close(found.double(), twin(made)(x.double()).detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before)  # activations in place never reach the caller's rows


def test_fast_forward_reads_the_parameters_of_the_moment():
    made = network()
    forward, x = fast_forward(made), torch.ones(2, 4)
    before = forward(x.numpy())
    for p in made.parameters():
        p.data.mul_(2.0)
    assert not np.allclose(forward(x.numpy()), before)
    np.testing.assert_allclose(forward(x.numpy()), made(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fast_forward_passes_on_what_is_not_finite(activation):
    x = np.array([[np.nan, 0, 0, 0], [np.inf, -np.inf, 0, 0], [1, 2, 3, 4]], dtype=np.float32)
    made = network((7, 5), activation)
    expected = made(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(fast_forward(made)(x), expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(expected[0]).all() and np.isfinite(expected[2]).all()


@pytest.mark.parametrize("other", [nn.Identity(), nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), nn.Linear(4, 3)])
def test_other_networks_are_called_as_they_are(other):
    assert perceptron_layers(other) is None
    x = torch.randn(5, 4, generator=generator(2))
    assert np.array_equal(fast_forward(other)(x.numpy()), other(x).detach().numpy())


@pytest.mark.parametrize("layers", [[Tanh(), nn.Linear(4, 3)], [nn.Linear(4, 4), Tanh(), Tanh()]])
def test_activations_that_follow_no_layer_are_no_perceptron(layers):
    assert perceptron_layers(nn.Sequential(*layers)) is None


def test_tanh_and_its_derivatives_are_torchs():
    x = torch.linspace(-4.0, 4.0, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tanh, (x,)) and torch.autograd.gradgradcheck(tanh, (x,))
    torch.testing.assert_close(tanh(x), torch.tanh(x), rtol=1e-14, atol=0.0)
    y = torch.linspace(-12.0, 12.0, 100_001)
    torch.testing.assert_close(tanh(y).double(), torch.tanh(y.double()), rtol=3e-7, atol=0.0)


def test_tanh_of_numbers_that_are_not_finite():
    x = torch.tensor([float("inf"), float("-inf"), float("nan")])
    assert tanh(x)[:2].tolist() == [1.0, -1.0] and tanh(x)[2].isnan()


def test_tanh_under_vmap():
    x = torch.randn(3, 4, 5, generator=generator(3))
    torch.testing.assert_close(torch.func.vmap(tanh, in_dims=1)(x), torch.tanh(x).transpose(0, 1))


@pytest.mark.parametrize("activation", [Tanh, nn.ReLU, nn.ELU, nn.Sigmoid])
def test_other_parameters_for_each_row(activation):
    network = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 3))
    named = {name: torch.randn(5, *p.shape, generator=generator(7)) for name, p in network.named_parameters()}
    x = torch.randn(5, 4, generator=generator(2))
    kept, found = x.clone(), forward_each(network)(named, x)
    assert torch.equal(x, kept) and not found.requires_grad
    for row in range(5):
        own = {name: values[row] for name, values in named.items()}
        expected = torch.func.functional_call(network, own, (x[row : row + 1],))[0]
        torch.testing.assert_close(found[row], expected.detach(), rtol=1e-5, atol=1e-6)
