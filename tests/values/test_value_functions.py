"""What holds for every kind of value function."""

import copy
import math

import pytest
import torch
from methods import value_settings
from torch import Tensor

from trpo_lightning.settings import CHOICES, ValueSettings, load_class
from trpo_lightning.values import build_value_function
from trpo_lightning.values.value_function import ValueFunction

WITH_MEMORY = ("gru", "lstm")  # test_recurrent_value_functions: they take sequences
VALUE_FUNCTIONS = {n: method for n, method in CHOICES["value.name"].methods.items() if n not in WITH_MEMORY}
FITTED = [name for name in VALUE_FUNCTIONS if name != "none"]
SMALL = {"hidden_sizes": [8], "learning_rate": 0.01, "minibatch_size": 64}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, seed: int = 0, **settings) -> ValueFunction:
    return build_value_function((3,), value_settings(name=name, **{**SMALL, **settings}), generator(seed))


def data(rows: int = 200) -> tuple[Tensor, Tensor]:
    observations = torch.randn(rows, 3, generator=generator(1))
    return observations, observations @ torch.tensor([1.0, -2.0, 0.5]) + 3.0


def state(vf: ValueFunction) -> list[Tensor]:
    return [*copy.deepcopy(vf.state_dict()).values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def error(vf: ValueFunction, observations: Tensor, targets: Tensor) -> float:
    return float((vf.predict(observations).double() - targets.double()).square().mean())


def test_the_registry_is_what_value_name_offers():
    assert {*VALUE_FUNCTIONS, *WITH_MEMORY} == set(ValueSettings.__dataclass_fields__["name"].metadata["choices"])
    for name, method in CHOICES["value.name"].methods.items():
        built = build(name)
        assert type(built) is load_class("value.name", name)
        assert type(built.settings) is method.settings and issubclass(method.settings, type(built).Settings)


@pytest.mark.parametrize("name", FITTED)
def test_fits_and_reports_the_mean_squared_error(name):
    vf, (observations, targets) = build(name), data()
    before = error(vf, observations, targets)
    losses = [vf.fit(observations, targets, generator(i)) for i in range(12)]
    assert error(vf, observations, targets) < 0.05 * before
    assert losses[-1] < 0.05 * before
    if name != "adam":  # whose loss is that during its last epoch
        assert losses[-1] == pytest.approx(error(vf, observations, targets), rel=1e-4)


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
@pytest.mark.parametrize("chunk", [1, 7, 200, 10_000])
def test_prediction_in_chunks_is_the_prediction(name, chunk):
    vf = build(name)
    vf.fit(*data(), generator())
    observations, _ = data()
    values = vf.predict(observations, chunk)
    assert values.shape == (200,) and values.dtype == torch.float32 and not values.requires_grad
    torch.testing.assert_close(values, vf.predict(observations), rtol=1e-5, atol=1e-5)
    assert vf.predict(observations[:0]).shape == (0,)


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["targets", "observations", "all targets"])
def test_data_that_are_not_finite_leave_everything_bit_identical(name, bad, where):
    vf = build(name)
    vf.fit(*data(), generator())
    before = state(vf)
    observations, targets = (x.clone() for x in data())
    if where == "observations":
        observations[17, 1] = math.nan
    else:
        targets[17 if where == "targets" else slice(None)] = bad
    assert math.isnan(vf.fit(observations, targets, generator()))
    assert same(before, state(vf))


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
@pytest.mark.parametrize("scale", [1e19, 3e37])
def test_targets_whose_squares_overflow_leave_finite_numbers(name, scale):
    vf, (observations, targets) = build(name), data()
    vf.fit(observations, targets, generator())
    before = state(vf)
    loss = vf.fit(observations, scale * targets, generator())
    assert all(torch.isfinite(x).all() for x in state(vf))
    assert not math.isnan(loss) or same(before, state(vf))


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
def test_an_empty_batch_is_no_fit(name):
    vf = build(name)
    before = state(vf)
    assert math.isnan(vf.fit(torch.empty(0, 3), torch.empty(0), generator()))
    assert same(before, state(vf))


@pytest.mark.parametrize("name", FITTED)
def test_one_row_is_a_batch(name):
    vf, (observations, targets) = build(name, l2=0.0), data(1)
    before = error(vf, observations, targets)
    for i in range(12):
        vf.fit(observations, targets, generator(i))
    assert error(vf, observations, targets) < 0.1 * before


@pytest.mark.parametrize("name", FITTED)
def test_constant_targets_are_learned(name):
    vf, (observations, _) = build(name), data()
    targets = torch.full((200,), 7.0)
    for i in range(40):
        loss = vf.fit(observations, targets, generator(i))
    assert math.isfinite(loss) and error(vf, observations, targets) < 0.05


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
def test_saved_state_continues_identically(name):
    straight, resumed = build(name), build(name, seed=9)
    straight.fit(*data(), generator(5))
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    resumed.load_optimizer_state(copy.deepcopy(straight.optimizer_state()))
    losses = [vf.fit(*data(150), generator(6)) for vf in (straight, resumed)]
    assert losses[0] == losses[1] or all(map(math.isnan, losses))
    assert same(state(straight), state(resumed))


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
def test_results_are_functions_of_the_generators_alone(name):
    everything = torch.get_rng_state()
    pair = [build(name), build(name)]
    for vf in pair:
        vf.fit(*data(), generator(3))
    assert same(state(pair[0]), state(pair[1]))
    assert torch.equal(torch.get_rng_state(), everything)


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
def test_fit_leaves_its_data_alone(name):
    observations, targets = data()
    before = observations.clone(), targets.clone()
    build(name).fit(observations, targets, generator())
    assert torch.equal(observations, before[0]) and torch.equal(targets, before[1])


@pytest.mark.parametrize("name", ["lbfgs", "trust_region", "linear"])
def test_a_fit_to_the_whole_batch_draws_no_random_numbers(name):
    pair = [build(name), build(name)]
    for seed, vf in enumerate(pair):
        vf.fit(*data(), generator(seed))
    assert same(state(pair[0]), state(pair[1]))


def test_none_is_zero_and_has_nothing_to_save():
    vf = build("none")
    assert torch.equal(vf.predict(data()[0]), torch.zeros(200))
    assert math.isnan(vf.fit(*data(), generator()))
    assert vf.state_dict() == {} and vf.optimizer_state() == {} and not list(vf.parameters())
