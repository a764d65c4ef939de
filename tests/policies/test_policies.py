import copy

import pytest
import torch
from methods import mlp_policy
from torch import Tensor, nn

from trpo_lightning.policies.distributions import Bernoulli, Categorical, Gaussian
from trpo_lightning.policies.networks import assign_parameter_vector, build_network, named_views, parameter_vector
from trpo_lightning.policies.policy import (
    BernoulliPolicy,
    CategoricalPolicy,
    GaussianPolicy,
    Policy,
)
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions

SPECS: dict[str, ActionSpec] = {
    "gaussian": ContinuousActions(2),
    "categorical": DiscreteActions((5,)),
    "multi_discrete": DiscreteActions((2, 3)),
    "multi_binary": BinaryActions(4),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def build(
    spec: ActionSpec, *, seed: int = 0, hidden_sizes: list[int] | None = None, activation: str = "tanh"
) -> Policy:
    return mlp_policy(
        (3,),
        spec,
        hidden_sizes=[6, 5] if hidden_sizes is None else hidden_sizes,
        activation=activation,
        initial_log_std=-0.7,
        generator=torch.Generator().manual_seed(seed),
    )


def observations(rows: int = 4) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))


def random_theta(policy: Policy, seed: int = 2) -> Tensor:
    return torch.randn(len(parameter_vector(policy)), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("spec", "policy_type", "distribution_type", "outputs", "action_size"),
    [
        (ContinuousActions(2), GaussianPolicy, Gaussian, 2, 2),
        (DiscreteActions((5,)), CategoricalPolicy, Categorical, 5, 1),
        (DiscreteActions((2, 3)), CategoricalPolicy, Categorical, 5, 2),
        (BinaryActions(4), BernoulliPolicy, Bernoulli, 4, 4),
    ],
)
def test_every_action_space_has_its_policy(spec, policy_type, distribution_type, outputs, action_size):
    policy = build(spec)
    distribution = policy(observations())
    assert type(policy) is policy_type and type(distribution) is distribution_type
    assert distribution.tensors[0].shape == (4, outputs)
    assert distribution.sample(torch.full((4, action_size), 0.5)).shape == (4, action_size)
    own = 2 if isinstance(spec, ContinuousActions) else 0
    assert len(parameter_vector(policy)) == (3 + 1) * 6 + (6 + 1) * 5 + (5 + 1) * outputs + own


@every_spec
def test_a_sampler_samples_each_step_from_its_distribution(spec):
    policy = build(spec)
    assign_parameter_vector(policy, random_theta(policy))
    outputs = policy.network(observations()).detach()
    size = policy.distribution(outputs).mode().shape[1]
    noise = torch.rand(3, 4, size, generator=torch.Generator().manual_seed(5))
    sample = policy.sampler(noise)
    for t in range(3):
        expected = policy.distribution(outputs).sample(noise[t])
        torch.testing.assert_close(torch.from_numpy(sample(t, outputs.numpy())), expected)


