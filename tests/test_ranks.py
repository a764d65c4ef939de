"""Two real processes follow the same parameters as one: everything that is a sum over rows is one over ranks."""

import math
import os
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

sys.path.insert(0, os.path.dirname(__file__))

from rank_pair import RankPair

from trpo_lightning.errors import StuckError, UserError
from trpo_lightning.numerics.returns import explained_variance, standardize
from trpo_lightning.ranks import ONE, RankError, Share
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.settings import NormalizeSettings, RunSettings, updated
from trpo_lightning.training.batches import ValueData
from trpo_lightning.training.failed_update import whole_batch
from trpo_lightning.training.module import TRPO

BASE = {
    "env.id": "smooth_tasks:falling",
    "env.backend": "gymnasium",
    "env.num_envs": 4,
    "rollout.steps_per_iteration": 240,
    "policy.hidden_sizes": [8],
    "value.hidden_sizes": [8],
    "value.epochs": 2,
    "value.minibatch_size": 64,
    "rule.fisher_fraction": 0.5,
    "checkpoint.every": 3,
    "evaluation.every": 0,
    "total_iterations": 5,
    "threads": 1,
}
METHODS = {
    "adam": {},
    "adam, steps shared": {"value.minibatch_size": 2048, "rollout.steps_per_iteration": 4800},
    "adam, clipped": {"value.clip": 0.05, "rule.entropy_bonus": 0.01},
    "linear": {"value.name": "linear", "normalize.rewards": False},
    "trust region": {  # so few iterations that no rounding decides whether a residual is below 1e-10
        "value.name": "trust_region",
        "value.cg_iterations": 4,
        "rule.kl_over_states": "max",
        "rule.fisher_fraction": 1.0,
    },
    "lbfgs": {"value.name": "lbfgs", "value.iterations": 5},
    "vanilla": {"rule.name": "vanilla_policy_gradient", "value.name": "none"},
    "empirical Fisher matrix": {"rule.curvature": "empirical_fisher"},
    "spread episodes": {"rollout.spread_episodes": True},
    "one row": {"rollout.steps_per_iteration": 4, "value.name": "none"},
}


@pytest.fixture(scope="module")
def pair():
    with RankPair() as pair:
        yield pair


class WideTRPO(TRPO):
    """Policy and value function in float64; observations, advantages and targets are float32, as they are stored."""

    def __init__(self, settings):
        super().__init__(settings=settings)
        self.policy.double()
        self.value_function.double()
        narrow = self.value_function.predict
        self.value_function.predict = lambda x, *size: narrow(x.double(), *size)

    def update(self, batch):
        wide = Batch(batch.observations.double(), batch.actions, batch.advantages.double(), batch.advantage_std)
        wide.share = batch.share
        self.thetas.append(torch.cat([p.detach().reshape(-1) for p in self.policy.parameters()]))
        return super().update(wide)

    def fit_values(self, data):
        return super().fit_values(ValueData(data.observations.double(), data.targets.double(), data.values, data.share))


class Rows(pl.loggers.Logger):
    name, version, accepts_text = "rows", 0, True

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append({k: v for k, v in metrics.items() if not k.startswith(("time/", "ranks/"))})


def trained(ranks, values, kind=WideTRPO):
    module = kind(settings=updated(RunSettings(), {**BASE, **values}, lenient=BASE.keys() - values.keys()))
    module.thetas = []
    if ranks.size > 1:
        module.join(ranks)
    rows = Rows()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=-1, accelerator="cpu", logger=rows, barebones=False, **quiet)
    try:
        trainer.fit(module)
    except StuckError as stuck:
        return module, str(stuck)
    return module, rows.rows


def learned(ranks, values):
    module, rows = trained(ranks, values)
    return {name: x.numpy() for name, x in module.state_dict().items()}, torch.stack(module.thetas).numpy(), rows


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_follow_the_parameters_of_one(pair, name):
    one, path, rows = learned(ONE, METHODS[name])
    first, second = pair(learned, METHODS[name])
    assert len(path) == 5 and np.abs(path[-1] - path[0]).max() > 1e-4
    np.testing.assert_allclose(first[1], path, rtol=0, atol=1e-9)
    for key, numbers in one.items():
        np.testing.assert_array_equal(first[0][key], second[0][key])
        np.testing.assert_allclose(first[0][key], numbers, rtol=1e-9, atol=1e-9, err_msg=key)
    assert [row.keys() for row in rows] == [row.keys() for row in first[2]]
    for a, b in zip(rows, first[2], strict=True):
        for key in a:
            number = isinstance(a[key], int | float)
            assert b[key] == (pytest.approx(a[key], rel=1e-6, abs=1e-9, nan_ok=True) if number else a[key]), key


