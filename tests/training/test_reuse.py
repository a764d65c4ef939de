"""Runs that learn from several batches at once: the loop, its memory, its barriers, what is refused."""

import dataclasses
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_every_key import BASE, fingerprint

from trpo_lightning import TRPO, UserError
from trpo_lightning.numerics.mixture import mean_age
from trpo_lightning.rules.mixture import mixture_weights, shortening
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.settings import RunSettings, from_keywords, updated
from trpo_lightning.training.reuse.past import PastRollout, to_keep

UNIFORM = {"rule.reuse": "uniform", "rule.reuse_batches": 3}
SMALL = {**BASE, "checkpoint.every": 0, "evaluation.every": 0, "total_env_steps": 10**6, "rule.final_delta": None}


def fitted(iterations: int, environment: str = "Pendulum-v1", **values) -> TRPO:
    given = {name.replace("__", "."): value for name, value in values.items()}
    settings = updated(RunSettings(), {**SMALL, "env.id": environment, "total_iterations": iterations, **given})
    module = TRPO(settings=settings)
    module.rows = []
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    recorder = Recorder()
    pl.Trainer(max_epochs=-1, enable_model_summary=False, accelerator="cpu", callbacks=[recorder], **quiet).fit(module)
    module.recorded = recorder.rows
    return module


class Recorder(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_train_epoch_end(self, trainer, module):
        self.rows.append(dict(module.row))


@pytest.mark.parametrize("change", [{}, {"rollout.whole_episodes": True}, {"value.targets": "returns"}])
def test_one_batch_is_trpo_bit_for_bit(change):
    expected = fingerprint(change)
    assert fingerprint({**change, "rule.reuse": "uniform", "rule.reuse_batches": 1}) == expected
    assert fingerprint({**change, "rule.reuse": "optimal", "rule.reuse_size": 1.0}) == expected
    assert fingerprint({**change, "rule.reuse": "uniform", "rule.reuse_batches": 2}) != expected


@pytest.mark.parametrize("environment", ["Pendulum-v1", "CartPole-v1", "environments:counting"])
@pytest.mark.parametrize("whole", [False, True])
def test_batches_of_all_kinds_are_learned_from_together(environment, whole):
    module = fitted(5, environment, rollout__whole_episodes=whole, env__max_episode_steps=9, **UNIFORM)
    rows = module.recorded
    assert [row["reuse/batches"] for row in rows] == [1, 2, 3, 3, 3]
    assert len(module.reuse.past) == 2
    for row in rows[1:]:
        if row["update/rejection_reason"] is None:
            assert 0.0 < row["trust_region/kl"] <= row["trust_region/delta"] * (1 + 1e-6)
        assert 0.0 < row["reuse/effective_share_1"] <= 1.0
        assert row["reuse/return_low"] <= row["reuse/return_predicted"] <= row["reuse/return_high"]
        assert 0.0 <= row["reuse/truncated"] <= 1.0
    assert rows[-1]["trust_region/delta"] == pytest.approx(module.settings.rule.delta / 4.0)  # mean age 2


@pytest.mark.parametrize("rule", [{"kl_over_states": "max"}, {"kl_direction": "new_old"}, {"step_length": "fixed"}])
def test_other_trust_regions_take_several_batches_too(rule):
    options = {"kl_slack": None, "improvement_ratio": None, "step_size": 0.01} if "step_length" in rule else {}
    keys = {f"rule.{name}": value for name, value in {**rule, **options}.items()}
    module = fitted(4, **UNIFORM, **keys)
    row = module.recorded[-1]
    assert row["update/rejection_reason"] is None
    bounded = "trust_region/kl_max" if "kl_over_states" in rule else "trust_region/kl"
    assert math.isfinite(row[bounded])
    if "step_length" in rule:
        assert row["trust_region/step_size"] == pytest.approx(0.01 / 2.0)
    else:
        assert row[bounded] <= row["trust_region/delta"] * (1 + 1e-6)


def test_old_batches_are_seen_with_todays_normalizer():
    module = fitted(3, **UNIFORM)
    for past in module.reuse.past:
        seen = past.seen_by(module.normalizer)
        np.testing.assert_array_equal(seen.observations, module.normalizer.normalize(past.raw_observations))
        scaled = np.clip(past.raw_rewards / float(module.normalizer.returns.std()), -10, 10)
        np.testing.assert_allclose(seen.rewards, scaled, rtol=1e-12)


def test_what_is_kept_of_a_rollout_is_what_the_environments_returned():
    module = TRPO(
        "environments:counting", num_envs=3, steps_per_iteration=33, rule={"reuse": "uniform", "reuse_batches": 2}
    )
    rollout = module.collect()
    module.reuse.keep(module.estimate(rollout).mixture)
    (past,) = module.reuse.past
    module.scheme.close()
    np.testing.assert_array_equal(past.raw_observations[:-1], rollout.raw_observations)
    again = module.normalizer.normalize(past.raw_observations)  # nothing has been merged: the same normalizer
    np.testing.assert_array_equal(again[1:][rollout.valid], rollout.observations[1:][rollout.valid])
    np.testing.assert_array_equal(past.seen_by(module.normalizer).rewards, rollout.rewards)
    assert not np.shares_memory(past.actions, rollout.actions)
    with torch.no_grad():
        rows = torch.from_numpy(rollout.observations[:-1][rollout.valid])
        expected = module.policy(rows).log_prob(torch.from_numpy(rollout.actions[rollout.valid]))
    np.testing.assert_allclose(past.log_probs[rollout.valid], expected.numpy(), rtol=1e-6)


def small_rollout(module: TRPO):
    rollout = module.collect()
    module.scheme.close()
    return rollout, np.zeros(rollout.valid.shape, dtype=np.float32)


@pytest.mark.parametrize("array", ["raw_observations", "raw_rewards", "last_observations"])
def test_a_rollout_with_a_bad_number_is_not_kept_for_later_updates(array):
    module = TRPO("Pendulum-v1", num_envs=2, steps_per_iteration=8)
    rollout, log_probs = small_rollout(module)
    assert to_keep(rollout, log_probs) is not None
    getattr(rollout, array)[0] = np.nan
    assert to_keep(rollout, log_probs) is None


def test_what_follows_a_terminal_state_may_be_anything():
    module = TRPO("Pendulum-v1", num_envs=2, steps_per_iteration=8)
    rollout, log_probs = small_rollout(module)
    rollout.last_observations[0] = np.inf
    assert to_keep(rollout, log_probs) is None
    rollout.terminated[-1, 0] = True
    kept = to_keep(rollout, log_probs)
    assert kept is not None and np.isfinite(kept.raw_observations).all()


def test_an_iteration_whose_rollout_is_not_kept_leaves_the_others_their_ages():
    module = fitted(3, rule__reuse="optimal", rule__reuse_batches=4)
    assert len(module.reuse.past) == 3
    module.reuse.past[1] = None
    module.iteration = 3
    estimate = module.estimate(module.collect())
    module.scheme.close()
    parts = estimate.mixture.parts
    assert [part.age for part in parts] == [0, 1, 3]
    assert [part.weight for part in parts] == pytest.approx([0.5, 0.375, 0.125])


def test_the_state_of_the_memory_is_restored_exactly():
    module, other = fitted(4, **UNIFORM), TRPO(settings=updated(RunSettings(), {**SMALL, **UNIFORM}))
    module.reuse.past[1] = None
    other.reuse.load_state_dict(module.reuse.state_dict())
    assert other.reuse.past[1] is None
    for item in dataclasses.fields(PastRollout):
        first, second = (getattr(one.reuse.past[0], item.name) for one in (module, other))
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)


