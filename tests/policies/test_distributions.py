import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributions

from trpo_lightning.policies.distributions import Bernoulli, Categorical, Distribution, Gaussian

SAMPLES = 100_000
CHOICES = (3, 2, 4)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(rows: int, seed: int) -> Gaussian:
    return Gaussian(randn(rows, 2, seed=seed), 0.3 * randn(rows, 2, seed=seed + 1000) - 0.2)


def categorical(rows: int, seed: int) -> Categorical:
    return Categorical(1.5 * randn(rows, 4, seed=seed), (4,))


def multi_discrete(rows: int, seed: int) -> Categorical:
    return Categorical(randn(rows, sum(CHOICES), seed=seed), CHOICES)


def bernoulli(rows: int, seed: int) -> Bernoulli:
    return Bernoulli(1.5 * randn(rows, 3, seed=seed))


KINDS: dict[str, Callable[[int, int], Any]] = {
    "gaussian": gaussian,
    "categorical": categorical,
    "multi_discrete": multi_discrete,
    "multi_binary": bernoulli,
}
every_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())


def dimensions(distribution: Distribution) -> int:
    return distribution.mode().shape[-1]


def reference(distribution: Distribution) -> list[Any]:
    """One `torch.distributions` object per action dimension."""
    match distribution:
        case Gaussian(mean, log_std):
            return [distributions.Normal(mean[:, i], log_std[:, i].exp()) for i in range(mean.shape[1])]
        case Categorical(logits, choices):
            return [distributions.Categorical(logits=part) for part in logits.split(choices, dim=-1)]
        case Bernoulli(logits):
            return [distributions.Bernoulli(logits=logits[:, i]) for i in range(logits.shape[1])]
    raise AssertionError(distribution)


def actions_for(distribution: Distribution, seed: int) -> Tensor:
    torch_generator = torch.Generator().manual_seed(seed)
    shape = (len(distribution.tensors[0]), dimensions(distribution))
    draw = torch.randn if distribution.noise == "normal" else torch.rand
    return distribution.sample(draw(shape, dtype=torch.float64, generator=torch_generator))


def repeated(distribution: Distribution, rows: int) -> Any:
    match distribution:
        case Gaussian(mean, log_std):
            return Gaussian(mean.expand(rows, -1), log_std.expand(rows, -1))
        case Categorical(logits, choices):
            return Categorical(logits.expand(rows, -1), choices)
        case Bernoulli(logits):
            return Bernoulli(logits.expand(rows, -1))
    raise AssertionError(distribution)


def like(distribution: Distribution, tensors: tuple[Tensor, ...]) -> Any:
    match distribution:
        case Gaussian():
            return Gaussian(*tensors)
        case Categorical():
            return Categorical(tensors[0], distribution.choices)
        case Bernoulli():
            return Bernoulli(*tensors)
    raise AssertionError(distribution)


