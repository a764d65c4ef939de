"""The networks fitted by a trust region and by L-BFGS: which problem they solve, and with which settings."""

import copy
import math

import pytest
import torch
from methods import value_settings
from torch import Tensor

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.values import full_batch
from trpo_lightning.values.full_batch import LBFGSValueFunction, TrustRegionValueFunction


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(rows: int = 120) -> tuple[Tensor, Tensor]:
    observations = torch.randn(rows, 3, generator=generator(1))
    return observations, torch.sin(observations.sum(1)) + 2.0


def jacobian(vf: torch.nn.Module, observations: Tensor) -> Tensor:
    rows = []
    for x in observations:
        gradients = torch.autograd.grad(vf.network(x[None])[0, 0], list(vf.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in gradients]))
    return torch.stack(rows)


def trust_region(**settings) -> TrustRegionValueFunction:
    return TrustRegionValueFunction(
        (3,), value_settings("trust_region", **{"hidden_sizes": [4], **settings}), generator()
    ).double()


@pytest.mark.parametrize("epsilon", [0.003, 0.1])
def test_a_trust_region_step_is_the_dense_one(epsilon):
    damping = 0.05
    vf = trust_region(epsilon=epsilon, damping=damping, rescale="always", cg_iterations=300)
    observations, targets = (x.double() for x in data())
    theta, j = parameter_vector(vf), jacobian(vf, observations)
    errors = (vf.predict(observations) - targets).detach()
    h, g = j.T @ j / 120, j.T @ errors / 120
    s = -torch.linalg.solve(h + damping * torch.eye(len(g), dtype=torch.float64), g)
    alpha = math.sqrt(2.0 * epsilon * float(errors.square().mean()) / float(s @ h @ s))
    loss = vf.fit(observations, targets, generator())
    torch.testing.assert_close(parameter_vector(vf), theta + alpha * s, rtol=0, atol=1e-6)
    assert loss == pytest.approx(float((vf.predict(observations) - targets).square().mean()), rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.01, 1.0])
def test_a_trust_region_keeps_the_values_near_the_old_ones_and_the_loss_falls(epsilon):
    vf = trust_region(epsilon=epsilon).float()
    observations, targets = data()
    losses = [float((vf.predict(observations) - targets).square().mean())]
    for _ in range(8):
        old = vf.predict(observations).double()
        losses.append(vf.fit(observations, targets, generator()))
        moved = (vf.predict(observations).double() - old).square().mean()
        assert float(moved) <= 2.0 * losses[-2] * epsilon * (1.0 + 1e-5)
        assert losses[-1] <= losses[-2]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("rescale", ["outside", "always"])
def test_a_trust_region_without_errors_stays(rescale):
    vf = trust_region(rescale=rescale).float()
    observations, _ = data()
    theta = parameter_vector(vf)
    assert vf.fit(observations, vf.predict(observations), generator()) == 0.0
    assert torch.equal(parameter_vector(vf), theta)


@pytest.mark.parametrize("changed", [{"cg_iterations": 1}, {"damping": 1.0}, {"epsilon": 0.001}, {"rescale": "always"}])
def test_settings_of_the_trust_region_count(changed):
    results = []
    for settings in ({}, changed):
        vf = trust_region(**{"epsilon": 1e9, "damping": 0.1, **settings})
        vf.fit(*(x.double() for x in data()), generator())
        results.append(parameter_vector(vf))
    assert not torch.allclose(*results, rtol=1e-3)


def lbfgs(**settings) -> LBFGSValueFunction:
    return LBFGSValueFunction((3,), value_settings("lbfgs", **{"hidden_sizes": [4], **settings}), generator()).double()


def test_lbfgs_finds_a_minimum_of_the_regularised_error():
    l2 = 0.02
    vf = lbfgs(iterations=400, l2=l2)
    observations, targets = (x.double() for x in data())
    loss = vf.fit(observations, targets, generator())
    error = (vf.network(observations).squeeze(-1) - targets).square().mean()
    objective = error + l2 * sum(p.square().sum() for p in vf.parameters())
    gradients = torch.autograd.grad(objective, list(vf.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-4
    assert loss == pytest.approx(float(error.detach()), rel=1e-9)


def test_more_iterations_and_less_regularisation_fit_better():
    losses = []
    for settings in ({"iterations": 2, "l2": 0.0}, {"iterations": 60, "l2": 0.0}, {"iterations": 60, "l2": 0.1}):
        vf = lbfgs(**settings)
        losses.append(vf.fit(*(x.double() for x in data()), generator()))
    assert losses[1] < losses[0] and losses[1] < losses[2]


@pytest.mark.parametrize("outcome", [math.nan, math.inf])
def test_parameters_that_are_not_finite_are_not_taken(outcome, monkeypatch):
    for vf in (lbfgs(), trust_region()):
        theta = copy.deepcopy(parameter_vector(vf))
        broken = lambda model, theta, targets, share: theta + outcome  # noqa: E731
        monkeypatch.setattr(vf, "solve", broken)
        assert math.isnan(vf.fit(*(x.double() for x in data()), generator()))
        assert torch.equal(parameter_vector(vf), theta)


def test_a_large_batch_is_evaluated_in_chunks(monkeypatch):
    seen = []
    original = full_batch.torch.func.functional_call

    def watch(module, parameters, arguments):
        seen.append(len(arguments[0]))
        return original(module, parameters, arguments)

    monkeypatch.setattr(full_batch.torch.func, "functional_call", watch)
    observations, targets = torch.randn(70_000, 3, generator=generator()), torch.ones(70_000)
    for vf in (trust_region(hidden_sizes=[2], cg_iterations=2), lbfgs(hidden_sizes=[2], iterations=2)):
        vf = vf.float()
        before = float((vf.predict(observations) - targets).square().mean())
        assert vf.fit(observations, targets, generator()) < before
    assert set(seen) == {65536, 70_000 - 65536}
