"""Networks that see images: their sizes, what they compute, and their derivatives against dense ones in float64."""

import numpy as np
import pytest
import torch
from methods import mlp_policy

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.curvature import curvature_of_rows, fisher_vector_product
from trpo_lightning.policies.convolutional import ImageChain
from trpo_lightning.policies.images import Convolution, ImageNetwork, products_per_row, rows_at_once, scaled
from trpo_lightning.policies.linearized import linearized
from trpo_lightning.policies.networks import ACTIVATIONS, build_network, parameter_vector
from trpo_lightning.policies.observations import Image, Layout
from trpo_lightning.policies.spaces import ActionSpec, ContinuousActions, DiscreteActions
from trpo_lightning.rules.constraint import fisher
from trpo_lightning.settings import AdamValueSettings, LinearValueSettings, MLPPolicySettings
from trpo_lightning.threads import torch_threads
from trpo_lightning.values import build_value_function

PONG = DiscreteActions((6,))
SHAPES = {
    "stack": (2, 9, 8),
    "picture": (9, 8, 3),
    "mixture": ((2, 9, 8), (7, 7, 1), (4,)),
    "two images": ((2, 9, 8), (7, 7, 1), (0,)),
}
SIZES = {"image_network": "sizes", "convolutions": ["3x4/2", "2x2/1"], "hidden_sizes": [5]}
KINDS: dict[str, ActionSpec] = {"gaussian": ContinuousActions(2), "categorical": DiscreteActions((4,))}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def policy_for(shape, actions=PONG, **settings):
    return mlp_policy(shape, actions, generator=generator(), **settings)


def size(module):
    return sum(p.numel() for p in module.parameters())


def rows(shape, number=6, seed=2):
    """Random pictures, and a vector beside them that is not finite by chance alone."""
    layout, g = Layout.of(shape), np.random.default_rng(seed)
    images = [g.integers(0, 256, (number, *image.shape), dtype=np.uint8) for image in layout.images]
    return torch.from_numpy(layout.pack(images, g.standard_normal((number, layout.vector))))


def test_the_papers_network_has_its_33500_parameters_on_the_screen_shrunken_by_four():
    # TRPO 2015, section 8.2 and Table 3: conv 4x4x4x16 + 16, conv 16x4x4x16 + 16, dense, output; Pong has 6 actions
    by_hand = (4 * 4 * 4 * 16 + 16) + (16 * 4 * 4 * 16 + 16) + (11 * 8 * 16 * 20 + 20) + (20 * 6 + 6)
    found = size(policy_for((4, 52, 40)))
    assert found == by_hand == 33_458
    assert round(found, -2) == 33_500


def test_on_84_by_84_pixels_the_same_layers_have_more_than_three_times_as_many():
    by_hand = (4 * 4 * 4 * 16 + 16) + (16 * 4 * 4 * 16 + 16) + (19 * 19 * 16 * 20 + 20) + (20 * 6 + 6)
    assert size(policy_for((4, 84, 84))) == by_hand == 120_818


def test_the_network_of_mnih_2015():
    by_hand = (8 * 8 * 4 * 32 + 32) + (4 * 4 * 32 * 64 + 64) + (3 * 3 * 64 * 64 + 64) + (7 * 7 * 64 * 512 + 512)
    network = policy_for((4, 84, 84), image_network="mnih_2015", activation="relu").network
    assert size(network) == by_hand + 512 * 6 + 6
    assert isinstance(network, ImageNetwork) and isinstance(network.convolutions[0][1], torch.nn.ReLU)


def test_a_network_by_sizes_is_the_one_of_that_name():
    named = policy_for((4, 52, 40))
    sized = policy_for((4, 52, 40), image_network="sizes", convolutions=["16x4/2", "16x4/2"], hidden_sizes=[20])
    x = rows((4, 52, 40))
    assert torch.equal(named(x).logits, sized(x).logits)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_network_computes_what_its_layers_say(activation):
    x = rows((2, 9, 8))
    policy = policy_for((2, 9, 8), activation=activation, **SIZES)
    first, _, second, _ = policy.network.convolutions[0]
    hidden, _, last = policy.network.dense
    act = torch.tanh if activation == "tanh" else torch.relu
    y = act(torch.nn.functional.conv2d(x.float() / 255.0, first.weight, first.bias, stride=2))
    y = act(torch.nn.functional.conv2d(y, second.weight, second.bias)).flatten(1)
    torch.testing.assert_close(policy(x).logits, last(act(hidden(y))))


