import numpy as np
import pytest
import torch
from torch import nn

from trpo_lightning.rollouts.normalizers import Normalizer, RunningMoments
from trpo_lightning.settings import NormalizeSettings


def make(shape=(3,), **settings):
    return Normalizer(shape, NormalizeSettings(**settings))


def merged(batches, shape=(3,)):
    moments = RunningMoments(shape)
    for batch in batches:
        moments.merge(batch)
    return moments


@pytest.mark.parametrize("sizes", [[100], [1, 99], [50, 1, 1, 48], [1] * 20, [0, 7, 0]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_merging_batches_equals_numpy_on_everything_at_once(sizes, dtype):
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(size, 3)) * [1, 10, 0.1] + [0, 5, -3]).astype(dtype) for size in sizes]
    everything = np.concatenate(batches).astype(np.float64)
    moments = merged(batches)
    assert moments.mean.dtype == torch.float64
    assert int(moments.count) == len(everything)
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-12, atol=1e-13)
    if len(everything) > 1:
        np.testing.assert_allclose(moments.std(), everything.std(0), rtol=1e-11)


def test_huge_offsets_do_not_cancel():
    rng = np.random.default_rng(1)
    batches = [1e6 + 1e-2 * rng.normal(size=(64, 3)) for _ in range(50)]
    everything = np.concatenate(batches)
    np.testing.assert_allclose(merged(batches).std(), everything.std(0), rtol=1e-7)


def test_constant_features_keep_a_scale_of_one():
    rows = np.column_stack([np.full(10, 7.0), np.full(10, 1e6), np.arange(10.0)])
    normalizer = make()
    normalizer.merge(rows, np.full(10, 3.0))
    assert normalizer.observations.std()[:2].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(normalizer.normalize(rows)[:, :2], 0.0)
    np.testing.assert_allclose(normalizer.normalize(rows + 0.5)[:, :2], 0.5)
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [3.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_left_out(bad):
    rows = np.random.default_rng(2).normal(size=(6, 3))
    spoilt = np.insert(rows, [0, 3, 6], [[bad, 0, 0], [0, bad, 0], [0, 0, bad]], axis=0)
    moments = merged([spoilt])
    assert int(moments.count) == 6
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-13)
    before = moments.mean.clone()
    moments.merge(np.full((2, 3), bad))
    assert torch.equal(moments.mean, before) and int(moments.count) == 6


def test_nothing_seen_is_the_identity():
    normalizer = make()
    rows = np.array([[1.0, -2.0, 3.0]])
    np.testing.assert_array_equal(normalizer.normalize(rows), rows.astype(np.float32))
    assert normalizer.scale_rewards(np.array([2.0])).tolist() == [2.0]


def test_normalize_and_scale_by_hand():
    normalizer = make((1,), observation_clip=2.0, reward_clip=1.5)
    normalizer.merge(np.array([[1.0], [5.0]]), np.array([-4.0, 4.0]))  # mean 3, std 2; std of returns 4
    seen = normalizer.normalize(np.array([[3.0], [5.0], [4.0], [100.0], [-100.0]]))
    assert seen.dtype == np.float32
    assert seen[:, 0].tolist() == [0.0, 1.0, 0.5, 2.0, -2.0]
    assert normalizer.scale_rewards(np.array([0.0, 4.0, -2.0, 100.0])).tolist() == [0.0, 1.0, -0.5, 1.5]


def test_rewards_are_divided_and_not_centred():
    normalizer = make((1,))
    normalizer.merge(np.zeros((3, 1)), np.array([10.0, 12.0, 14.0]))
    scale = np.std([10.0, 12.0, 14.0])
    np.testing.assert_allclose(normalizer.scale_rewards(np.array([0.0, 1.0])), [0.0, 1.0 / scale])


def test_the_first_rollout_is_scaled_by_its_own_returns():
    normalizer, returns = make((1,)), np.array([0.0, 6.0])  # std 3
    normalizer.first_scale(returns)
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [1.0]
    normalizer.merge(np.array([[2.0], [4.0]]), returns)
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [1.0]
    normalizer.first_scale(np.array([0.0, 60.0]))  # no longer the first
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [1.0]


