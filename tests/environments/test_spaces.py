import gymnasium as gym
import numpy as np
import pytest
from environments import (
    ACTION_SPACES,
    OBSERVATION_SPACES,
    UNSUPPORTED_ACTIONS,
    UNSUPPORTED_OBSERVATIONS,
    collector_for,
    with_observations,
)

from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.environments.spaces import action_spec, flatten_batch, to_env_action
from trpo_lightning.errors import UserError
from trpo_lightning.policies.spaces import BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.settings import EnvSettings, from_keywords

SPECS = {
    "box": ContinuousActions(3),
    "box_2d": ContinuousActions(4),
    "box_scalar": ContinuousActions(1),
    "box_unbounded": ContinuousActions(1),
    "discrete": DiscreteActions((4,)),
    "discrete_start": DiscreteActions((3,)),
    "multi_discrete": DiscreteActions((2, 5, 3)),
    "multi_discrete_start": DiscreteActions((2, 3)),
    "multi_discrete_2d": DiscreteActions((2, 3, 4, 5)),
    "multi_binary": BinaryActions(3),
    "multi_binary_2d": BinaryActions(6),
}


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_action_spec(name):
    assert action_spec(ACTION_SPACES[name], "x") == SPECS[name]


def all_actions(name):
    """Every stored action of a finite space, or a grid of them beyond the bounds of a Box."""
    match SPECS[name]:
        case ContinuousActions(size):
            return np.random.default_rng(0).normal(0.0, 3.0, (200, size)).astype(np.float32)
        case DiscreteActions(choices):
            return np.stack([g.reshape(-1) for g in np.meshgrid(*map(np.arange, choices), indexing="ij")], 1)
        case BinaryActions(size):
            return np.stack([g.reshape(-1) for g in np.meshgrid(*[np.arange(2)] * size, indexing="ij")], 1)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ACTION_SPACES)
def test_every_stored_action_becomes_one_of_the_environment(name, scaled):
    space, stored = ACTION_SPACES[name], all_actions(name)
    given = to_env_action(space, scaled=scaled)(stored)
    assert len(given) == len(stored)
    for action in given:
        assert space.contains(np.asarray(action)), action


@pytest.mark.parametrize("name", [n for n in ACTION_SPACES if not n.startswith("box")])
def test_the_door_of_a_finite_space_is_one_to_one_and_reaches_every_action(name):
    stored = all_actions(name)
    given = {tuple(np.ravel(action).tolist()) for action in to_env_action(ACTION_SPACES[name], scaled=True)(stored)}
    assert len(given) == len(stored)


def test_doors_by_hand():
    def given(name, stored):
        return to_env_action(ACTION_SPACES[name], scaled=False)(np.array(stored, dtype=np.float32))

    assert given("discrete_start", [[0], [2]]).tolist() == [-1, 1]
    assert given("multi_discrete_start", [[1, 0]]).tolist() == [[11, -1]]
    assert given("multi_discrete_2d", [[1, 2, 3, 4]]).tolist() == [[[1, 2], [3, 4]]]
    clipped = given("box_2d", [[-5.0, 0.5, 2.5, 9.0]])
    assert clipped.tolist() == [[[-1.0, 0.5], [2.5, 3.0]]]
    assert clipped.dtype == np.float64
    assert given("box_scalar", [[2.0], [0.25]]).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("low", "high", "stored", "expected"),
    [
        (0.0, 1000.0, [-1.0, 0.0, 0.5, 1.0, 3.0, -3.0], [0.0, 500.0, 750.0, 1000.0, 1000.0, 0.0]),
        (100.0, 101.0, [-1.0, 0.0, 1.0, 9.0], [100.0, 100.5, 101.0, 101.0]),
        (-0.4, 0.4, [-2.0, -0.5, 0.5], [-0.4, -0.2, 0.2]),
        (-1.0, 1.0, [-2.0, -0.3, 0.7], [-1.0, -0.3, 0.7]),
        (7.0, 7.0, [-1.0, 1.0], [7.0, 7.0]),
        (-np.inf, np.inf, [-50.0, 0.5], [-50.0, 0.5]),
        (0.0, np.inf, [-50.0, 0.5], [0.0, 0.5]),
        (-3e38, 3e38, [0.0, 0.5], [0.0, 1.5e38]),
    ],
)
def test_scaled_actions_by_hand(low, high, stored, expected):
    space = gym.spaces.Box(low, high, (1,), np.float32)
    given = to_env_action(space, scaled=True)(np.array(stored, dtype=np.float32)[:, None])
    assert given.dtype == np.float32 and given[:, 0] == pytest.approx(expected, rel=1e-6)
    assert all(space.contains(action) for action in given)