def test_channels_may_come_first_or_last():
    first, last = Image((4, 84, 83)), Image((84, 83, 3))
    assert (first.channels, first.height_and_width, first.channels_last) == (4, (84, 83), False)
    assert (last.channels, last.height_and_width, last.channels_last) == (3, (84, 83), True)
    x = rows((3, 9, 8))
    torch.testing.assert_close(
        policy_for((3, 9, 8), **SIZES)(x).logits, policy_for((9, 8, 3), **SIZES)(x.movedim(1, -1)).logits
    )
    assert str(first) == "image of 84 x 83 with 4 channels (first)"


def test_a_mixture_is_seen_part_by_part():
    shape = ((2, 9, 8), (7, 7, 1), (4,))
    x, network = rows(shape), policy_for(shape, **SIZES).network
    layout = Layout.of(shape)
    assert x.shape == (6, 2 * 9 * 8 + 49 + 16) and layout.shape == shape
    stack, picture = layout.pictures(x)
    parts = [
        layers(image / 255.0).flatten(1) for layers, image in zip(network.convolutions, (stack, picture), strict=True)
    ]
    expected = network.dense(torch.cat([*parts, layout.vectors(x)], dim=1))
    torch.testing.assert_close(network(x), expected)
    assert picture.shape == (6, 1, 7, 7) and layout.vectors(x).shape == (6, 4)


@pytest.fixture(params=[1, 2], ids=["arrays", "tensors"])
def _threads(request):
    with torch_threads(request.param):
        yield


def build(shape, kind, activation):
    """A policy, and a theta in float64 that is not the policy's own."""
    policy = policy_for(shape, KINDS[kind], activation=activation, initial_log_std=-0.5, **SIZES)
    theta = parameter_vector(policy).double()
    return policy, theta + 0.3 * torch.randn(theta.shape, dtype=torch.float64, generator=generator(1))


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_push_and_pull_are_the_dense_jacobian(kind, name, activation):
    policy, theta = build(SHAPES[name], kind, activation)
    x = rows(SHAPES[name])
    found = linearized(policy, theta, x)
    assert found is not None
    dense = torch.autograd.functional.jacobian(lambda th: policy.at(th, x).tensors, theta)
    v = torch.randn(theta.shape, dtype=torch.float64, generator=generator(3))
    for jacobian, pushed in zip(dense, found.push(v), strict=True):
        torch.testing.assert_close(pushed, jacobian @ v)
    u = [torch.randn(t.shape, dtype=torch.float64, generator=generator(4)) for t in found.tensors]
    pulled = sum(torch.einsum("bmp,bm->p", jacobian, cotangent) for jacobian, cotangent in zip(dense, u, strict=True))
    torch.testing.assert_close(found.pull(tuple(u)), pulled)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_numbers_that_distributions_give_are_autograds(kind, name):
    policy, theta = build(SHAPES[name], kind, "tanh")
    x = rows(SHAPES[name])

    def value(distribution):
        actions = distribution.detach().mode()
        return (distribution.log_prob(actions) * torch.arange(len(actions))).sum() - distribution.entropy().sum()

    leaf = theta.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(policy.at(leaf, x)), leaf)
    torch.testing.assert_close(linearized(policy, theta, x).gradient(value), expected)


@pytest.mark.parametrize("name", SHAPES)
def test_the_order_of_pixels_in_memory_does_not_count(name):
    policy, x = policy_for(SHAPES[name], **SIZES), rows(SHAPES[name])
    with torch.no_grad():
        alone = policy(x).logits
        torch.testing.assert_close(torch.cat([policy(x[i : i + 1]).logits for i in range(len(x))]), alone)
    torch.testing.assert_close(policy(x).logits.detach(), alone)
    for picture in Layout.of(SHAPES[name]).pictures(x):
        first, last = (scaled(picture, torch.float64, channels_last=c) for c in (False, True))
        assert torch.equal(first, last) and torch.equal(first, picture.double() * (1.0 / 255.0))
        assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("chunk", [2, 6])
