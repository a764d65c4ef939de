"""Observations in all forms that gymnasium gives them, and the actions that come back."""

import gymnasium as gym
import numpy as np
import pytest
from environments import ACTION_SPACES, OBSERVATION_SPACES
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from trpo_lightning.environments.observations import as_batch
from trpo_lightning.environments.recorded_spaces import rebuilt, recorded, recorded_pair
from trpo_lightning.environments.spaces import action_spec, one_action, to_env_action
from trpo_lightning.policies.spaces import DiscreteActions

NESTED = {
    "pair": spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (2, 2)))),
    "alike": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,)))),
    "tuple_in_dict": spaces.Dict(
        {"t": spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (2, 2)))), "n": spaces.Discrete(2)}
    ),
    "one_part": spaces.Tuple((spaces.Discrete(3),)),
}
ALL = {**OBSERVATION_SPACES, **NESTED}


def samples(space, number=3):
    space.seed(0)
    return [space.sample() for _ in range(number)]


@pytest.mark.parametrize("name", ALL)
def test_every_form_gives_the_vector_that_gymnasium_flattens_to(name):
    space = ALL[name]
    observations = samples(space)
    expected = np.stack([spaces.flatten(space, one) for one in observations])
    for observation, vector in zip(observations, expected, strict=True):
        rows, batched = as_batch(space, observation)
        assert not batched and rows.tolist() == [vector.tolist()]
    of_a_vector_environment = concatenate(space, observations, create_empty_array(space, 3))
    for batch in (observations, of_a_vector_environment):
        rows, batched = as_batch(space, batch)
        assert batched and rows.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["dict", "tuple", "box_2d", "multi_binary"])
def test_vectors_that_are_flattened_already_are_taken(name):
    space = ALL[name]
    vectors = np.stack([spaces.flatten(space, one) for one in samples(space)])
    assert as_batch(space, vectors)[0].tolist() == vectors.tolist()
    rows, batched = as_batch(space, vectors[0])
    assert rows.tolist() == [vectors[0].tolist()] and not batched


def test_numbers_of_a_discrete_space_are_a_batch_and_no_one_hot_vector():
    rows, batched = as_batch(spaces.Discrete(4), [0, 0, 1, 0])
    assert batched and rows.argmax(1).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (spaces.Box(-1, 1, (3,)), np.zeros(2)),
        (spaces.Box(-1, 1, (3,)), np.zeros((2, 2, 3))),
        (spaces.Box(-1, 1, (3,)), "abc"),
        (spaces.Box(-1, 1, (2, 2)), [[1.0], [1.0, 2.0]]),
        (spaces.Discrete(4), 4),
        (spaces.Discrete(4), -1),
        (spaces.Discrete(4), 0.5),
        (spaces.MultiDiscrete([2, 3]), [2, 0]),
        (OBSERVATION_SPACES["dict"], {"z": np.zeros(2)}),
        (OBSERVATION_SPACES["dict"], []),
        (OBSERVATION_SPACES["tuple"], (np.zeros(2), 1)),
        (OBSERVATION_SPACES["tuple"], (np.zeros((2, 2)), 1, np.zeros(2, np.int8))),
    ],
)
def test_what_is_no_observation_is_refused_with_the_space(space, observation):
    with pytest.raises(ValueError, match="observations must be one of "):
        as_batch(space, observation)


def test_what_reset_returns_is_told_to_be_more_than_the_observation():
    for space in (spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), OBSERVATION_SPACES["tuple"]):
        with pytest.raises(ValueError, match="what `reset` returns: give its first part"):
            as_batch(space, (space.sample(), {}))


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_actions_are_in_their_space_alone_and_in_batches(name):
    space = ACTION_SPACES[name]
    spec = action_spec(space, "x")
    if isinstance(spec, DiscreteActions):
        stored = np.array([np.zeros(len(spec.choices)), np.array(spec.choices) - 1], dtype=np.int64)
    else:
        stored = np.array([[0.0] * spec.size, [1.0] * spec.size], dtype=np.float32)
    assert batch_space(space, 2).contains(to_env_action(space, scaled=True)(stored))
    for row in stored:
        action = one_action(space, row, scaled=True)
        assert space.contains(action)
        assert type(action) is int or action.dtype == space.dtype


@pytest.mark.parametrize("name", [*ALL, *ACTION_SPACES])
def test_a_recorded_space_is_the_same_again(name):
    space = {**ALL, **ACTION_SPACES}[name]
    again = rebuilt(recorded(space))
    assert again == space and again.dtype == space.dtype
    assert spaces.flatdim(again) == spaces.flatdim(space)


def test_the_order_of_a_dicts_parts_survives():
    space = spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Discrete(3))])
    assert list(rebuilt(recorded(space))) == list(space)


def test_bounds_that_are_all_the_same_are_recorded_as_one_number():
    assert recorded(spaces.Box(0, 255, (64, 64), np.uint8))["high"] == 255


def test_a_space_of_another_kind_is_not_recorded():
    class Own(gym.Space):
        pass

    assert recorded_pair((spaces.Dict({"a": Own()}), spaces.Discrete(2))) is None
