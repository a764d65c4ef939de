"""EnvPool against gymnasium: the same environments, the same rollouts' structure."""

import math

import numpy as np
import pytest
from environments import collector_for

from trpo_lightning.environments import envpool_backend
from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.errors import UserError
from trpo_lightning.policies.spaces import ContinuousActions, DiscreteActions
from trpo_lightning.settings import EnvSettings, from_keywords

pytest.importorskip("envpool")

RAW = {"observations": False, "rewards": False}


def settings_for(env_id, backend, *, num_envs, steps, limit=None, seed=0):
    return from_keywords(
        env=dict(id=env_id, num_envs=num_envs, backend=backend, max_episode_steps=limit),
        rollout=dict(steps_per_iteration=num_envs * steps),
        normalize=RAW,
        policy=dict(hidden_sizes=[4]),
        gamma=0.9,
        seed=seed,
    )


def cartpole_dynamics(state, action):
    """One Euler step of the cart and pole (Barto, Sutton and Anderson 1983), 0.02 s."""
    x, x_dot, theta, theta_dot = state
    force = 10.0 if action == 1 else -10.0
    temporary = (force + 0.05 * theta_dot**2 * math.sin(theta)) / 1.1
    theta_acc = (9.8 * math.sin(theta) - math.cos(theta) * temporary) / (
        0.5 * (4.0 / 3.0 - 0.1 * math.cos(theta) ** 2 / 1.1)
    )
    x_acc = temporary - 0.05 * theta_acc * math.cos(theta) / 1.1
    return np.array([x + 0.02 * x_dot, x_dot + 0.02 * x_acc, theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc])


def fell(state):
    return abs(state[0]) > 2.4 or abs(state[2]) > 12 * 2 * math.pi / 360


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
@pytest.mark.parametrize(("num_envs", "steps", "limit"), [(3, 25, 15), (1, 40, None), (2, 1, 1), (2, 12, 1)])
def test_cartpole_rollouts_equal_a_replay_of_its_dynamics(backend, num_envs, steps, limit):
    settings = settings_for("CartPole-v1", backend, num_envs=num_envs, steps=steps, limit=limit)
    collector, policy, normalizer = collector_for(settings)
    assert collector.spec.max_episode_steps == (limit or 500)
    resetting, length, kinds = [False] * num_envs, [0] * num_envs, set()
    for iteration in range(4):
        rollout = collector.collect(policy, normalizer, iteration)
        lengths = []
        for t in range(steps):
            for i in range(num_envs):
                before, after = rollout.raw_observations[t, i], rollout.observations[t + 1, i]
                assert rollout.valid[t, i] == (not resetting[i])
                if resetting[i]:
                    assert np.abs(after).max() <= 0.05 + 1e-6 and rollout.rewards[t, i] == 0
                    assert not rollout.terminated[t, i] and not rollout.truncated[t, i]
                    resetting[i] = False
                    continue
                np.testing.assert_allclose(after, cartpole_dynamics(before, rollout.actions[t, i, 0]), atol=1e-4)
                length[i] += 1
                assert rollout.rewards[t, i] == 1.0
                assert rollout.running_returns[t, i] == pytest.approx(sum(0.9**k for k in range(length[i])))
                at_limit = length[i] == (limit or 500)
                died = fell(after)  # also in the very step that reaches the limit
                assert rollout.terminated[t, i] == died
                assert rollout.truncated[t, i] == (at_limit and not died)
                if rollout.terminated[t, i] or rollout.truncated[t, i]:
                    kinds.add(bool(rollout.terminated[t, i]))
                    lengths.append(length[i])
                    resetting[i], length[i] = True, 0
        assert rollout.episode_lengths == lengths and rollout.episode_returns == lengths
        assert rollout.env_steps == int(rollout.valid.sum()) <= steps * num_envs
    collector.close()
    if limit == 15:
        assert kinds == {True, False}  # both ends occurred


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_a_balanced_pole_is_truncated_at_500_and_not_terminated(backend):
    envs = make_environments(EnvSettings(id="CartPole-v1"), backend, [1, 2, 3], 1)
    observations = envs.reset()
    for step in range(1, 501):
        push = observations @ np.array([0.1, 0.5, 10.0, 2.0])
        observations, _, terminated, truncated = envs.step((push > 0).astype(np.int64)[:, None])
        assert not terminated.any()
        assert truncated.tolist() == [step == 500] * 3
    assert np.abs(observations[:, 2]).max() < 0.2  # its own last observation
    reset, rewards, terminated, truncated = envs.step(np.zeros((3, 1), dtype=np.int64))
    envs.close()
    assert np.abs(reset).max() <= 0.05 + 1e-6
    assert not rewards.any() and not terminated.any() and not truncated.any()


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v5"])
def test_each_environment_has_its_own_seed(env_id, backend):
    def first(seeds):
        envs = make_environments(EnvSettings(id=env_id), backend, seeds, 1)
        observations = envs.reset()
        envs.close()
        return observations

    together = first([50, 9, 50])
    np.testing.assert_array_equal(together, np.concatenate([first([50]), first([9]), first([50])]))
    assert (together[0] != together[1]).any()