@every_spec
def test_initial_parameters_come_from_the_generator_alone(spec):
    state = torch.get_rng_state()
    first, second, other = build(spec), build(spec), build(spec, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(parameter_vector(first), parameter_vector(second))
    assert not torch.equal(parameter_vector(first), parameter_vector(other))


def test_layers_start_orthogonal_with_zero_bias_and_a_small_last_layer():
    layers = [m for m in build(ContinuousActions(2)).modules() if isinstance(m, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(6, 3), (5, 6), (2, 5)]
    for layer, gain in zip(layers, (2.0**0.5, 2.0**0.5, 0.01), strict=True):
        weight = layer.weight.detach() / gain
        gram = weight.T @ weight if weight.shape[0] > weight.shape[1] else weight @ weight.T
        torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)
        assert torch.equal(layer.bias.detach(), torch.zeros_like(layer.bias))


@pytest.mark.parametrize(
    ("activation", "function"), [("tanh", torch.tanh), ("relu", torch.relu), ("elu", nn.functional.elu)]
)
def test_network_is_the_composition_of_its_layers(activation, function):
    policy = build(ContinuousActions(2), activation=activation)
    assign_parameter_vector(policy, random_theta(policy))
    first, second, last = [m for m in policy.modules() if isinstance(m, nn.Linear)]
    expected = last(function(second(function(first(observations())))))
    torch.testing.assert_close(policy(observations()).mean, expected)


def test_linear_policy_has_one_layer():
    policy = build(ContinuousActions(1), hidden_sizes=[])
    assert len(parameter_vector(policy)) == 3 + 1 + 1
    theta = random_theta(policy)
    assign_parameter_vector(policy, theta)
    (layer,) = [m for m in policy.modules() if isinstance(m, nn.Linear)]
    torch.testing.assert_close(policy(observations()).mean, observations() @ layer.weight.T + layer.bias)


@pytest.mark.parametrize("shape", [(), (3, 4), (4, 84, 84, 4)])
def test_observations_that_are_not_vectors_are_refused(shape):
    with pytest.raises(ValueError, match="no network for observations of shape"):
        build_network(
            shape, 2, hidden_sizes=[4], activation="tanh", output_gain=1.0, generator=torch.Generator().manual_seed(0)
        )


@every_spec
def test_at_theta_equals_writing_theta_and_calling_forward(spec):
    policy = build(spec)
    theta = random_theta(policy)
    written = copy.deepcopy(policy)
    assign_parameter_vector(written, theta)
    before = parameter_vector(policy)
    for found, expected in zip(policy.at(theta, observations()).tensors, written(observations()).tensors, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(parameter_vector(policy), before)


@every_spec
def test_at_its_own_parameters_nothing_changes(spec):
    policy = build(spec)
    pairs = zip(
        policy.at(parameter_vector(policy), observations()).tensors, policy(observations()).tensors, strict=True
    )
    assert all(torch.equal(found, expected) for found, expected in pairs)


@every_spec
def test_at_is_differentiable_in_every_entry_of_theta(spec):
    policy = build(spec).double()
    theta = random_theta(policy).double().requires_grad_(True)
    inputs = observations().double()
    weights = [
        torch.randn(t.shape, dtype=t.dtype, generator=torch.Generator().manual_seed(3)) for t in policy(inputs).tensors
    ]

    def total(th: Tensor) -> Tensor:
        parts = zip(weights, policy.at(th, inputs).tensors, strict=True)
        return torch.stack([(w * t).sum() for w, t in parts]).sum()

    (gradient,) = torch.autograd.grad(total(theta), theta)
    assert (gradient != 0.0).all()
    assert torch.autograd.gradcheck(total, theta)


@every_spec
def test_parameter_vector_round_trip(spec):
    policy = build(spec)
    theta = random_theta(policy)
    assign_parameter_vector(policy, theta)
    assert torch.equal(parameter_vector(policy), theta)
    assert torch.equal(torch.cat([p.reshape(-1) for p in policy.parameters()]), theta)


def test_parameter_vector_is_a_copy():
    policy = build(ContinuousActions(2))
    theta = parameter_vector(policy)
    assert not theta.requires_grad
    theta.fill_(7.0)
    assert not (parameter_vector(policy) == 7.0).any()


@pytest.mark.parametrize("excess", [-1, 1])
def test_theta_of_another_length_is_refused_and_changes_nothing(excess):
    policy = build(ContinuousActions(2))
    before = parameter_vector(policy)
    with pytest.raises(ValueError, match="parameters"):
        assign_parameter_vector(policy, torch.zeros(len(before) + excess))
    assert torch.equal(parameter_vector(policy), before)


def test_named_views_are_views_in_the_order_of_the_parameter_vector():
    policy = build(ContinuousActions(2))
    theta = random_theta(policy)
    assign_parameter_vector(policy, theta)
    views = named_views(policy, theta)
    assert list(views) == [name for name, _ in policy.named_parameters()]
    for name, parameter in policy.named_parameters():
        assert torch.equal(views[name], parameter)
        assert views[name].untyped_storage().data_ptr() == theta.untyped_storage().data_ptr()


def test_log_std_is_free_of_the_state_and_part_of_theta():
    policy = build(ContinuousActions(2))
    assert isinstance(policy, GaussianPolicy)
    assert torch.equal(policy.log_std, torch.full((2,), -0.7))
    assert torch.equal(policy(observations()).log_std, torch.full((4, 2), -0.7))
    theta = parameter_vector(policy)
    (positions,) = torch.nonzero(theta == policy.log_std[0].item(), as_tuple=True)
    assert len(positions) == 2
    theta[positions] = torch.tensor([0.25, -1.5])
    moved = policy.at(theta, observations())
    assert torch.equal(moved.log_std, torch.tensor([0.25, -1.5]).expand(4, 2))
    assert torch.equal(moved.mean, policy(observations()).mean)


def test_parameters_belong_to_theta_whatever_their_name():
    class Named(Policy):
        def __init__(self) -> None:
            super().__init__()
            self.value_function = nn.Linear(3, 2)
            self.critic = nn.Parameter(torch.zeros(2))

        def forward(self, observations: Tensor) -> Gaussian:
            mean = self.value_function(observations)
            return Gaussian(mean, self.critic.expand_as(mean))

    policy = Named()
    theta = random_theta(policy)
    assert len(theta) == 3 * 2 + 2 + 2
    found = policy.at(theta, observations())
    assign_parameter_vector(policy, theta)
    assert torch.equal(found.mean, policy(observations()).mean)
    assert torch.equal(found.log_std[0], policy.critic)
