import copy
import math

import pytest
import torch
from methods import value_settings
from torch import Tensor, nn

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.values.network import NetworkValueFunction


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def value_function(seed: int = 0, **settings) -> NetworkValueFunction:
    return NetworkValueFunction((3,), value_settings(**{"hidden_sizes": [8], **settings}), generator(seed))


def data(rows: int = 200) -> tuple[Tensor, Tensor]:
    observations = torch.randn(rows, 3, generator=generator(1))
    return observations, observations @ torch.tensor([1.0, -2.0, 0.5]) + 3.0


def flat(state) -> list:
    """The leaves of an optimizer state in order."""
    if isinstance(state, dict):
        return [leaf for key in sorted(state, key=str) for leaf in flat(state[key])]
    if isinstance(state, list | tuple):
        return [leaf for item in state for leaf in flat(item)]
    return [state]


def same_bits(a, b) -> bool:
    pairs = list(zip(flat(a), flat(b), strict=True))
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def test_linear_network_fits_a_linear_function():
    vf = value_function(hidden_sizes=[], learning_rate=0.05, epochs=100, minibatch_size=50)
    observations, targets = data()
    loss = vf.fit(observations, targets, generator(2))
    assert loss < 1e-4
    (layer,) = [m for m in vf.modules() if isinstance(m, nn.Linear)]
    torch.testing.assert_close(layer.weight.detach()[0], torch.tensor([1.0, -2.0, 0.5]), rtol=0, atol=0.02)
    torch.testing.assert_close(layer.bias.detach(), torch.tensor([3.0]), rtol=0, atol=0.02)


def test_hidden_network_learns_and_reports_a_falling_loss():
    vf = value_function(learning_rate=0.01, epochs=20, minibatch_size=32)
    observations, targets = data()
    before = float((vf.predict(observations) - targets).square().mean())
    losses = [vf.fit(observations, targets, generator(seed)) for seed in range(3)]
    after = float((vf.predict(observations) - targets).square().mean())
    assert before > losses[0] > losses[1] > losses[2]
    assert after < 0.05 * before


def test_reported_loss_weighs_a_small_last_minibatch_by_its_rows():
    vf = value_function(epochs=1, minibatch_size=4, learning_rate=1e-12)
    observations, targets = data(9)
    expected = float((vf.predict(observations) - targets).square().mean())
    assert vf.fit(observations, targets, generator()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("minibatch_size", [200, 60])
def test_fit_is_adam_on_the_mean_squared_error_of_shuffled_minibatches(minibatch_size, threads, monkeypatch):
    monkeypatch.setattr("trpo_lightning.values.network.threads_for", lambda *sizes: threads)  # on 1, by NumPy
    vf = value_function(epochs=2, minibatch_size=minibatch_size, learning_rate=0.01).double()
    observations, targets = (x.double() for x in data())
    oracle = copy.deepcopy(vf)
    theta = parameter_vector(oracle)
    first, second, t, shuffle = torch.zeros_like(theta), torch.zeros_like(theta), 0, generator(3)
    for _ in range(2):
        for rows in torch.randperm(200, generator=shuffle).split(minibatch_size):
            loss = (oracle.network(observations[rows])[:, 0] - targets[rows]).square().mean()
            gradients = torch.autograd.grad(loss, list(oracle.parameters()))
            gradient = torch.cat([g.reshape(-1) for g in gradients])
            t += 1
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            theta -= 0.01 * first / (1.0 - 0.9**t) / ((second / (1.0 - 0.999**t)).sqrt() + 1e-8)
            assign_parameter_vector(oracle, theta)
    vf.fit(observations, targets, generator(3))
    torch.testing.assert_close(parameter_vector(vf), theta, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("epochs", "minibatch_size", "steps"), [(1, 200, 1), (3, 64, 12), (2, 1, 400)])
def test_every_epoch_passes_over_the_whole_batch(epochs, minibatch_size, steps):
    vf = value_function(epochs=epochs, minibatch_size=minibatch_size)
    vf.fit(*data(), generator())
    assert {float(state["step"]) for state in vf.optimizer_state()["state"].values()} == {float(steps)}


def test_initial_network_and_fit_are_functions_of_their_generators_alone():
    state = torch.get_rng_state()
    results = []
    for init, shuffle in ((0, 0), (0, 0), (0, 1), (1, 0)):
        vf = value_function(init, epochs=2, minibatch_size=32)
        initial = parameter_vector(vf)
        vf.fit(*data(), generator(shuffle))
        results.append((initial, parameter_vector(vf)))
    assert torch.equal(torch.get_rng_state(), state)
    (a_start, a_end), (b_start, b_end), (c_start, c_end), (d_start, _) = results
    assert torch.equal(a_start, b_start) and torch.equal(a_end, b_end)
    assert torch.equal(a_start, c_start) and not torch.equal(a_end, c_end)
    assert not torch.equal(a_start, d_start)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["targets", "observations"])
def test_non_finite_data_leave_everything_bit_identical(bad, where):
    vf = value_function(epochs=2)
    vf.fit(*data(), generator())
    theta, state = parameter_vector(vf), copy.deepcopy(vf.optimizer_state())
    observations, targets = (x.clone() for x in data())
    if where == "targets":
        targets[17] = bad
    else:
        observations[17, 1] = math.nan
    assert math.isnan(vf.fit(observations, targets, generator()))
    assert torch.equal(parameter_vector(vf), theta)
    assert same_bits(vf.optimizer_state(), state)


def test_optimizer_state_round_trip_continues_identically():
    straight = value_function(epochs=3, minibatch_size=32)
    straight.fit(*data(), generator(5))
    resumed = value_function(seed=9, epochs=3, minibatch_size=32)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    resumed.load_optimizer_state(copy.deepcopy(straight.optimizer_state()))
    fresh = value_function(seed=9, epochs=3, minibatch_size=32)
    fresh.load_state_dict(copy.deepcopy(straight.state_dict()))
    losses = [vf.fit(*data(), generator(6)) for vf in (straight, resumed, fresh)]
    assert losses[0] == losses[1]
    assert torch.equal(parameter_vector(straight), parameter_vector(resumed))
    assert same_bits(straight.optimizer_state(), resumed.optimizer_state())
    assert not torch.equal(parameter_vector(straight), parameter_vector(fresh))


def test_optimizer_state_before_the_first_fit_can_be_saved_and_loaded():
    vf, other = value_function(), value_function()
    other.load_optimizer_state(vf.optimizer_state())
    assert vf.fit(*data(), generator()) == other.fit(*data(), generator())


@pytest.mark.parametrize("chunk", [1, 7, 199, 200, 1000])
def test_prediction_in_chunks_is_the_prediction(chunk):
    vf = value_function().double()
    observations = data()[0].double()
    expected = vf.network(observations)[:, 0].detach()
    found = vf.predict(observations, chunk)
    assert found.shape == (200,) and not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


def test_one_row_is_a_batch():
    vf = value_function(epochs=200, learning_rate=0.01)
    observations, targets = data(1)
    assert vf.predict(observations).shape == (1,)
    assert vf.fit(observations, targets, generator()) < 0.01


def test_no_epochs_fit_nothing_and_report_nan():
    vf = value_function(epochs=0)
    before = parameter_vector(vf)
    assert math.isnan(vf.fit(*data(), generator()))
    assert torch.equal(parameter_vector(vf), before)


def test_fit_leaves_its_data_alone():
    observations, targets = data()
    before = observations.clone(), targets.clone()
    value_function().fit(observations, targets, generator())
    assert torch.equal(observations, before[0]) and torch.equal(targets, before[1])
