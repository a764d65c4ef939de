import math

import pytest
import torch
from methods import rule_settings
from populations import generation, policy, random, rosenbrock, sphere

from trpo_lightning.rules.cem import CrossEntropyMethod, CrossEntropySearch
from trpo_lightning.settings import RuleSettings


def settings(**values) -> RuleSettings:
    return rule_settings(name="cem", **values)


def loops(candidates, returns, elites, extra):
    """Mean and variance of the best, one number at a time."""
    order = sorted(range(len(returns)), key=lambda k: -float(returns[k]))[:elites]
    means, variances = [], []
    for i in range(candidates.shape[1]):
        values = [float(candidates[k, i]) for k in order]
        mean = math.fsum(values) / elites
        means.append(mean)
        variances.append(math.fsum((v - mean) ** 2 for v in values) / elites + extra)
    return torch.tensor(means, dtype=torch.float64), torch.tensor(variances, dtype=torch.float64)


def best_first(candidates, returns):
    return candidates[torch.sort(returns, descending=True).indices]


@pytest.mark.parametrize(("population", "fraction", "elites"), [(10, 0.2, 2), (10, 0.34, 3), (4, 0.01, 2), (6, 1.0, 6)])
@pytest.mark.parametrize(("generation", "extra"), [(0, 0.25), (3, 0.25 * 0.4), (5, 0.0), (9, 0.0)])
def test_mean_and_variance_of_the_elites_with_decreasing_extra_noise(population, fraction, elites, generation, extra):
    candidates, returns = random(population, 4), random(population, seed=1)
    search = CrossEntropySearch(torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64), generation)
    chosen = settings(elite_fraction=fraction, extra_std=0.5, extra_std_generations=5)
    found = search.adapted(best_first(candidates, returns), chosen)
    mean, variance = loops(candidates, returns, elites, extra)
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.variance, variance, rtol=1e-12, atol=1e-14)
    assert found.generation == generation + 1
    assert found.std() == pytest.approx(math.sqrt(float(variance.mean())))


def test_candidates_have_the_distribution_s_mean_and_std():
    search = CrossEntropySearch(random(3), random(3, seed=1).square(), 0)
    x = search.sample(random(100_000, 3, seed=2))
    torch.testing.assert_close(x.mean(0), search.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(x.std(0), search.variance.sqrt(), rtol=0.02, atol=0)
    start = CrossEntropySearch.around(search.mean, settings(initial_std=0.3))
    assert torch.equal(start.mean, search.mean) and torch.equal(start.variance, torch.full_like(start.mean, 0.3**2))


def test_a_hundred_candidates_unless_the_settings_say_otherwise():
    assert CrossEntropyMethod(settings()).propose(policy(), torch.Generator()).shape == (100, 10)
    assert CrossEntropyMethod(settings(population=7)).propose(policy(), torch.Generator()).shape == (7, 10)


def test_it_finds_the_maximum_of_a_sphere():
    one = policy(observations=1).double()  # 6 parameters, 4 of them searched
    rule = CrossEntropyMethod(settings(population=50, extra_std=0.1, extra_std_generations=30))
    for seed in range(60):
        theta = generation(rule, one, lambda x: sphere(x[:, 2:]), seed)
    torch.testing.assert_close(theta[2:], torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-3)


def test_extra_noise_gets_it_along_rosenbrock_s_valley():
    """Independent normals shrink too early in a curved valley: the noise is what they need (Szita & Lorincz 2006)."""
    errors = []
    for extra_std in (0.0, 0.2):
        one = policy(observations=1).double()
        rule = CrossEntropyMethod(settings(population=100, extra_std=extra_std, extra_std_generations=250))
        for seed in range(270):
            theta = generation(rule, one, lambda x: rosenbrock(x[:, 2:4]), seed)
        errors.append(float((theta[2:4] - 1.0).abs().max()))
    assert errors[1] < 0.4 < 0.7 < errors[0], errors