def test_whole_episodes_are_other_ones_from_the_second_iteration_on(pair):
    """An environment that waits for others steps on, and with ranks it waits only for those of its own."""
    _, path, rows = learned(ONE, {"rollout.whole_episodes": True})
    first, second = pair(learned, {"rollout.whole_episodes": True})
    np.testing.assert_allclose(first[1][:2], path[:2], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(first[1], second[1])
    assert first[2][0]["env_steps"] == rows[0]["env_steps"] > 240


def slots(ranks, valid):
    columns = ranks.environments(valid.shape[1])
    own = valid[: 3 + 2 * ranks.index, columns.start : columns.stop]
    share = Share.of_slots(own, ranks)
    order = torch.randperm(share.count, generator=torch.Generator().manual_seed(1))
    rows = share.rows(order)
    parts = [(rows[part].tolist(), n) for part, n in share.minibatches(order, 3)]
    return share.count, share.places.tolist(), parts


def test_rows_have_the_order_of_one_rank_with_all_environments(pair):
    valid = np.random.default_rng(0).random((5, 4)) < 0.6
    valid[3:, :2] = False  # the first rank's iteration ends earlier
    (count, first, parts), (_, second, others) = pair(slots, valid)
    assert count == valid.sum() and sorted(first + second) == list(range(count))
    numbers = np.full(valid.shape, -1)
    numbers[valid] = np.arange(count)
    assert first == numbers[:, :2][valid[:, :2]].tolist() and second == numbers[:, 2:][valid[:, 2:]].tolist()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    expected = [part.tolist() for part in order.split(3)]
    for whole, (mine, n), (theirs, _) in zip(expected, parts, others, strict=True):
        assert n == len(whole)
        assert [first[i] for i in mine] == [row for row in whole if row in first]
        assert [second[i] for i in theirs] == [row for row in whole if row in second]


def statistics(ranks, parts):
    x, y = parts[ranks.index]
    share = Share(sum(len(part) for part, _ in parts), ranks)
    standardized, std = standardize(torch.from_numpy(x), share)
    normalizer = Normalizer((), NormalizeSettings())
    normalizer.ranks = ranks
    normalizer.merge(x, y)
    normalizer.merge(10.0 + x, y)
    moments = [
        float(m) for m in (normalizer.observations.mean, normalizer.observations.std(), normalizer.returns.count)
    ]
    return standardized.tolist(), std, explained_variance(torch.from_numpy(y), torch.from_numpy(x), share), moments


@pytest.mark.parametrize("sizes", [(5, 8), (0, 6), (3, 0), (0, 0)])
def test_moments_are_those_of_all_rows(pair, sizes):
    rng = np.random.default_rng(3)
    parts = [(rng.normal(7.0, 3.0, n), rng.normal(size=n)) for n in sizes]
    found = pair(statistics, parts)
    together = [tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))]
    values, std, explained, moments = statistics(ONE, together)
    np.testing.assert_allclose(found[0][0] + found[1][0], values, rtol=1e-12, atol=1e-12)
    assert found[0][1:] == found[1][1:] or sum(sizes) == 0
    assert found[0][1] == pytest.approx(std, rel=1e-12)
    assert found[0][2] == pytest.approx(explained, rel=1e-12, nan_ok=True)
    assert found[0][3] == pytest.approx(moments, rel=1e-12)


def test_a_constant_becomes_zeros_over_ranks(pair):
    parts = [(np.full(n, 0.1), np.full(n, 0.1)) for n in (3, 7)]
    (first, *_), (second, *_) = pair(statistics, parts)
    assert first + second == [0.0] * 10


def failing(ranks, who, kind):
    try:
        with ranks.together(UserError):
            if ranks.index == who:
                raise kind("env.id=x broke")
    except UserError as error:
        return type(error).__name__, str(error)
    return "went on"


@pytest.mark.parametrize("who", [0, 1, 2])
def test_what_one_rank_raises_all_raise(pair, who):
    expected = ("UserError", "env.id=x broke") if who < 2 else "went on"
    assert pair(failing, who, UserError) == [expected] * 2