@pytest.mark.parametrize("keep", [0, 3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_fisher_products_through_convolutions_are_those_of_the_dense_matrix(kind, keep, chunk):
    policy, theta = build((2, 9, 8), kind, "tanh")
    x = rows((2, 9, 8))

    def mean_kl(th):
        return policy.at(theta, x).detach().kl(policy.at(th, x)).mean()

    dense = torch.autograd.functional.hessian(mean_kl, theta)
    v = torch.randn(theta.shape, dtype=torch.float64, generator=generator(3))
    product = fisher_vector_product(fisher(policy, x, None), theta, len(x), chunk=chunk, keep=keep)
    torch.testing.assert_close(product(v), dense @ v)
    each = curvature_of_rows(fisher(policy, x, None), theta, v, len(x), chunk=chunk)
    torch.testing.assert_close(each.mean(), v @ dense @ v)


def test_a_network_without_convolutions_sees_the_pixels():
    policy = policy_for((2, 9, 8), image_network="sizes", convolutions=[], hidden_sizes=[])
    x, theta = rows((2, 9, 8)), parameter_vector(policy).double()
    found, dense = linearized(policy, theta, x), policy.network.dense[0]
    torch.testing.assert_close(policy(x).logits, dense(x.flatten(1) / 255.0))
    jacobian = torch.autograd.functional.jacobian(lambda th: policy.at(th, x).logits, theta)
    torch.testing.assert_close(found.push(theta)[0], jacobian @ theta)


def test_theta_is_read_at_each_call():
    network = policy_for((2, 9, 8), **SIZES).network
    theta = parameter_vector(network)
    chain, x = ImageChain(network, theta), rows((2, 9, 8))
    before = chain.forward(x)[-1]
    theta *= 2.0
    torch.testing.assert_close(before, network(x))
    assert not torch.allclose(chain.forward(x)[-1], before)


@pytest.mark.parametrize("name", ["adam", "lbfgs", "trust_region"])
@pytest.mark.parametrize("shape", [(2, 9, 8), ((2, 9, 8), (3,))], ids=["images", "mixture"])
def test_a_value_function_learns_from_pixels(name, shape):
    settings = value_settings_of(name, **SIZES)
    value, x = build_value_function(shape, settings, generator()), rows(shape, 64)
    targets = Layout.of(shape).pictures(x)[0][:, 0].float().mean((1, 2)) / 255.0 * 8.0 - 4.0
    first = value.fit(x, targets, generator())
    for _ in range(15):
        last = value.fit(x, targets, generator())
    assert last < 0.5 * first


def value_settings_of(name, **settings):
    from trpo_lightning.settings import LBFGSValueSettings, TrustRegionValueSettings

    kinds = {"adam": AdamValueSettings, "lbfgs": LBFGSValueSettings, "trust_region": TrustRegionValueSettings}
    return kinds[name](name=name, **settings)


def test_the_value_functions_gradient_is_autograds():
    from trpo_lightning.values.gradients import _Autograd, loss_gradient

    layers = [Convolution(3, 4, 2), Convolution(2, 2, 1)]
    network = build_network(
        (2, 9, 8), 1, hidden_sizes=[5], activation="tanh", output_gain=1.0, generator=generator(), convolutions=layers
    )
    theta, x = parameter_vector(network).double(), rows((2, 9, 8))
    found, expected = torch.zeros_like(theta), torch.zeros_like(theta)
    loss_gradient(network, theta, found).write(x, lambda v: v - 3.0)
    _Autograd(network, theta, expected).write(x, lambda v: v - 3.0)
    torch.testing.assert_close(found, expected)


def test_work_is_counted_in_multiplications_and_rows_fit_the_cache():
    network = policy_for((4, 52, 40)).network
    assert products_per_row(network) == 25 * 19 * 16 * 64 + 11 * 8 * 16 * 256 + size(network.dense)
    assert 20 < rows_at_once(network, 65536) < 200
    assert rows_at_once(policy_for((3,)).network, 65536) == 65536


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ((4, 7, 7), {}, r"policy\.image_network: layer 2 \(16x4/2\) does not fit: the image of 7 x 7 .* is 2 x 2"),
        ((4, 9, 9), {"image_network": "sizes", "convolutions": ["16x4"]}, "policy.convolutions: 16x4 is not FILTERS"),
        ((4, 9, 9), {"image_network": "sizes", "convolutions": ["0x4/2"]}, "0x4/2 is not FILTERSxKERNEL/STRIDE"),
        ((4, 52, 40), {"hidden_sizes": [7]}, r"hidden_sizes=\[7\] does not go with policy\.image_network=trpo_2015"),
        ((3,), {"image_network": "mnih_2015"}, "policy.image_network=mnih_2015: the observations have no images"),
    ],
)
def test_networks_that_do_not_fit_are_told_in_one_line(shape, settings, said):
    with pytest.raises(UserError, match=said) as error:
        policy_for(shape, **settings)
    assert "\n" not in str(error.value)


def test_linear_value_functions_refuse_images():
    with pytest.raises(UserError, match=r"value\.name=linear does not see images"):
        build_value_function((4, 52, 40), LinearValueSettings(name="linear"), generator())


def test_vectors_have_the_perceptron_they_had():
    assert MLPPolicySettings().hidden_sizes == [64, 64]
    assert isinstance(policy_for((3,)).network, torch.nn.Sequential)