def test_half_cheetah_is_truncated_at_1000():
    envs = make_environments(EnvSettings(id="HalfCheetah-v5"), "envpool", [1, 2], 1)
    envs.reset()
    for step in range(1, 1001):
        _, _, terminated, truncated = envs.step(np.zeros((2, 6), dtype=np.float32))
        assert not terminated.any() and truncated.tolist() == [step == 1000] * 2
    envs.close()


@pytest.mark.parametrize(
    ("env_id", "shape", "actions", "limit"),
    [
        ("Hopper-v5", (11,), ContinuousActions(3), 1000),
        ("HalfCheetah-v5", (17,), ContinuousActions(6), 1000),
        ("CartPole-v1", (4,), DiscreteActions((2,)), 500),
        ("FrozenLake-v1", (16,), DiscreteActions((4,)), 100),
        ("CliffWalking-v1", (48,), DiscreteActions((4,)), None),
    ],
)
def test_both_backends_describe_an_id_alike_and_auto_takes_envpool(env_id, shape, actions, limit):
    for backend, expected in [("envpool", "envpool"), ("gymnasium", "gymnasium"), ("auto", "envpool")]:
        spec = describe_environment(EnvSettings(id=env_id, backend=backend))
        assert spec.backend == expected
        assert (spec.observation_shape, spec.actions, spec.max_episode_steps) == (shape, actions, limit)


@pytest.mark.parametrize(
    "settings",
    [
        EnvSettings(id="Hopper-v5", kwargs={"healthy_z_range": [0.5, 2.0]}),  # EnvPool has another name for it
        EnvSettings(id="Hopper-v5", kwargs={"healthy_reward": 0.5, "xml_file": "hopper.xml"}),  # a path of each its own
        EnvSettings(id="CartPole-v1", asynchronous=True),
        EnvSettings(id="Blackjack-v1"),  # EnvPool's has another observation space
        EnvSettings(id="environments:counting"),
    ],
    ids=lambda settings: settings.id,
)
def test_auto_takes_gymnasium_where_envpool_is_not_the_same(settings):
    assert describe_environment(settings).backend == "gymnasium"


PLANAR = {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.3}


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("Swimmer-v5", PLANAR),
        ("Hopper-v5", {**PLANAR, "healthy_reward": 0.5}),
        ("Walker2d-v5", PLANAR),
        ("HalfCheetah-v5", {**PLANAR, "forward_reward_weight": 2.0}),
        ("HalfCheetah-v5", {**PLANAR, "frame_skip": 3}),
    ],
)
def test_steps_with_arguments_equal_gymnasiums_to_the_last_bit(env_id, kwargs):
    """The whole state is observed, so that gymnasium's environment can be put where EnvPool's begins."""
    settings = EnvSettings(id=env_id, kwargs=kwargs)
    assert describe_environment(settings).backend == "envpool"
    pool = make_environments(settings, "envpool", [3], 1)
    one = make_one(settings).unwrapped
    rng, positions, ends = np.random.default_rng(0), one.model.nq, 0
    state, over = pool.reset()[0], True
    for _ in range(400):
        if over:
            one.reset()
            one.set_state(state[:positions].astype(float), state[positions:].astype(float))
        action = rng.uniform(-1, 1, one.action_space.shape).astype(np.float32)
        observations, rewards, terminated, _ = pool.step(action[None])
        expected, reward, over, _, _ = one.step(action)
        np.testing.assert_array_equal(observations[0], expected.astype(observations.dtype))
        assert rewards[0] == pytest.approx(reward, rel=1e-6, abs=1e-6) and bool(terminated[0]) == over
        if over:
            ends += 1
            state = pool.step(action[None])[0][0]  # the step that resets
    pool.close()
    assert ends >= 5 or env_id in ("Swimmer-v5", "HalfCheetah-v5")


