import pytest
import torch
from methods import mlp_policy
from torch import Tensor, distributions

from trpo_lightning.numerics.objectives import importance_sampled_surrogate, kl_divergence, mean_kl
from trpo_lightning.policies.distributions import Categorical, Gaussian
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.spaces import ContinuousActions, DiscreteActions

ROWS = 9


@pytest.fixture(params=[ContinuousActions(2), DiscreteActions((3, 2))], ids=["gaussian", "multi_discrete"])
def policy(request) -> Policy:
    return mlp_policy(
        (3,),
        request.param,
        hidden_sizes=[4],
        activation="tanh",
        initial_log_std=-0.3,
        generator=torch.Generator().manual_seed(0),
    ).double()


@pytest.fixture
def batch(policy) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(ROWS, 3, dtype=torch.float64, generator=generator)
    advantages = torch.randn(ROWS, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        distribution = policy(observations)
        noise = torch.rand(ROWS, 2, dtype=torch.float64, generator=generator)
        return observations, distribution.sample(noise), advantages


def surrogate_at(policy: Policy, batch, theta: Tensor) -> Tensor:
    observations, actions, advantages = batch
    old = policy(observations).log_prob(actions).detach()
    return importance_sampled_surrogate(policy.at(theta, observations).log_prob(actions), old, advantages)


def test_surrogate_is_the_sum_of_ratio_times_advantage():
    log_prob, old = torch.tensor([-1.0, -2.0, 0.5]), torch.tensor([-1.5, -1.0, 0.5])
    advantages = torch.tensor([2.0, -1.0, 3.0])
    expected = sum(
        float(torch.exp(new.double() - before.double()) * a)
        for new, before, a in zip(log_prob, old, advantages, strict=True)
    )
    surrogate = importance_sampled_surrogate(log_prob, old, advantages)
    assert surrogate.dtype == torch.float64
    assert float(surrogate) == pytest.approx(expected, rel=1e-6)


def test_surrogate_at_the_old_parameters_is_the_sum_of_advantages(policy, batch):
    assert float(surrogate_at(policy, batch, parameter_vector(policy))) == pytest.approx(float(batch[2].sum()))


def test_surrogate_adds_up_in_float64():
    advantages = torch.tensor([2.0**24, 1.0, -(2.0**24)])
    assert float(importance_sampled_surrogate(torch.zeros(3), torch.zeros(3), advantages)) == 1.0


def test_gradient_at_the_old_parameters_is_the_policy_gradient_of_a_per_sample_loop(policy, batch):
    theta = parameter_vector(policy).requires_grad_(True)
    (gradient,) = torch.autograd.grad(surrogate_at(policy, batch, theta), theta)
    expected = torch.zeros_like(gradient)
    for observation, action, advantage in zip(*batch, strict=True):
        log_prob = policy(observation[None]).log_prob(action[None]).squeeze()
        parts = torch.autograd.grad(log_prob, list(policy.parameters()))
        expected += advantage * torch.cat([part.reshape(-1) for part in parts])
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize("distance", [0.0, 0.3])
def test_gradient_agrees_with_finite_differences(policy, batch, distance):
    generator = torch.Generator().manual_seed(2)
    old = parameter_vector(policy)
    offset, direction = torch.randn(2, len(old), dtype=torch.float64, generator=generator)
    theta = (old + distance * offset).requires_grad_(True)
    (gradient,) = torch.autograd.grad(surrogate_at(policy, batch, theta), theta)
    h = 1e-5
    with torch.no_grad():
        difference = surrogate_at(policy, batch, theta + h * direction) - surrogate_at(
            policy, batch, theta - h * direction
        )
    assert float(difference) / (2.0 * h) == pytest.approx(float(gradient @ direction), rel=1e-6, abs=1e-7)


def gaussian_pair() -> tuple[Gaussian, Gaussian]:
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    log_stds = 0.4 * torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    return Gaussian(means[0], log_stds[0]), Gaussian(means[1], log_stds[1])


def gaussian_kl_by_formula(p: Gaussian, q: Gaussian) -> Tensor:
    sigma, tau = p.log_std.exp(), q.log_std.exp()
    return (torch.log(tau / sigma) + (sigma**2 + (p.mean - q.mean) ** 2) / (2.0 * tau**2) - 0.5).sum(-1)


def categorical_kl(p: Categorical, q: Categorical) -> Tensor:
    return distributions.kl_divergence(
        distributions.Categorical(logits=p.logits), distributions.Categorical(logits=q.logits)
    )


def test_mean_kl_of_gaussians_in_both_directions():
    old, new = gaussian_pair()
    forward, backward = gaussian_kl_by_formula(old, new), gaussian_kl_by_formula(new, old)
    assert abs(float(forward.mean() - backward.mean())) > 0.1
    torch.testing.assert_close(kl_divergence(old, new), forward)
    torch.testing.assert_close(mean_kl(old, new), forward.mean())
    torch.testing.assert_close(mean_kl(old, new, "old_new"), forward.mean())
    torch.testing.assert_close(mean_kl(old, new, "new_old"), backward.mean())


def test_mean_kl_of_categoricals_in_both_directions():
    logits = 2.0 * torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    old, new = Categorical(logits[0], (4,)), Categorical(logits[1], (4,))
    torch.testing.assert_close(mean_kl(old, new), categorical_kl(old, new).mean())
    torch.testing.assert_close(mean_kl(old, new, "new_old"), categorical_kl(new, old).mean())
    assert abs(float(mean_kl(old, new) - mean_kl(old, new, "new_old"))) > 0.05


def test_mean_kl_is_a_float64_scalar_for_float32_policies():
    old, new = Gaussian(torch.zeros(4, 2), torch.zeros(4, 2)), Gaussian(torch.ones(4, 2), torch.zeros(4, 2))
    assert mean_kl(old, new).dtype == torch.float64
    assert float(mean_kl(old, new)) == 1.0
