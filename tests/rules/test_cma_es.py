import math

import cma
import numpy as np
import pytest
import torch
from methods import rule_settings
from populations import generation, policy, random, rosenbrock, sphere

from trpo_lightning.rules import cma_es
from trpo_lightning.rules.cma_es import CMAES, CovarianceSearch, constants
from trpo_lightning.settings import RuleSettings

SHAPES = [(1, 4), (2, 6), (3, 3), (5, 8), (10, 10), (10, 41), (60, 16)]


def settings(**values) -> RuleSettings:
    return rule_settings(name="cma_es", **values)


def library(n: int, population: int, sigma: float):
    """The library's strategy, started at C = I exactly and with the tutorial's constants of path-length control."""
    options = {"popsize": population, "verbose": -9, "CMA_diagonal_decoding": 0}
    strategy = cma.CMAEvolutionStrategy(n * [0.5], sigma, options)
    strategy.sm.C, strategy.sm.B, strategy.sm.D = np.eye(n), np.eye(n), np.ones(n)
    strategy._updateBDfromSM(strategy.sm)
    ours = constants(n, population, diagonal=False)
    strategy.adapt_sigma.cs, strategy.adapt_sigma.damps = ours.c_sigma, ours.d_sigma
    return strategy


@pytest.mark.parametrize(("n", "population"), SHAPES)
def test_weights_and_rates_of_the_matrix_are_those_of_the_library(n, population):
    ours, theirs = constants(n, population, diagonal=False), library(n, population, 1.0).sp
    np.testing.assert_allclose(ours.weights.numpy(), theirs.weights, rtol=1e-12, atol=1e-15)
    found = [ours.mu_eff, ours.c_1, ours.c_mu, ours.c_c]
    np.testing.assert_allclose(found, [theirs.weights.mueff, theirs.c1, theirs.cmu, theirs.cc], rtol=1e-12)


def test_rates_of_the_step_size_are_those_of_the_tutorial():
    """Hansen 2016, table 1, by hand: with 6 candidates 3 are parents, mu_eff = 2.0286."""
    raw = [math.log(3.5) - math.log(i) for i in (1, 2, 3)]
    mu_eff = sum(raw) ** 2 / sum(w * w for w in raw)
    found = constants(4, 6, diagonal=False)
    assert found.mu_eff == pytest.approx(mu_eff) == pytest.approx(2.0286, abs=1e-4)
    assert found.c_sigma == pytest.approx((mu_eff + 2) / (4 + mu_eff + 5))
    assert found.d_sigma == pytest.approx(1 + found.c_sigma)  # sqrt(1.0286 / 5) < 1
    many = constants(4, 200, diagonal=False)
    assert many.d_sigma == pytest.approx(1 + 2 * (math.sqrt((many.mu_eff - 1) / 5) - 1) + many.c_sigma)


@pytest.mark.filterwarnings("ignore:orphanated injected solution")
@pytest.mark.parametrize(("n", "population"), SHAPES)
def test_generations_are_those_of_the_library(n, population):
    """The same candidates and the same order of fitness: mean, step size, matrix and paths agree throughout."""
    strategy = library(n, population, 0.7)
    search = CovarianceSearch.around(torch.full((n,), 0.5, dtype=torch.float64), settings(initial_std=0.7))
    scales = torch.logspace(0, 1, n, dtype=torch.float64)
    for seed in range(25):
        x = search.sample(random(population, n, seed=seed))
        fitness = ((x * scales).square().sum(1) + 0.3 * random(population, seed=1000 + seed)).tolist()
        strategy.ask()
        strategy.tell(list(x.numpy()), fitness, check_points=False)
        strategy.sm.update_now(-1)
        strategy._updateBDfromSM(strategy.sm)
        search = search.adapted(x[np.argsort(fitness)], settings())
        for ours, theirs in [
            (search.mean, strategy.mean),
            (search.path, strategy.pc),
            (search.sigma_path, strategy.adapt_sigma.ps),
            (search.covariance, strategy.C),
        ]:
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6, atol=1e-7, err_msg=str(seed))
        assert search.sigma == pytest.approx(strategy.sigma, rel=1e-7)
    assert abs(search.covariance - torch.eye(n)).max() > 1e-2