def test_a_scheme_that_does_not_say_what_it_normalized_is_told():
    module = TRPO("Pendulum-v1", num_envs=2, steps_per_iteration=8)
    rollout, log_probs = small_rollout(module)
    rollout.raw_rewards = None
    with pytest.raises(UserError, match=r"rule\.reuse needs raw_rewards"):
        to_keep(rollout, log_probs)


def test_radius_and_lengths_shrink_with_the_mean_age():
    rule = from_keywords(rule={"reuse": "optimal", "reuse_size": 2.0, "delta": 0.02, "final_delta": None}).rule
    assert mean_age(mixture_weights(rule)) == pytest.approx(2.0) == shortening(rule)
    assert TrustRegionRule(rule).delta() == pytest.approx(0.02 / 4.0)
    assert TrustRegionRule(from_keywords(delta=0.02, final_delta=None).rule).delta() == 0.02
    # delta = epsilon^2 / 2: the next policy is i epsilon away from the one of batch i, in the mean as far as one step
    epsilon = math.sqrt(2.0 * TrustRegionRule(rule).delta())
    change = sum(w * i * epsilon for i, w in enumerate(mixture_weights(rule), start=1))
    assert change == pytest.approx(math.sqrt(2.0 * 0.02))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule.reuse": "optimal", "rule.reuse_size": 5.0}, "rule.reuse_size=5 is larger than rule.reuse_batches=4"),
        ({"rule.reuse": "uniform", "rule.curvature": "empirical_fisher"}, "rule.curvature=empirical_fisher does not"),
        ({"rule.reuse": "uniform", "policy.name": "gru"}, "policy.name=gru does not go with rule.reuse=uniform"),
        ({"rule.reuse": "uniform", "value.name": "lstm"}, "value.name=lstm does not go with rule.reuse=uniform"),
        ({"rule.reuse": "uniform", "devices": 2}, "rule.reuse=uniform does not go with devices=2"),
        ({"rule.reuse": "uniform", "rule.reuse_size": 2.0}, "rule.reuse_size does not count with rule.reuse=uniform"),
        ({"rule.reuse_batches": 2}, "rule.reuse_batches does not count with rule.reuse=none"),
        ({"rule.reuse": "uniform", "rule.name": "vanilla_policy_gradient"}, "rule.reuse does not count with rule.name"),
        ({"rule.reuse": "uniform", "rule.name": "cem", "rollout.scheme": "population"}, "rule.reuse does not count"),
        ({"rule.reuse": "uniform", "rollout.scheme": "vine", "value.name": "none"}, "rule.reuse does not count"),
        (
            {"rule.reuse": "uniform", "rollout.scheme": "exact", "value.name": "none", "rule.fisher_fraction": 1.0},
            "rule.reuse does not count with rollout.scheme=exact",
        ),
    ],
)
def test_what_cannot_reuse_batches_is_refused_in_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        updated(RunSettings(), values)
    assert "\n" not in str(error.value)