def drifting(ranks):
    ranks.check_same(lambda: {"same": torch.zeros(3), "count": torch.tensor(2)})
    try:
        ranks.check_same(lambda: {"same": torch.zeros(3), "theta": torch.tensor([1.0, 2.0 + 3e-7 * ranks.index])})
    except RankError as error:
        return str(error)


def test_ranks_that_drift_apart_by_a_bit_are_noticed(pair):
    for message in pair(drifting):
        assert "theta" in message and "same" not in message.partition("in ")[2].partition(":")[0]


def differing(ranks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platform.python_version", lambda: f"3.1{ranks.index}")
        with pytest.raises(UserError) as refused:
            ranks.check_versions()
    ranks.check_versions()
    return str(refused.value)


def test_ranks_of_other_versions_are_refused_in_a_line(pair):
    assert pair(differing) == ["rank 1 has Python 3.11, rank 0 has 3.10: install the same"] * 2


def exchanged(ranks):
    numbers = ranks.largest(3.0 if ranks.index else math.nan), ranks.sum(0.5), ranks.all(ranks.index == 0)
    x = torch.full((2,), 1.0 + ranks.index)
    total = ranks.sum(x)
    return numbers, total.tolist(), x.tolist(), ranks.gather(x).tolist(), ranks.of_first(ranks.index)


def test_exchanges_give_all_ranks_the_same_and_leave_their_arguments_alone(pair):
    first, second = pair(exchanged)
    assert math.isnan(first[0][0]) and first[0][1:] == second[0][1:] == (1.0, False)
    assert (first[1], first[2], second[2]) == ([3.0, 3.0], [1.0, 1.0], [2.0, 2.0])
    assert first[3] == second[3] == [[1.0, 1.0], [2.0, 2.0]] and (first[4], second[4]) == (0, 0)


def stuck(ranks):
    keys = {"rule.kl_slack": 1e-9, "rule.kl_state_slack": None, "rule.max_rejections": 1}
    module, said = trained(ranks, keys, TRPO)
    failed = module.failed_update
    if ranks.index:
        return said
    again = failed.update(failed.settings)
    return said, len(failed.batch), failed.collected["rewards"].shape, str(again.rejection_reason), failed.reason


def test_the_update_that_stops_a_run_is_kept_with_the_rows_of_all_ranks(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (said, rows, shape, again, reason), other = pair(stuck)
    assert 200 < rows <= 240 and shape == (60, 4)
    assert again == str(reason) and "replay" in said and "replay" in other
    assert len(list(tmp_path.glob("failed_update_*.pt"))) == 1


def whole(ranks):
    batch = Batch(*(torch.arange(3.0) + 10 * ranks.index for _ in range(3)))
    batch.share = Share(6, ranks, torch.tensor([0, 3, 4] if ranks.index else [1, 2, 5]))
    found = whole_batch(batch)
    return found.observations.tolist(), found.share.count


def test_a_batch_is_put_together_in_the_order_of_one_rank(pair):
    assert pair(whole) == [([10.0, 0.0, 1.0, 11.0, 12.0, 2.0], 6)] * 2


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (
            {"env.num_envs": 3, "rollout.steps_per_iteration": 240},
            "env.num_envs=3 cannot be shared by devices=2: use 2",
        ),
        ({"env.instances": 4}, "env.instances does not go with devices=2"),
        (
            {"rule.name": "reward_weighted_regression"},
            "rule.name=reward_weighted_regression does not go with devices=2",
        ),
        ({"rule.name": "cem", "rollout.scheme": "population"}, "rollout.scheme=population does not go with devices=2"),
        ({"rollout.scheme": "vine", "value.name": "none"}, "rollout.scheme=vine does not go with devices=2"),
        ({"value.name": "own_methods:Constant"}, "or over_ranks = True in its settings if it can"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_its_key(keys, named):
    with pytest.raises(UserError) as refused:
        updated(RunSettings(), {**BASE, "devices": 2, **keys}, lenient=BASE.keys() - keys.keys())
    assert named in str(refused.value)


def test_the_same_holds_for_a_trainer(pair):
    with pytest.raises(UserError, match=r"env\.num_envs=5 cannot be shared by devices=2: use 4 or 6"):
        TRPO("Pendulum-v1", num_envs=5, steps_per_iteration=50).join(pair.ranks)
