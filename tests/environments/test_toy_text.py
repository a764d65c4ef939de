"""The tables of toy-text environments against the environments themselves."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.environments.toy_text import tabular_mdp
from trpo_lightning.errors import UserError
from trpo_lightning.numerics.tabular import evaluate_policy
from trpo_lightning.settings import EnvSettings

TASKS = {
    "FrozenLake-v1": {"reward_schedule": [5, -2, 1]},
    "FrozenLake8x8-v1": {"is_slippery": False},
    "CliffWalkingSlippery-v1": {},
    "Taxi-v4": {"is_rainy": True},
}


def settings_of(env_id):
    return EnvSettings(id=env_id, kwargs=TASKS[env_id])


@pytest.mark.parametrize("env_id", TASKS)
def test_single_steps_happen_as_often_as_the_table_says(env_id):
    mdp = tabular_mdp(settings_of(env_id), 0.9)
    env = make_one(settings_of(env_id)).unwrapped
    env.reset(seed=0)
    rng, draws = np.random.default_rng(1), 600
    for s in rng.choice(mdp.reachable.nonzero()[:, 0].numpy(), size=6, replace=False):
        a = int(rng.integers(mdp.rewards.shape[1]))
        counts, rewards = np.zeros(len(mdp.initial) + 1), []
        for _ in range(draws):
            env.s = int(s)
            after, reward, terminated, truncated, _ = env.step(a)
            assert not truncated
            counts[-1 if terminated else after] += 1
            rewards.append(reward)
        p = np.append(mdp.transitions[s, a], 1.0 - mdp.transitions[s, a].sum())
        assert (np.abs(counts - draws * p) <= 4.0 * np.sqrt(draws * p * (1 - p)) + 1e-6).all()
        assert abs(np.mean(rewards) - float(mdp.rewards[s, a])) <= 4.0 * np.std(rewards) / draws**0.5 + 1e-9


@pytest.mark.parametrize("env_id", TASKS)
def test_episodes_return_and_visit_what_the_mdp_says(env_id):
    gamma, episodes = 0.8, 1500
    mdp = tabular_mdp(settings_of(env_id), gamma)
    policy = torch.softmax(
        torch.randn(mdp.rewards.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), -1
    )
    found = evaluate_policy(mdp, policy)
    env = make_one(settings_of(env_id)).unwrapped
    rng, cumulative = np.random.default_rng(2), policy.cumsum(-1).numpy()
    returns, occupied, starts = np.zeros(episodes), np.zeros(episodes), np.zeros(len(mdp.initial))
    half = found.visitation.argsort(descending=True)[: len(mdp.initial) // 4].numpy()
    often = np.isin(np.arange(len(mdp.initial)), half)
    for k in range(episodes):
        s, _ = env.reset(seed=k)
        starts[s] += 1
        for t in range(60):
            occupied[k] += gamma**t * often[s]
            s, reward, terminated, _, _ = env.step(min(int((rng.random() > cumulative[s]).sum()), len(policy[0]) - 1))
            returns[k] += gamma**t * reward
            if terminated:
                break
    assert abs(returns.mean() - float(found.eta)) <= 4.0 * returns.std() / episodes**0.5 + 1e-4
    expected = float(found.visitation[torch.from_numpy(often)].sum())
    assert abs(occupied.mean() - expected) <= 4.0 * occupied.std() / episodes**0.5 + 1e-4
    assert not starts[mdp.initial.numpy() == 0.0].any()
    assert np.abs(starts / episodes - mdp.initial.numpy()).max() < 0.02


def test_states_and_ends_of_frozen_lake():
    mdp = tabular_mdp(EnvSettings(id="FrozenLake-v1", kwargs={"is_slippery": False}), 0.9)
    right, down = 2, 1
    assert mdp.transitions.shape == (16, 4, 16) and mdp.initial.nonzero().tolist() == [[0]]
    assert float(mdp.transitions[0, right, 1]) == 1.0
    assert float(mdp.rewards[14, right]) == 1.0 and not mdp.transitions[14, right].any()  # the goal
    assert float(mdp.rewards[1, down]) == 0.0 and not mdp.transitions[1, down].any()  # a hole
    assert sorted(np.flatnonzero(~mdp.reachable)) == [5, 7, 11, 12, 15]


def wrapped():
    return gym.wrappers.TransformReward(gym.make("FrozenLake-v1"), lambda r: 2 * r)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "part"),
    [
        ("CartPole-v1", {}, "no table"),
        ("Blackjack-v1", {}, "no table"),
        ("Taxi-v4", {"fickle_passenger": True}, "fickle_passenger"),
        (f"{__name__}:wrapped", {}, "TransformReward"),
    ],
)
def test_an_environment_without_a_table_is_one_line(env_id, kwargs, part):
    with pytest.raises(UserError, match=part) as error:
        tabular_mdp(EnvSettings(id=env_id, kwargs=kwargs), 0.9)
    assert "rollout.scheme" in str(error.value)
