"""Adam with value clipping: the loss of PPO's value function (Engstrom et al. 2020), against autograd."""

import copy

import pytest
import torch
from methods import value_settings
from torch import Tensor

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.values.network import NetworkValueFunction


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def value_function(**settings) -> NetworkValueFunction:
    defaults = {"hidden_sizes": [8], "learning_rate": 0.02, "epochs": 4, "minibatch_size": 60}
    return NetworkValueFunction((3,), value_settings(**{**defaults, **settings}), generator())


def data(rows: int = 200) -> tuple[Tensor, Tensor]:
    observations = torch.randn(rows, 3, generator=generator(1))
    return observations, observations @ torch.tensor([1.0, -2.0, 0.5]) + 0.5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("clip", [0.01, 0.2, 1.0])
def test_is_adam_on_the_larger_of_the_clipped_and_the_plain_squared_error(clip, threads, monkeypatch):
    monkeypatch.setattr("trpo_lightning.values.network.threads_for", lambda *sizes: threads)  # on 1, by NumPy
    vf = value_function(clip=clip).double()
    observations, targets = (x.double() for x in data())
    oracle = copy.deepcopy(vf)
    old, shuffle = vf.predict(observations), generator(3)
    adam = torch.optim.Adam(oracle.network.parameters(), lr=0.02)
    for _ in range(4):
        for rows in torch.randperm(200, generator=shuffle).split(60):
            v, y = oracle.network(observations[rows])[:, 0], targets[rows]
            clipped = old[rows] + torch.clamp(v - old[rows], -clip, clip)
            outside = (v - old[rows]).abs() > clip  # inside the two are one number, and its gradient counts once
            losses = torch.where(outside, torch.maximum((v - y) ** 2, (clipped - y) ** 2), (v - y) ** 2)
            adam.zero_grad()
            losses.mean().backward()
            adam.step()
    vf.fit(observations, targets, generator(3))
    torch.testing.assert_close(parameter_vector(vf), parameter_vector(oracle), rtol=1e-8, atol=1e-10)


def test_a_clip_beyond_every_change_is_none():
    pair = [value_function(clip=clip) for clip in (None, 1e6)]
    for vf in pair:
        assign_parameter_vector(vf, 0.3 * parameter_vector(vf))  # values near 0, where rounding is coarsest
        vf.fit(*data(), generator(3))
    assert torch.equal(parameter_vector(pair[0]), parameter_vector(pair[1]))


def test_values_move_less_when_clipped():
    moved = []
    for clip in (None, 0.05):
        vf = value_function(clip=clip, epochs=10)
        observations, targets = data()
        old = vf.predict(observations)
        vf.fit(observations, targets, generator(3))
        moved.append(float((vf.predict(observations) - old).abs().mean()))
    assert moved[1] < 0.6 * moved[0]


def test_the_clip_is_around_the_values_before_this_fit():
    vf = value_function(clip=0.05, epochs=30)
    observations, targets = data()
    errors = []
    for i in range(20):
        vf.fit(observations, targets, generator(i))
        errors.append(float((vf.predict(observations) - targets).square().mean()))
    assert errors[-1] < 0.3 * errors[0]  # a clip around the first values would stop this


def test_a_fit_that_overflows_is_undone():
    vf = value_function(learning_rate=1e30, epochs=3)
    observations, targets = data()
    theta, state = parameter_vector(vf), copy.deepcopy(vf.optimizer_state())
    for scale in (1.0, 1e10):
        loss = vf.fit(scale * observations, targets, generator())
        if loss != loss:
            assert torch.equal(parameter_vector(vf), theta)
            assert str(vf.optimizer_state()) == str(state)
    assert loss != loss
