"""`value.features=policy`: a value function on the policy's last hidden layer."""

import pytest
import torch
from methods import mlp_policy, value_settings
from torch import Tensor, nn

from trpo_lightning import TRPO
from trpo_lightning.errors import UserError
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.observations import Layout
from trpo_lightning.policies.spaces import DiscreteActions
from trpo_lightning.training.batches import make_batch
from trpo_lightning.values import build_value_function

SHAPES = {"vector": (3,), "image": (2, 12, 12), "mixture": ((2, 12, 12), (3,))}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_kind = pytest.mark.parametrize("name", ["adam", "lbfgs", "trust_region"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def policy_for(shape, **more):
    images = {} if shape == (3,) else {"image_network": "sizes", "convolutions": ["3x4/2"]}
    return mlp_policy(shape, DiscreteActions((4,)), generator=generator(), **{"hidden_sizes": [6, 5], **images, **more})


def value_on(policy, shape, name="adam", **more):
    settings = value_settings(name=name, features="policy", **{"hidden_sizes": [8], "learning_rate": 0.01, **more})
    return build_value_function(shape, settings, generator(1), policy)


def rows(shape, count=40) -> Tensor:
    layout, source = Layout.of(shape), generator(2)
    if not layout.images:
        return torch.randn(count, *shape, generator=source)
    pictures = [torch.randint(256, (count, *image.shape), generator=source) for image in layout.images]
    beside = torch.randn(count, layout.vector, generator=source).numpy()
    return torch.from_numpy(layout.pack([picture.to(torch.uint8).numpy() for picture in pictures], beside))


def features(policy, observations) -> Tensor:
    """What the policy's last layer gets, caught on its way there."""
    caught: list[Tensor] = []
    last = getattr(policy.network, "dense", policy.network)[-1]
    hook = last.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0].detach()))
    policy(observations)
    hook.remove()
    return caught[0]


@every_shape
@every_kind
def test_values_are_those_of_a_head_on_what_the_last_layer_gets(shape, name):
    policy, seen = policy_for(shape), rows(shape)
    value = value_on(policy, shape, name)
    alone = build_value_function((5,), value_settings(name=name, hidden_sizes=[8]), generator(1))
    torch.testing.assert_close(value.predict(seen), alone.predict(features(policy, seen)))
    torch.testing.assert_close(value.predict(seen, chunk=7), value.predict(seen))
    assert sum(p.numel() for p in value.parameters()) == 5 * 8 + 8 + 8 + 1


@every_shape
@every_kind
def test_a_fit_learns_and_leaves_the_policy_as_it_is(shape, name):
    policy, seen = policy_for(shape), rows(shape)
    value, before = value_on(policy, shape, name), parameter_vector(policy)
    found = features(policy, seen)
    targets = found @ torch.tensor([2.0, -1.0, 0.5, 1.0, -0.5]) + 1.0
    for i in range(25):
        value.fit(seen, targets, generator(i))
    assert float((value.predict(seen) - targets).square().mean()) < 0.1 * float(targets.var())
    assert torch.equal(parameter_vector(policy), before)


def test_values_follow_the_policy_and_a_linear_one_has_the_observations_for_features():
    policy, seen = policy_for((3,)), rows((3,))
    value = value_on(policy, (3,))
    before = value.predict(seen)
    with torch.no_grad():
        policy.network[0].weight.mul_(2.0)
    assert not torch.equal(value.predict(seen), before)
    linear = policy_for((3,), hidden_sizes=[])
    assert torch.equal(value_on(linear, (3,)).features(seen), seen)


def test_a_rollout_is_valued_with_the_features_that_the_head_was_fitted_to():
    """The fit comes after the update: the next estimate sees the same policy and the same head."""
    trpo = TRPO("CartPole-v1", num_envs=4, steps_per_iteration=64, value={"features": "policy", "epochs": 3}, threads=1)
    estimated = make_batch(trpo.collect(), trpo.value_function, trpo.settings, trpo.device)
    trpo.policy.load_state_dict({k: v + 0.1 for k, v in trpo.policy.state_dict().items()})
    assert estimated.value_data is not None
    seen = estimated.value_data.observations
    head = trpo.value_function.head
    trpo.fit_values(estimated.value_data).finish()
    expected = head.predict(features(trpo.policy, seen))
    torch.testing.assert_close(trpo.value_function.predict(seen), expected)
    trpo.scheme.close()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"policy": {"name": "gru"}}, r"value\.features=policy does not go with policy\.name=gru.*features=own"),
        ({"value": {"features": "policy", "name": "lstm"}}, r"value\.features does not count with value\.name=lstm"),
        (
            {"value": {"features": "policy", "image_network": "mnih_2015"}},
            r"image_network=mnih_2015 does not go with .*policy",
        ),
    ],
)
def test_what_has_no_features_is_refused_in_one_line(keywords, message):
    with pytest.raises(UserError, match=message) as refused:
        TRPO("CartPole-v1", **{"value": {"features": "policy"}, **keywords})
    assert "\n" not in str(refused.value)


def test_a_policy_that_does_not_end_in_a_linear_layer_is_refused():
    policy = policy_for((3,))
    policy.network = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    with pytest.raises(UserError, match=r"the network of CategoricalPolicy does not end in a linear layer"):
        value_on(policy, (3,))


class Residual(nn.Sequential):
    """Gives its last layer more than its layers say."""

    def forward(self, x):
        *hidden, last = self
        y = x
        for layer in hidden:
            y = layer(y)
        return last(x + y)


def test_a_network_with_a_forward_of_its_own_is_refused():
    policy = policy_for((3,))
    policy.network = Residual(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 4))
    with pytest.raises(UserError, match=r"features=policy: the network of CategoricalPolicy"):
        value_on(policy, (3,))