def test_each_dimension_is_scaled_by_its_own_range():
    space = gym.spaces.Box(np.array([0.0, -2.0, -np.inf]), np.array([10.0, 6.0, np.inf]), dtype=np.float64)
    assert to_env_action(space, scaled=True)(np.array([[0.5, 0.5, 0.5]])).tolist() == [[7.5, 4.0, 0.5]]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_start_of_multi_discrete_does_not_leak_into_stored_actions(asynchronous):
    settings = from_keywords(
        env=dict(
            id="environments:with_actions",
            num_envs=2,
            kwargs={"name": "multi_discrete_start"},
            asynchronous=asynchronous,
        ),
        rollout=dict(steps_per_iteration=64),
    )
    collector, policy, normalizer = collector_for(settings)
    actions = collector.collect(policy, normalizer, 0).actions
    collector.close()
    assert set(np.unique(actions[..., 0])) == {0, 1} and set(np.unique(actions[..., 1])) == {0, 1, 2}


def single_samples(name, seeds, steps):
    """Observations of each environment on its own, flattened by gymnasium one by one."""
    rows = []
    for seed in seeds:
        env = with_observations(name)
        observation, _ = env.reset(seed=seed)
        mine = [gym.spaces.flatten(env.observation_space, observation)]
        for _ in range(steps):
            observation = env.step(0)[0]
            mine.append(gym.spaces.flatten(env.observation_space, observation))
        rows.append(mine)
    return np.array(rows).swapaxes(0, 1)


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
def test_observations_are_flattened_as_gymnasium_does_row_by_row(name, monkeypatch):
    space = OBSERVATION_SPACES[name]
    settings = EnvSettings(id="environments:with_observations", kwargs={"name": name})
    spec = describe_environment(settings)
    assert spec.observation_shape == gym.spaces.flatten_space(space).shape
    seeds = [3, 4, 5]
    # each environment needs a space of its own, as those of separate processes would be
    monkeypatch.setattr("environments.with_observations", lambda name: own_space(name))
    envs = make_environments(settings, "gymnasium", seeds, 1)
    seen = [envs.reset()] + [envs.step(np.zeros((3, 1), dtype=np.int64))[0] for _ in range(4)]
    envs.close()
    np.testing.assert_array_equal(np.array(seen), single_samples(name, seeds, 4))


def own_space(name):
    import copy

    env = with_observations(name)
    env.observation_space = copy.deepcopy(env.observation_space)
    return env


def test_flatten_batch_by_hand():
    space = gym.spaces.Dict({"b": gym.spaces.Discrete(3), "a": gym.spaces.Box(0.0, 9.0, (2,))})
    batch = {"a": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": np.array([2, 0])}
    assert flatten_batch(space, batch).tolist() == [[1, 2, 0, 0, 1], [3, 4, 1, 0, 0]]


@pytest.mark.parametrize("name", UNSUPPORTED_OBSERVATIONS)
def test_unsupported_observations_are_refused_in_one_line_naming_the_id(name):
    with pytest.raises(UserError) as error:
        describe_environment(EnvSettings(id="environments:with_observations", kwargs={"name": name}))
    assert "env.id=environments:with_observations" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", UNSUPPORTED_ACTIONS)
def test_unsupported_actions_are_refused_in_one_line_naming_the_id(name):
    with pytest.raises(UserError) as error:
        describe_environment(EnvSettings(id="environments:with_actions", kwargs={"name": name}))
    assert "env.id=environments:with_actions" in str(error.value) and "\n" not in str(error.value)
