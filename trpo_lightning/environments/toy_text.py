"""The exact MDP of an environment that holds its own table, as gymnasium's toy-text environments do."""

from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
import torch

from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.errors import UserError
from trpo_lightning.numerics.tabular import TabularMDP
from trpo_lightning.settings import EnvSettings

HARMLESS = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)
"""Wrappers that leave transitions and rewards alone; a time limit is not part of the MDP, and is ignored."""


def tabular_mdp(settings: EnvSettings, gamma: float) -> TabularMDP:
    """The MDP of `env.id`: `P[s][a]` lists (probability, s', reward, terminated), `initial_state_distrib` has s_0.

    A terminated transition ends the episode: its reward counts, its next state does not.

    Raises:
        UserError: The environment has no such table, or does not follow it.
    """
    env = make_one(settings)
    try:
        layer = env
        while isinstance(layer, gym.Wrapper):
            if not isinstance(layer, HARMLESS):
                _refuse(settings, f"its wrapper {type(layer).__name__} may change what its table says")
            layer = layer.env
        return _from_table(settings, layer, gamma)
    finally:
        env.close()


def _from_table(settings: EnvSettings, env: Any, gamma: float) -> TabularMDP:
    table, initial = getattr(env, "P", None), getattr(env, "initial_state_distrib", None)
    spaces = (env.observation_space, env.action_space)
    if table is None or initial is None or not all(isinstance(s, gym.spaces.Discrete) and s.start == 0 for s in spaces):
        _refuse(settings, "it has no table of transitions")
    if getattr(env, "fickle_passenger", False):
        _refuse(settings, "its table leaves out env.kwargs.fickle_passenger")
    states, actions = (int(space.n) for space in spaces)
    transitions, rewards = np.zeros((states, actions, states)), np.zeros((states, actions))
    for s in range(states):
        for a in range(actions):
            for probability, after, reward, terminated in table[s][a]:
                rewards[s, a] += probability * reward
                transitions[s, a, after] += 0.0 if terminated else probability
    first = torch.as_tensor(initial, dtype=torch.float64)
    return TabularMDP(torch.from_numpy(transitions), torch.from_numpy(rewards), first, gamma)


def _refuse(settings: EnvSettings, reason: str) -> NoReturn:
    raise UserError(
        f"rollout.scheme=exact: env.id={settings.id}: {reason}: use FrozenLake-v1, CliffWalking-v1, Taxi-v4, or an "
        "environment with P and initial_state_distrib like theirs"
    )