def support(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """All actions of a single row with exact probabilities; for a Gaussian the nodes and weights of a quadrature."""
    match distribution:
        case Gaussian(mean, log_std):
            nodes, weights = np.polynomial.hermite_e.hermegauss(5)
            z = torch.tensor(list(itertools.product(nodes, repeat=mean.shape[1])))
            w = torch.tensor(list(itertools.product(weights / math.sqrt(2.0 * math.pi), repeat=mean.shape[1])))
            return mean + log_std.exp() * z, w.prod(-1)
        case Categorical(logits, choices):
            columns = [torch.softmax(part[0], dim=-1) for part in logits.split(choices, dim=-1)]
        case Bernoulli(logits):
            columns = [torch.stack([torch.sigmoid(-x), torch.sigmoid(x)]) for x in logits[0]]
        case _:
            raise AssertionError(distribution)
    actions = torch.tensor(list(itertools.product(*[range(len(p)) for p in columns])))
    picked = [p[actions[:, i]] for i, p in enumerate(columns)]
    return actions, torch.stack(picked).prod(0)


@every_kind
def test_log_prob_is_the_sum_over_dimensions_of_torchs(build):
    distribution = build(7, 0)
    actions = actions_for(distribution, 1)
    parts = [part.log_prob(actions[:, i].double()) for i, part in enumerate(reference(distribution))]
    torch.testing.assert_close(distribution.log_prob(actions), sum(parts))
    assert distribution.log_prob(actions).shape == (7,)


@every_kind
def test_entropy_is_the_sum_over_dimensions_of_torchs(build):
    distribution = build(7, 0)
    torch.testing.assert_close(distribution.entropy(), sum(part.entropy() for part in reference(distribution)))


@every_kind
def test_kl_is_the_sum_over_dimensions_of_torchs(build):
    p, q = build(7, 0), build(7, 1)
    expected = sum(distributions.kl_divergence(a, b) for a, b in zip(reference(p), reference(q), strict=True))
    torch.testing.assert_close(p.kl(q), expected)
    assert not torch.allclose(p.kl(q), q.kl(p), rtol=1e-2)


@every_kind
def test_kl_is_zero_at_itself_and_positive_elsewhere(build):
    p, q = build(50, 2), build(50, 3)
    torch.testing.assert_close(p.kl(p), torch.zeros(50, dtype=torch.float64), rtol=0, atol=1e-15)
    assert (p.kl(q) > 0.0).all()


@every_kind
def test_entropy_agrees_with_sampling(build):
    one = build(1, 4)
    many = repeated(one, SAMPLES)
    information = -many.log_prob(actions_for(many, 25))
    sigma = float(information.std()) / math.sqrt(SAMPLES)
    assert abs(float(information.mean()) - float(one.entropy())) < 3.0 * sigma
    assert 0.0 < sigma < 0.01


@every_kind
def test_kl_agrees_with_sampling(build):
    p, q = build(1, 6), build(1, 7)
    many = repeated(p, SAMPLES)
    actions = actions_for(many, 8)
    ratios = many.log_prob(actions) - repeated(q, SAMPLES).log_prob(actions)
    sigma = float(ratios.std()) / math.sqrt(SAMPLES)
    assert abs(float(ratios.mean()) - float(p.kl(q))) < 3.0 * sigma
    assert 0.0 < sigma < 0.05 * float(p.kl(q))


@every_kind
def test_probabilities_add_up_to_one_over_the_support(build):
    one = build(1, 9)
    actions, probabilities = support(one)
    assert float(probabilities.sum()) == pytest.approx(1.0)
    if not isinstance(one, Gaussian):
        torch.testing.assert_close(repeated(one, len(actions)).log_prob(actions), probabilities.log())


@every_kind
def test_fisher_product_is_the_covariance_of_the_score(build):
    one = build(1, 10)
    sizes = [t.shape[1] for t in one.tensors]
    actions, probabilities = support(one)

    def log_probs(parameters: Tensor) -> Tensor:
        tensors = tuple(part[None] for part in parameters.split(sizes))
        return repeated(like(one, tensors), len(actions)).log_prob(actions)

    scores = torch.autograd.functional.jacobian(log_probs, torch.cat([t[0] for t in one.tensors]))
    torch.testing.assert_close(probabilities @ scores, torch.zeros(sum(sizes)).double(), rtol=0, atol=1e-12)
    expected = scores.T @ (probabilities[:, None] * scores)
    products = [
        torch.cat(one.fisher_product(tuple(basis[None].split(sizes, dim=1))), dim=1)[0]
        for basis in torch.eye(sum(sizes), dtype=torch.float64)
    ]
    torch.testing.assert_close(torch.stack(products, dim=1), expected, rtol=1e-10, atol=1e-12)


@every_kind
def test_fisher_product_keeps_rows_apart(build):
    distribution = build(4, 11)
    tangents = tuple(randn(*t.shape, seed=12) for t in distribution.tensors)
    whole = distribution.fisher_product(tangents)
    for row in range(4):
        part = slice(row, row + 1)
        alone = like(distribution, tuple(t[part] for t in distribution.tensors))
        expected = alone.fisher_product(tuple(t[part] for t in tangents))
        for found, wanted in zip(whole, expected, strict=True):
            torch.testing.assert_close(found[part], wanted)


def test_gaussian_sample_is_mean_plus_std_times_noise():
    distribution = gaussian(5, 13)
    noise = randn(5, 2, seed=14)
    torch.testing.assert_close(distribution.sample(noise), distribution.mean + distribution.log_std.exp() * noise)
    assert distribution.noise == "normal"


@pytest.mark.parametrize("build", [bernoulli, multi_discrete], ids=["multi_binary", "multi_discrete"])
def test_frequencies_of_joint_actions_are_their_probabilities(build):
    one = build(1, 15)
    grid = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    noise = torch.cartesian_prod(grid, grid, grid)
    assert one.noise == "uniform"
    sampled = repeated(one, len(noise)).sample(noise)
    actions, probabilities = support(one)
    frequencies = torch.stack([(sampled == action).all(-1).double().mean() for action in actions])
    torch.testing.assert_close(frequencies, probabilities, rtol=0, atol=0.03)
    for i, part in enumerate(reference(one)):
        counts = torch.bincount(sampled[:, i]).double() / len(noise)
        expected = part.probs[0] if isinstance(one, Categorical) else torch.stack([1.0 - part.probs, part.probs])[:, 0]
        torch.testing.assert_close(counts, expected, rtol=0, atol=1.0 / 60)


def test_categorical_frequencies_on_a_fine_grid():
    one = categorical(1, 16)
    noise = (torch.arange(10_000, dtype=torch.float64)[:, None] + 0.5) / 10_000
    sampled = repeated(one, len(noise)).sample(noise)
    assert sampled.shape == (10_000, 1) and sampled.dtype == torch.int64
    frequencies = torch.bincount(sampled[:, 0]).double() / len(noise)
    torch.testing.assert_close(frequencies, torch.softmax(one.logits[0], -1), rtol=0, atol=2e-4)


@pytest.mark.parametrize("build", [categorical, multi_discrete, bernoulli])
@pytest.mark.parametrize("noise", [0.0, 1.0 - 2.0**-24])
def test_extreme_noise_gives_actions_of_the_space(build, noise):
    distribution = build(20, 17)
    actions = distribution.sample(torch.full((20, dimensions(distribution)), noise))
    assert torch.isfinite(distribution.log_prob(actions)).all()


def test_rounding_of_the_probabilities_gives_no_choice_beyond_the_last():
    logits = torch.randn(500, 9, generator=torch.Generator().manual_seed(23))
    largest = 1.0 - 2.0**-24
    assert (torch.softmax(logits, -1).cumsum(-1)[:, -1] <= largest).any()
    actions = Categorical(logits, (9,)).sample(torch.full((500, 1), largest))
    assert int(actions.max()) == 8


@every_kind
def test_no_action_is_more_probable_than_the_mode(build):
    distribution = build(30, 18)
    mode = distribution.log_prob(distribution.mode())
    for seed in range(20):
        assert (distribution.log_prob(actions_for(distribution, seed)) <= mode + 1e-12).all()


@every_kind
def test_nan_parameters_give_nan_and_no_exception(build):
    good = build(3, 19)
    for broken in range(len(good.tensors)):
        tensors = [t.clone() for t in good.tensors]
        tensors[broken][1] = math.nan
        bad = like(good, tuple(tensors))
        actions = actions_for(good, 20)
        for values in (bad.log_prob(actions), bad.entropy(), bad.kl(good), good.kl(bad), bad.kl(bad)):
            is_entropy_of_a_nan_mean = isinstance(good, Gaussian) and broken == 0 and torch.equal(values, bad.entropy())
            assert is_entropy_of_a_nan_mean or values.isnan().tolist() == [False, True, False]
        actions_for(bad, 21)
        bad.mode()
        product = bad.fisher_product(bad.tensors)
        assert any(part[1].isnan().any() for part in product)


def test_gaussian_kl_of_a_tiny_change_is_not_lost_in_rounding():
    p = Gaussian(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    for change in (1e-7, -1e-7):
        assert float(p.kl(Gaussian(p.mean, p.log_std + change))) == pytest.approx(change**2, rel=1e-5, abs=0.0)


def test_gaussian_with_overflowing_std_gives_no_exception():
    p = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    q = Gaussian(torch.zeros(1, 2), torch.full((1, 2), -1e4))
    assert not torch.isfinite(p.kl(q)).any()
    assert math.isinf(float(q.log_prob(torch.ones(1, 2))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("impossible", [-1e4, -math.inf])
def test_categorical_with_impossible_choices_is_finite_where_it_should_be(dtype, impossible):
    p = Categorical(torch.tensor([[0.0, impossible, 0.0]], dtype=dtype), (3,))
    q = Categorical(torch.tensor([[1.0, impossible, 0.0]], dtype=dtype), (3,))
    wide = Categorical(torch.zeros(1, 3, dtype=dtype), (3,))
    assert float(p.entropy()) == pytest.approx(math.log(2.0))
    assert float(p.log_prob(torch.tensor([[2]]))) == pytest.approx(-math.log(2.0))
    assert float(p.log_prob(torch.tensor([[1]]))) < -9e3
    assert float(p.kl(p)) == 0.0
    chance = math.e / (1.0 + math.e)
    assert float(p.kl(q)) == pytest.approx(-0.5 * math.log(4.0 * chance * (1.0 - chance)), rel=1e-5)
    assert float(p.kl(wide)) == pytest.approx(math.log(1.5), rel=1e-5)
    assert float(wide.kl(p)) > 3e3
    (product,) = p.fisher_product((torch.ones(1, 3, dtype=dtype) * torch.tensor([1.0, 5.0, 3.0], dtype=dtype),))
    torch.testing.assert_close(product, torch.tensor([[-0.5, 0.0, 0.5]], dtype=dtype))
    assert set(repeated(p, 100).sample(torch.linspace(0.0, 0.999, 100)[:, None])[:, 0].tolist()) == {0, 2}


def test_categorical_with_one_certain_choice():
    p = Categorical(torch.tensor([[1e4, -1e4, 0.0]]), (3,))
    assert float(p.entropy()) == 0.0 and float(p.kl(p)) == 0.0
    assert float(p.log_prob(torch.tensor([[0]]))) == 0.0
    assert torch.equal(p.fisher_product((torch.ones(1, 3),))[0], torch.zeros(1, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("extreme", [1e4, math.inf])
def test_certain_bits_are_finite_where_they_should_be(dtype, extreme):
    p = Bernoulli(torch.tensor([[extreme, -extreme]], dtype=dtype))
    fair = Bernoulli(torch.zeros(1, 2, dtype=dtype))
    assert float(p.entropy()) == 0.0 and float(p.kl(p)) == 0.0
    assert float(p.log_prob(torch.tensor([[1, 0]]))) == 0.0
    assert float(p.log_prob(torch.tensor([[0, 0]]))) == -extreme
    assert float(p.kl(fair)) == pytest.approx(2.0 * math.log(2.0))
    assert float(fair.kl(p)) == pytest.approx(extreme, rel=1e-3)
    assert torch.equal(p.fisher_product((torch.ones(1, 2, dtype=dtype),))[0], torch.zeros(1, 2, dtype=dtype))
    assert torch.equal(p.sample(torch.full((1, 2), 0.5)), torch.tensor([[1, 0]]))
    assert torch.equal(p.mode(), torch.tensor([[1, 0]]))


@every_kind
def test_detach_keeps_the_numbers_and_cuts_the_graph(build):
    distribution = build(3, 22)
    tracked = like(distribution, tuple(t.clone().requires_grad_(True) for t in distribution.tensors))
    cut = tracked.detach()
    assert type(cut) is type(distribution)
    for before, after in zip(tracked.tensors, cut.tensors, strict=True):
        assert torch.equal(before, after) and before.requires_grad and not after.requires_grad
    assert tracked.entropy().requires_grad and not cut.entropy().requires_grad


@dataclass(frozen=True)
class Bounded(Gaussian):
    """A distribution of one's own, with a field more."""

    bound: float


def test_distributions_of_ones_own_keep_their_fields_when_detached():
    mean = torch.zeros(2, 3, requires_grad=True)
    detached = Bounded(mean, mean, 0.5).detach()
    assert type(detached) is Bounded and detached.bound == 0.5 and not detached.mean.requires_grad