def test_unknown_ids_and_arguments_are_one_line():
    for settings in (
        EnvSettings(id="CartPol-v1", backend="envpool"),
        EnvSettings(id="CartPole-v1", backend="envpool", kwargs={"no_such": 1}),
    ):
        with pytest.raises(UserError) as error:
            describe_environment(settings)
        assert f"env.id={settings.id}" in str(error.value) and "\n" not in str(error.value)


def random_episodes(backend, seed):
    """Returns and lengths of some hundred episodes of Hopper-v5 under the untrained policy."""
    settings = settings_for("Hopper-v5", backend, num_envs=20, steps=600, seed=seed)
    collector, policy, normalizer = collector_for(settings)
    rollout = collector.collect(policy, normalizer, 0)
    collector.close()
    return np.array(rollout.episode_returns), np.array(rollout.episode_lengths, dtype=float)


def kolmogorov_smirnov_p(a, b, permutations=400):
    """Share of random relabellings with at least the observed distance of the two empirical distributions."""
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled, kind="stable")
    last_of_ties = np.append(np.diff(pooled[order]) > 0, True)
    labels = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])

    def distance(labels):
        return np.abs(labels[order].cumsum()[last_of_ties]).max()

    rng, observed = np.random.default_rng(0), distance(labels)
    return np.mean([distance(rng.permutation(labels)) >= observed - 1e-12 for _ in range(permutations)])


def test_hopper_has_the_same_distribution_of_returns_and_lengths_on_both_backends():
    ours, theirs = random_episodes("envpool", 1), random_episodes("gymnasium", 2)
    assert min(len(ours[0]), len(theirs[0])) >= 300
    for name, a, b in zip(("returns", "lengths"), ours, theirs, strict=True):
        assert kolmogorov_smirnov_p(a, b) > 0.01, name
        assert kolmogorov_smirnov_p(a, 1.3 * b) < 0.01, f"the test has no power for {name}"


@pytest.mark.parametrize("env_id", ["Hopper-v5", "CartPole-v1"])
def test_a_limit_of_ours_leaves_all_else_as_envpool_has_it(env_id):
    """Episodes that the limit of 25 steps cuts and others that fall, next to a pool with that limit of its own."""
    settings, seeds = EnvSettings(id=env_id, max_episode_steps=25), [3, 4, 5, 6]
    pool = envpool_backend._make(settings, seeds, 1)
    envs = make_environments(settings, "envpool", seeds, 1)
    np.testing.assert_array_equal(envs.reset(), pool.reset()[0])
    rng, seen = np.random.default_rng(0), set()
    for _ in range(150):
        actions = rng.integers(0, 2, (4, 1)) if env_id == "CartPole-v1" else rng.uniform(-1, 1, (4, 3))
        ours = envs.step(actions)
        theirs = pool.step(actions[:, 0] if env_id == "CartPole-v1" else actions)
        for mine, other in zip(ours[:2], theirs, strict=False):
            np.testing.assert_array_equal(mine, other)
        np.testing.assert_array_equal(ours[2] | ours[3], theirs[2] | theirs[3])
        assert not (theirs[2] & ~ours[2]).any() and not (theirs[3] & ~ours[3]).any()
        seen |= set(zip(ours[2].tolist(), ours[3].tolist(), strict=True))
    envs.close()
    assert {(True, False), (False, True)} <= seen
