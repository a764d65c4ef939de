"""Vine sampling against slow replays from the first state: no snapshot, one environment, one step at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from environments import no_proposals, policy_for
from gymnasium.spaces import flatten

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.gymnasium_backend import checked_environment
from trpo_lightning.environments.snapshots import Restorable
from trpo_lightning.environments.spaces import to_env_action
from trpo_lightning.errors import UserError
from trpo_lightning.randomness import Stream, environment_seed, numpy_generator
from trpo_lightning.rollouts import branches
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.vine import VineScheme
from trpo_lightning.settings import from_keywords


def scheme_for(env_id, *, num_envs=3, steps=20, limit=None, normalize=False, **rollout):
    settings = from_keywords(
        env=dict(id=env_id, num_envs=num_envs, max_episode_steps=limit),
        rollout=dict(scheme="vine", steps_per_iteration=num_envs * steps, **rollout),
        normalize=dict(observations=normalize, rewards=normalize),
        policy=dict(hidden_sizes=[8]),
        value=dict(name="none"),
        gamma=0.9,
        seed=5,
    )
    spec = describe_environment(settings.env, restorable=True)
    policy = policy_for(settings, spec)
    for parameter in policy.parameters():  # away from the uniform start
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    normalizer = Normalizer(spec.observation_shape, settings.normalize)
    return VineScheme(settings, spec, 1, no_proposals), policy, normalizer


def replay_trunk(env, settings, rollout, t, n):
    """Lead an environment from its first state to slot t; the observation there, None if that slot only resets."""
    observation, _ = env.reset(seed=environment_seed(settings.seed, Stream.ENVIRONMENT, 0, n))
    over = False
    for actions in rollout.trunks.actions[:t, n]:
        if over:
            (observation, _), over = env.reset(), False
        else:
            observation, _, terminated, truncated, _ = env.step(
                to_env_action(env.action_space, scaled=True)(actions[None])[0]
            )
            over = terminated or truncated
    return None if over else observation


def slow_branch(settings, env, policy, normalizer, action, noise):
    """Discounted return and steps of a branch, the policy asked for one state at a time."""
    total = steps = 0
    for l in range(settings.rollout.branch_length):  # noqa: E741
        observation, reward, terminated, truncated, _ = env.step(
            to_env_action(env.action_space, scaled=True)(action[None])[0]
        )
        total += 0.9**l * float(normalizer.scale_rewards(np.array(reward)))
        steps += 1
        if terminated or truncated:
            break
        seen = normalizer.normalize(flatten(env.observation_space, observation)[None])
        if l + 1 < settings.rollout.branch_length:
            action = policy(torch.from_numpy(seen)).sample(torch.from_numpy(noise[l][None])).detach().numpy()[0]
    return total, steps


@pytest.mark.parametrize(
    ("env_id", "branch_actions", "normalize"),
    [("Hopper-v5", "policy", True), ("CartPole-v1", "uniform", False), ("CartPole-v1", "all", False)],
)
def test_q_values_are_those_of_branches_replayed_one_by_one(env_id, branch_actions, normalize):
    sizes = dict(rollout_set_size=20, branches=2, branch_length=7, branch_actions=branch_actions)
    scheme, policy, normalizer = scheme_for(env_id, limit=12, normalize=normalize, **sizes)
    if normalize:
        generator = np.random.default_rng(0)
        shape = scheme.spec.observation_shape
        normalizer.merge(1.0 + 2.0 * generator.normal(size=(50, *shape)), 7.0 * generator.normal(size=50))
    settings, rollout = scheme.settings, scheme.collect(policy, normalizer, 0)
    slots = sorted(scheme._rollout_set(0))
    assert len(slots) == 20
    env = checked_environment(settings.env)
    env_steps, ends, s = rollout.trunks.env_steps, 0, 0
    for t, n in slots:
        if replay_trunk(env, settings, rollout, t, n) is None:
            continue
        generator = numpy_generator(settings.seed, Stream.BRANCH_NOISE, 0, s)
        size, normal = rollout.actions.shape[2], env_id == "Hopper-v5"
        noise = (generator.standard_normal if normal else generator.random)((2 + 6, size), dtype=np.float32)
        for k in range(2):
            observation = replay_trunk(env, settings, rollout, t, n)
            seen = normalizer.normalize(flatten(env.observation_space, observation)[None])
            np.testing.assert_array_equal(rollout.observations[s], seen[0])
            action = rollout.actions[s, k]
            if branch_actions == "policy":
                drawn = policy(torch.from_numpy(seen)).sample(torch.from_numpy(noise[k : k + 1])).detach().numpy()[0]
                np.testing.assert_allclose(action, drawn, atol=1e-6)
            elif branch_actions == "uniform":
                assert action[0] == (noise[k, 0] >= 0.5)
            else:
                assert action[0] == k
            expected, steps = slow_branch(settings, env, policy, normalizer, action, noise[2:])
            assert rollout.q_values[s, k] == pytest.approx(expected, rel=1e-4)
            env_steps += steps
            ends += steps < 7
        s += 1
    assert s == len(rollout.observations) < 20 and ends > 2  # slots that only reset; branches that end early
    assert rollout.env_steps == env_steps
    scheme.close()


def test_the_rollout_set_can_be_all_states_of_the_trunks_and_nothing_else():
    scheme, policy, normalizer = scheme_for("CartPole-v1", limit=4, rollout_set_size=60, branches=1, branch_length=1)
    rollout = scheme.collect(policy, normalizer, 0)
    valid = rollout.trunks.valid
    assert 0 < valid.sum() < valid.size
    np.testing.assert_array_equal(rollout.observations, rollout.trunks.observations[:-1][valid])
    for mine, theirs in zip(rollout.statistics(), rollout.trunks.statistics(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert rollout.episode_lengths == [4] * len(rollout.episode_lengths) and rollout.episode_lengths


def test_the_rollout_set_is_uniform_over_slots_and_another_in_each_iteration():
    scheme, *_ = scheme_for("CartPole-v1", rollout_set_size=15)
    sets = [scheme._rollout_set(iteration) for iteration in range(400)]
    assert all(len(chosen) == 15 for chosen in sets)
    counts = np.zeros((20, 3))
    for chosen in sets:
        for slot in chosen:
            counts[slot] += 1
    assert abs(counts / 400 - 0.25).max() < 4.5 * np.sqrt(0.25 * 0.75 / 400)


def test_random_numbers_are_common_to_a_state_s_branches_and_to_no_others():
    """Where actions and environment are random, equal first actions have equal returns; other states have others."""
    scheme, policy, normalizer = scheme_for(
        "tiny_mdp:make", rollout_set_size=30, branches=8, branch_length=12, branch_actions="uniform"
    )
    rollout = scheme.collect(policy, normalizer, 0)
    first = {}
    for s, state in enumerate(rollout.observations.argmax(1)):
        for action in range(3):
            q = rollout.q_values[s][rollout.actions[s, :, 0] == action]
            assert len(set(q.tolist())) <= 1
            first.setdefault((state, action), []).extend(q[:1])
    repeated = [values for values in first.values() if len(values) > 1]
    assert len(repeated) > 5 and all(len(set(values)) > 1 for values in repeated)
    assert (rollout.q_values != scheme.collect(policy, normalizer, 1).q_values).all()


def test_random_numbers_are_of_the_state_and_iteration_and_not_the_trunk_s():
    """A branch that does what its trunk did next meets another future, and so do equal states."""
    sizes = dict(rollout_set_size=40, branches=1, branch_length=2)
    scheme, policy, normalizer = scheme_for("tiny_mdp:make", **sizes)
    for parameter in policy.parameters():
        parameter.data *= 300.0  # one action in each state
    rollout = scheme.collect(policy, normalizer, 0)
    t, n = np.array(sorted(scheme._rollout_set(0))).T
    inner = t < 19
    rewards = rollout.trunks.rewards
    of_trunks = rewards[t[inner], n[inner]] + 0.9 * rewards[t[inner] + 1, n[inner]]
    same = np.isclose(rollout.q_values[inner, 0], of_trunks)
    assert 0.1 < same.mean() < 0.9
    noise = [
        scheme._choose(policy(torch.from_numpy(rollout.observations)), iteration)[2].flatten(1) for iteration in (0, 1)
    ]
    assert len(torch.cat(noise).unique(dim=0)) == 80


def test_the_environment_s_random_numbers_are_of_state_and_iteration():
    """From one state, with one action and the same noise of the policy."""
    scheme, policy, normalizer = scheme_for("tiny_mdp:make", rollout_set_size=1, branch_length=9)
    env = checked_environment(scheme.settings.env)
    env.reset(seed=0)
    snapshots = [Restorable(env, "tiny").snapshot()] * 6
    nothing = np.zeros((6, 0), dtype=np.float32)
    arguments = snapshots, np.zeros((6, 2, 1), dtype=np.int64), torch.full((6, 8, 1), 0.5), nothing
    found = [scheme._branches.run(policy, normalizer, iteration, *arguments)[0] for iteration in (0, 1, 0)]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[0][:, 0], found[0][:, 1])
    assert len(np.unique(np.concatenate(found)[:, 0])) > 9


def test_waves_do_not_change_results(monkeypatch):
    found = []
    for workers in (256, 7):
        monkeypatch.setattr(branches, "WORKERS", workers)
        scheme, policy, normalizer = scheme_for("Hopper-v5", rollout_set_size=9, branches=3, branch_length=5)
        rollout = scheme.collect(policy, normalizer, 0)
        assert len(scheme._branches._workers) == min(workers, rollout.q_values.size)
        found.append(rollout.q_values)
        scheme.close()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("call", "spoilt"), [(2, True), (4, True), (5, False)])
def test_a_branch_that_acts_on_what_is_not_finite_returns_nan_and_no_other(monkeypatch, call, spoilt, value):
    """Of 5 steps: nothing acts on the last one's observation. Clipping normalized ones must not hide infinity."""
    calls, step = [], branches.step_workers

    def spoiling(workers, actions, settings):
        observations, rewards, ended = step(workers, actions, settings)
        calls.append(len(workers))
        if len(calls) == call:
            observations[7, 1] = value
        return observations, rewards, ended

    found = []
    for replaced in (step, spoiling):
        monkeypatch.setattr(branches, "step_workers", replaced)
        scheme, policy, normalizer = scheme_for(
            "Pendulum-v1", rollout_set_size=4, branches=3, branch_length=5, normalize=True
        )
        found.append(scheme.collect(policy, normalizer, 0).q_values)
        scheme.close()
    assert calls == [12] * 5
    expected = found[0].copy()
    expected[7 // 3, 7 % 3] = np.nan if spoilt else expected[7 // 3, 7 % 3]
    np.testing.assert_array_equal(found[1], expected)


def test_branches_leave_the_trunks_as_they_are():
    """Trunks go on between iterations as single path does, whatever their states' branches do."""
    actions = []
    for length in (1, 9):
        scheme, policy, normalizer = scheme_for("Hopper-v5", rollout_set_size=9, branch_length=length)
        actions.append([scheme.collect(policy, normalizer, iteration).trunks.actions for iteration in range(2)])
    np.testing.assert_array_equal(actions[0], actions[1])


def test_a_rollout_set_of_resets_only_is_empty():
    scheme, policy, normalizer = scheme_for("CartPole-v1", num_envs=1, steps=1, limit=1, rollout_set_size=1)
    assert len(scheme.collect(policy, normalizer, 0).observations) == 1
    rollout = scheme.collect(policy, normalizer, 1)
    assert rollout.q_values.shape == (0, 4) and rollout.env_steps == 0


@pytest.mark.parametrize(
    ("env_id", "branch_actions", "message"),
    [
        ("Hopper-v5", "uniform", r"branch_actions=uniform: env\.id=Hopper-v5 has continuous actions: use policy"),
        ("Hopper-v5", "all", r"branch_actions=all needs a single choice .*Hopper-v5 use policy"),
        ("environments:with_observations", "policy", r"env\.id=environments:with_observations cannot be restored"),
    ],
)
def test_what_cannot_be_sampled_is_an_error_before_the_first_step(env_id, branch_actions, message):
    with pytest.raises(UserError, match=message):
        settings = from_keywords(
            env=dict(id=env_id, kwargs={"name": "box_bytes"} if ":" in env_id else {}),
            rollout=dict(scheme="vine", branch_actions=branch_actions),
            value=dict(name="none"),
        )
        VineScheme(settings, describe_environment(settings.env, restorable=True), 1, no_proposals)


def test_auto_takes_gymnasium_where_states_must_be_restorable():
    pytest.importorskip("envpool")
    scheme, *_ = scheme_for("Hopper-v5", rollout_set_size=1)
    assert scheme.spec.backend == "gymnasium"
    assert describe_environment(scheme.settings.env).backend == "envpool"


def test_the_preset_has_the_paper_s_numbers_of_q_values():
    from trpo_lightning.runs.config import load_settings

    preset = Path(__file__).parents[2] / "experiments" / "rules" / "vine.yaml"
    s = load_settings(["env.id=Hopper-v5"], preset)
    assert (s.rollout.scheme, s.rollout.rollout_set_size * s.rollout.branches) == ("vine", 2500)
    assert (s.env.num_envs, s.rollout.steps_per_iteration, s.rollout.branch_length) == (16, 16 * 1000, 100)