def test_the_diagonal_variant_by_loops():
    """Ros & Hansen 2008: the same equations with a diagonal matrix, whose rates are (n + 2) / 3 times larger."""
    n, population = 4, 8
    c, full = constants(n, population, diagonal=True), constants(n, population, diagonal=False)
    assert c.c_1 == pytest.approx(2.0 * full.c_1) and c.c_mu == pytest.approx(2.0 * full.c_mu)
    assert (c.c_sigma, c.d_sigma, c.c_c) == (full.c_sigma, full.d_sigma, full.c_c)
    search = CovarianceSearch.around(random(n), settings(initial_std=0.4, covariance="diagonal"))
    mean, sigma, variances, pc, ps = search.mean.tolist(), 0.4, [1.0] * n, [0.0] * n, [0.0] * n
    chi = math.sqrt(2.0) * math.gamma((n + 1) / 2) / math.gamma(n / 2)
    for g in range(12):
        x = search.sample(random(population, n, seed=g))
        x = x[torch.sort(sphere(x), descending=True).indices]
        search = search.adapted(x, settings())
        y = [[(float(x[k, i]) - mean[i]) / sigma for i in range(n)] for k in range(population)]
        w = c.weights.tolist()
        step = [math.fsum(w[k] * y[k][i] for k in range(population) if w[k] > 0) for i in range(n)]
        gain = math.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff)
        ps = [(1 - c.c_sigma) * ps[i] + gain * step[i] / math.sqrt(variances[i]) for i in range(n)]
        norm = math.sqrt(math.fsum(p * p for p in ps))
        h = norm / math.sqrt(1 - (1 - c.c_sigma) ** (2 * (g + 1))) < (1.4 + 2 / (n + 1)) * chi
        gain = math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff)
        pc = [(1 - c.c_c) * pc[i] + (gain * step[i] if h else 0.0) for i in range(n)]
        lengths = [math.fsum(y[k][i] ** 2 / variances[i] for i in range(n)) for k in range(population)]
        signed = [w[k] if w[k] >= 0 else w[k] * n / lengths[k] for k in range(population)]
        for i in range(n):
            decay = 1 + (0 if h else c.c_1 * c.c_c * (2 - c.c_c)) - c.c_1 - c.c_mu * sum(w)
            rank_mu = math.fsum(signed[k] * y[k][i] ** 2 for k in range(population))
            variances[i] = decay * variances[i] + c.c_1 * pc[i] ** 2 + c.c_mu * rank_mu
        mean = [mean[i] + sigma * step[i] for i in range(n)]
        sigma *= math.exp(c.c_sigma / c.d_sigma * (norm / chi - 1))
        np.testing.assert_allclose(search.covariance.numpy(), variances, rtol=1e-9)
        np.testing.assert_allclose(search.mean.numpy(), mean, rtol=1e-9, atol=1e-12)
        assert search.sigma == pytest.approx(sigma, rel=1e-9)


@pytest.mark.parametrize(("share", "moves"), [(0.999, True), (1.001, False)])
def test_the_path_of_the_matrix_stalls_while_steps_are_too_long(share, moves):
    """h_sigma of eq. 45 in the first generation: the normalised path is then sqrt(mu_eff) times the step."""
    n, population = 5, 8
    c = constants(n, population, diagonal=False)
    chi = math.sqrt(2.0) * math.gamma((n + 1) / 2) / math.gamma(n / 2)
    length = share * (1.4 + 2 / (n + 1)) * chi / math.sqrt(c.mu_eff)
    start = CovarianceSearch.around(torch.zeros(n, dtype=torch.float64), settings())
    step = torch.eye(n, dtype=torch.float64)[1] * length
    found = start.adapted(step.repeat(population, 1), settings())
    gain = math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff)
    torch.testing.assert_close(found.path, gain * step if moves else 0.0 * step)
    decay = 1 - c.c_1 - c.c_mu * float(c.weights.sum()) + (0 if moves else c.c_1 * c.c_c * (2 - c.c_c))
    assert float(found.covariance[0, 0]) == pytest.approx(decay, rel=1e-12)


