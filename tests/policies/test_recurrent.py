"""Recurrent layers against their equations, and sequences of any lengths against one step after the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from recurrent_problem import LENGTHS, SMALL_IMAGES, recurrent_policy, recurrent_problem, sequences, slow

from trpo_lightning import UserError
from trpo_lightning.numerics.curvature import fisher_vector_product
from trpo_lightning.policies import images
from trpo_lightning.policies.images import rows_at_once
from trpo_lightning.policies.inference import remembering_forward
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.observations import FrameRows, Layout
from trpo_lightning.policies.policy import build_policy
from trpo_lightning.policies.sequences import row_parts
from trpo_lightning.settings import RecurrentPolicySettings

IMAGES = {"stack": (2, 9, 8), "picture": (9, 8, 3), "mixture": ((2, 9, 8), (7, 7, 1), (4,))}
every_cell = pytest.mark.parametrize("name", ["gru", "lstm"])
every_depth = pytest.mark.parametrize("sizes", [(3,), (4, 3), (5, 4, 3)], ids=str)


@every_cell
@every_depth
@pytest.mark.parametrize("lengths", [LENGTHS, (1,), (5, 5, 5), (1, 2, 3, 4), (4, 3, 2, 1)], ids=str)
def test_sequences_of_any_lengths_follow_the_equations_step_by_step(name, sizes, lengths):
    policy = recurrent_policy(name, sizes=sizes).double()
    observed = sequences(policy, lengths)
    found, expected = policy.network.run(observed), slow(policy).network.run(observed)
    torch.testing.assert_close(found, expected)


@every_cell
@pytest.mark.parametrize("shape", IMAGES.values(), ids=IMAGES)
def test_sequences_of_images_follow_the_equations_and_share_their_frames(name, shape):
    policy = recurrent_policy(name, shape=shape, **SMALL_IMAGES)
    observed = sequences(policy, shape=shape, dtype=torch.float32)
    found = policy.network.run(observed)
    torch.testing.assert_close(found, slow(policy).network.run(observed))
    rows = observed.observations
    shared = FrameRows(rows.reshape(len(rows), -1), torch.arange(len(rows))[:, None], Layout.of(shape).row_shape)
    framed = replace(observed, observations=shared)
    with torch.no_grad():
        torch.testing.assert_close(policy.network.run(framed), found)
        part = framed[4:11]
        assert isinstance(part.observations, FrameRows) and part.observations.frames is shared.frames
        torch.testing.assert_close(policy.network(part), found[0][4:11])
    assert framed.to(torch.float64).states.dtype == torch.float64
    assert framed.to(torch.float64).observations is shared and observed.to(torch.float64).observations is rows


def test_a_recurrent_layer_sees_bare_pixels():
    shape = (2, 9, 8)
    policy = recurrent_policy("gru", sizes=(3,), shape=shape, image_network="sizes", convolutions=[])
    assert policy.network.cell.inputs == 2 * 9 * 8
    assert policy(sequences(policy, shape=shape, dtype=torch.float32)).logits.isfinite().all()


@pytest.mark.parametrize(("name", "units"), [("trpo_2015", 20), ("mnih_2015", 512)])
def test_the_dense_layer_of_a_network_by_name_is_the_recurrent_one(name, units):
    network = recurrent_policy("gru", sizes=(64, 64), shape=(4, 84, 84), image_network=name).network
    assert network.cell.size == units and len(network.encoder.dense) == 0
    assert network.cell.inputs == {"trpo_2015": 19 * 19 * 16, "mnih_2015": 7 * 7 * 64}[name]


@every_cell
def test_what_was_seen_lasts_at_first(name):
    """The gates that keep the state, an LSTM's forget gates and a GRU's update gates, are the second ones."""
    biases = recurrent_policy(name).network.cell.bias_ih.view(-1, 3)
    assert (biases[1] == 1.0).all() and biases.sum() == 3.0


@every_cell
def test_a_step_at_a_time_gives_what_the_whole_sequence_gives(name):
    policy = recurrent_policy(name)
    observed = sequences(policy, (6, 6, 6), dtype=torch.float32)
    states, forward = observed.states.numpy().copy(), remembering_forward(policy.network)
    steps = [forward(x, states) for x in observed.observations.view(3, 6, 3).transpose(0, 1).numpy()]
    with torch.no_grad():
        outputs, last = policy.network.run(observed)
    np.testing.assert_allclose(np.stack(steps, axis=1).reshape(18, -1), outputs.numpy(), atol=1e-6)
    np.testing.assert_allclose(states, last.numpy(), atol=1e-6)


@every_cell
def test_counted_rows_are_those_of_the_whole_sequences(name):
    policy = recurrent_policy(name).double()
    everything = policy.network(sequences(policy))
    chosen = [0, 4, 7, 10, 14, 15, 17, 22, 25]  # at least one of each sequence
    some = sequences(policy, counted=chosen)
    assert len(some) == len(chosen)
    torch.testing.assert_close(policy.network(some), everything[chosen])
    for part in some.parts(7):
        torch.testing.assert_close(policy.network(some[part]), everything[chosen][part])


@pytest.mark.parametrize("chunk", [1, 6, 7, 11, 100])
@pytest.mark.parametrize("counted", [None, [3, 4, 6, 11, 16, 17, 20, 24]], ids=["all", "some"])
def test_parts_are_whole_sequences_and_together_the_batch(chunk, counted):
    policy = recurrent_policy("gru").double()
    observed = sequences(policy, counted=counted)
    parts = row_parts(observed, chunk)
    assert [i for part in parts for i in range(len(observed))[part]] == list(range(len(observed)))
    pieces = [observed[part] for part in parts]
    assert all(len(piece.observations) <= max(chunk, 6) for piece in pieces)
    if chunk < 6:
        assert all(len(piece.lengths) == 1 for piece in pieces)
    torch.testing.assert_close(torch.cat([policy.network(p) for p in pieces]), policy.network(observed))


def test_a_permutation_of_sequences_permutes_rows_and_the_whole_batch_is_itself():
    policy = recurrent_policy("lstm").double()
    observed = sequences(policy)
    assert observed[:] is observed and observed[torch.arange(len(observed))] is observed
    chosen = torch.tensor([5, 0, 3])
    rows = observed.rows_of(chosen)
    torch.testing.assert_close(policy.network(observed[rows]), policy.network(observed)[rows])
    assert observed[rows].lengths.tolist() == [6, 4, 4]


@pytest.mark.parametrize(
    "rows", [slice(0, 3), slice(1, 5), torch.tensor([4, 3]), torch.tensor([0, 4, 1, 2, 3])], ids=str
)
def test_single_rows_of_sequences_are_refused_in_one_line(rows):
    with pytest.raises(UserError, match="whole sequences, not single rows"):
        sequences(recurrent_policy("gru"))[rows]


def test_rows_instead_of_sequences_are_refused_in_one_line():
    with pytest.raises(UserError, match="needs sequences, not single rows"):
        recurrent_policy("gru")(torch.zeros(4, 3))


def test_a_network_with_a_state_needs_settings_that_say_so():
    class Forgetful(RecurrentPolicySettings):
        has_memory = False

    with pytest.raises(UserError, match=r"policy.name=gru: .* has_memory"):
        settings = Forgetful(name="gru")
        build_policy((3,), recurrent_policy_actions(), settings, torch.Generator())


def recurrent_policy_actions():
    from dense_trust_region import KINDS

    return KINDS["gaussian"]


@every_cell
@pytest.mark.parametrize("kind", ["gaussian", "categorical", "multi_discrete", "multi_binary"])
@pytest.mark.parametrize("chunk", [100, 7])
def test_fisher_products_respect_time(name, kind, chunk):
    check_fisher_products(*recurrent_problem(name, kind, sizes=(3, 3)), chunk)


@every_cell
@pytest.mark.parametrize("shape", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("few", [False, True], ids=["at once", "few at once"])
def test_fisher_products_of_images_respect_time(name, shape, few, monkeypatch):
    if few:
        monkeypatch.setattr(images, "CACHED", 1)
    problem = recurrent_problem(name, "categorical", sizes=(3, 3), lengths=(4, 1, 3), shape=shape)
    assert rows_at_once(problem[0].network.encoder, 100) == (1 if few else 100)
    check_fisher_products(*problem, 100)


def check_fisher_products(policy, batch, chunk):
    """J is that of the equations written out: the parameters act through all earlier steps of the sequence."""
    observed, theta = batch.observations, parameter_vector(policy)
    written_out = slow(policy)

    def tensors(th):
        return written_out.at(th, observed).tensors

    jacobians = torch.autograd.functional.jacobian(tensors, theta)
    at_theta = policy(observed)

    def dense(v):
        pushed = at_theta.fisher_product(tuple(j @ v for j in jacobians))
        return sum(torch.einsum("bmp,bm->p", j, u) for j, u in zip(jacobians, pushed, strict=True)) / len(observed)

    product = fisher_vector_product(
        lambda th, part: policy.at(th, observed[part]), theta, len(observed), parts=row_parts(observed, chunk)
    )
    for seed in range(3):
        v = torch.randn(theta.shape, dtype=theta.dtype, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(product(v), dense(v).detach(), rtol=1e-9, atol=1e-12)


def test_without_its_past_a_step_has_another_fisher_matrix():
    """The oracle above can tell: with each step a sequence of its own, products differ."""
    policy, batch = recurrent_problem("gru", "categorical")
    observed, theta = batch.observations, parameter_vector(policy)
    v = torch.ones_like(theta)
    whole = fisher_vector_product(lambda th, part: policy.at(th, observed[part]), theta, len(observed))(v)
    with torch.no_grad():
        steps = sequences(policy, (1,) * len(observed))
    cut = fisher_vector_product(lambda th, part: policy.at(th, steps[part]), theta, len(steps))(v)
    assert float((whole - cut).norm() / whole.norm()) > 0.1