@pytest.mark.parametrize("returns", [[], [5.0], [2.0, 2.0], [np.nan, np.inf]])
def test_first_returns_without_a_scale_leave_rewards_alone(returns):
    normalizer = make((1,))
    normalizer.first_scale(np.array(returns))
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [3.0]


@pytest.mark.parametrize("setting", [{"rewards": False}, {"first_rewards": "raw"}])
def test_the_first_rewards_stay_raw_where_that_is_wanted(setting):
    normalizer = make((1,), **setting)
    normalizer.first_scale(np.array([0.0, 6.0]))
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [3.0]


def test_frozen_until_merge():
    normalizer = make((1,))
    rows = np.array([[2.0], [4.0]])
    normalizer.observations.merge(rows)
    normalizer.returns.merge(np.array([0.0, 6.0]))
    assert normalizer.normalize(rows)[:, 0].tolist() == [2.0, 4.0]
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [3.0]
    normalizer.freeze()
    assert normalizer.normalize(rows)[:, 0].tolist() == [-1.0, 1.0]
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == [1.0]


@pytest.mark.parametrize("which", ["observations", "rewards"])
def test_what_is_switched_off_is_neither_changed_nor_measured(which):
    normalizer = make((1,), **{which: False})
    rows, returns = np.array([[2.0], [4.0]]), np.array([0.0, 6.0])
    normalizer.merge(rows, returns)
    observations_off = which == "observations"
    assert int(normalizer.observations.count) == (0 if observations_off else 2)
    assert int(normalizer.returns.count) == (2 if observations_off else 0)
    assert normalizer.normalize(rows)[:, 0].tolist() == ([2.0, 4.0] if observations_off else [-1.0, 1.0])
    assert normalizer.scale_rewards(np.array([3.0])).tolist() == ([1.0] if observations_off else [3.0])


def test_normalize_leaves_its_argument_alone():
    normalizer = make((1,))
    normalizer.merge(np.array([[2.0], [4.0]]), np.array([0.0, 6.0]))
    rows = np.array([[2.0], [100.0]])
    normalizer.normalize(rows)
    assert rows[:, 0].tolist() == [2.0, 100.0]


class Parent(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.normalizer = make()


def seen_parent(seed):
    rng = np.random.default_rng(seed)
    parent = Parent()
    parent.normalizer.merge(rng.normal(5.0, 3.0, size=(40, 3)), rng.normal(1.0, 7.0, size=40))
    return parent


@pytest.mark.parametrize("through_parent", [True, False])
def test_a_state_dict_brings_back_what_normalize_uses(through_parent):
    source, target = seen_parent(1), seen_parent(2)
    if through_parent:
        target.load_state_dict(source.state_dict())
    else:
        target.normalizer.load_state_dict(source.normalizer.state_dict())
    rows = np.random.default_rng(3).normal(size=(5, 3))
    np.testing.assert_array_equal(source.normalizer.normalize(rows), target.normalizer.normalize(rows))
    np.testing.assert_array_equal(source.normalizer.scale_rewards(rows), target.normalizer.scale_rewards(rows))
    more = np.random.default_rng(4).normal(size=(9, 3))
    for parent in (source, target):
        parent.normalizer.merge(more, more[:, 0])
    np.testing.assert_array_equal(source.normalizer.normalize(rows), target.normalizer.normalize(rows))


def test_the_loaded_state_is_a_copy():
    source, target = seen_parent(1), Parent()
    target.load_state_dict(source.state_dict())
    before = source.normalizer.observations.mean.clone()
    target.normalizer.merge(np.full((5, 3), 1e3), np.zeros(5))
    assert torch.equal(source.normalizer.observations.mean, before)


@pytest.mark.parametrize("move", [lambda m: m.to(torch.float16), lambda m: m.half(), lambda m: m.double()])
def test_changing_a_parent_s_precision_leaves_statistics_alone(move):
    parent = seen_parent(1)
    before = {name: tensor.clone() for name, tensor in parent.normalizer.state_dict().items()}
    rows = np.random.default_rng(3).normal(size=(5, 3))
    seen = parent.normalizer.normalize(rows)
    move(parent)
    assert parent.linear.weight.dtype != torch.float32  # it did move the rest
    for name, tensor in parent.normalizer.state_dict().items():
        assert tensor.dtype == torch.float64 and torch.equal(tensor, before[name])
    np.testing.assert_array_equal(parent.normalizer.normalize(rows), seen)