def correlated(n=5, generations=20) -> CovarianceSearch:
    search = CovarianceSearch.around(torch.zeros(n, dtype=torch.float64), settings(initial_std=1.0))
    for seed in range(generations):
        x = search.sample(random(12, n, seed=seed))
        search = search.adapted(x[torch.sort(rosenbrock(x), descending=True).indices], settings())
    return search


def test_candidates_have_the_distribution_s_mean_and_covariance():
    search = correlated()
    x = search.sample(random(50_000, 5, seed=99))
    off_diagonal = search.covariance - search.covariance.diagonal().diag()
    assert off_diagonal.abs().max() > 0.05
    torch.testing.assert_close(x.mean(0), search.mean, rtol=0, atol=0.01 * search.sigma)
    torch.testing.assert_close(torch.cov(x.T) / search.sigma**2, search.covariance, rtol=0.03, atol=0.03)
    assert search.std() == pytest.approx(float(x.var(0).mean().sqrt()), rel=0.01)


def test_eigenvectors_signs_and_order_do_not_change_candidates():
    search = correlated()
    noise, flip = random(6, 5, seed=3), torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    before = search.sample(noise)
    object.__setattr__(search, "basis", (search.basis * flip).flip(1))
    object.__setattr__(search, "scales", search.scales.flip(0))
    torch.testing.assert_close(search.sample(noise), before, rtol=1e-12, atol=1e-13)


def test_the_decomposition_waits_where_a_generation_changes_little():
    n, population = 60, 8
    c = constants(n, population, diagonal=False)
    gap = 1 / (10 * n * (c.c_1 + c.c_mu))
    assert 1.0 < gap < 2.0
    search = CovarianceSearch.around(torch.zeros(n, dtype=torch.float64), settings())
    for seed in range(5):
        search = search.adapted(search.sample(random(population, n, seed=seed)), settings())
        assert search.decomposed == 2 * ((seed + 1) // 2)
        assert torch.equal(search.covariance, search.covariance.T)
    root = search.basis @ search.scales.diag() @ search.basis.T
    assert (root @ root - search.covariance).abs().max() > 1e-6  # one generation old


def test_large_searches_are_diagonal_unless_the_settings_say_otherwise(monkeypatch):
    monkeypatch.setattr(cma_es, "FULL_UP_TO", 3)
    small, large = torch.zeros(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    shapes = {
        (mean, kind): CovarianceSearch.around(mean, settings(covariance=kind)).covariance.shape
        for mean in (small, large)
        for kind in ("auto", "full", "diagonal")
    }
    assert list(shapes.values()) == [(3, 3), (3, 3), (3,), (4,), (4, 4), (4,)]


def test_the_population_is_the_usual_one_for_the_searched_parameters():
    one = policy()
    assert CMAES(settings()).propose(one, torch.Generator()).shape == (4 + int(3 * math.log(8)), 10)


def axes(x):
    """Axes of different lengths, along the parameters: what a diagonal matrix can learn."""
    return -((x - 1.0).square() * torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=x.dtype)).sum(1)


@pytest.mark.parametrize(
    ("covariance", "function", "generations"),
    [("full", sphere, 120), ("full", rosenbrock, 300), ("diagonal", sphere, 120), ("diagonal", axes, 150)],
)
def test_it_finds_the_maximum(covariance, function, generations):
    one = policy(observations=1).double()  # 6 parameters, 4 of them searched
    rule = CMAES(settings(initial_std=0.5, covariance=covariance))
    for seed in range(generations):
        theta = generation(rule, one, lambda x: function(x[:, 2:]), seed)
    torch.testing.assert_close(theta[2:], torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-5)


def test_the_step_size_grows_at_most_by_a_factor_of_e():
    search = CovarianceSearch.around(torch.zeros(3, dtype=torch.float64), settings())
    far = search.adapted(1e6 + random(8, 3), settings())
    assert far.sigma == pytest.approx(math.e) and torch.isfinite(far.covariance).all()
