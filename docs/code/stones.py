"""The tutorial's example: five stepping stones across a river, and a policy with one parameter per stone and action."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trpo_lightning.numerics.tabular import TabularMDP

STONES, ACTIONS, GAMMA = 5, ("shuffle", "step", "leap"), 0.95
STRIDE = (1, 1, 2)
"""Stones that a successful move gets ahead; from the last stone on, that is the far bank."""
SUCCESS = (0.3, 0.8, 0.8)
FALL = (0.0, 0.05, 0.15)
"""Into the water; a move that neither succeeds nor falls ends where it began."""
MOSSY, SLIP = 3, 0.4
"""The stone covered with moss, on which this share of each action's success is a fall instead."""
COST = 0.05
"""Of every move. The far bank pays 1; the water costs 1 and ends the episode, as the bank does."""


def crossing(gamma: float = GAMMA) -> TabularMDP:
    """The MDP: `transitions` [S, A, S], `rewards` [S, A], `initial` [S]."""
    transitions = torch.zeros(STONES, len(ACTIONS), STONES, dtype=torch.float64)
    rewards = torch.full((STONES, len(ACTIONS)), -COST, dtype=torch.float64)
    for stone in range(STONES):
        for action, (stride, success, fall) in enumerate(zip(STRIDE, SUCCESS, FALL, strict=True)):
            slip = SLIP * success if stone == MOSSY else 0.0
            transitions[stone, action, stone] += 1.0 - success - fall
            rewards[stone, action] -= fall + slip
            if stone + stride < STONES:
                transitions[stone, action, stone + stride] += success - slip
            else:
                rewards[stone, action] += success - slip
    initial = torch.zeros(STONES, dtype=torch.float64)
    initial[0] = 1.0
    return TabularMDP(transitions, rewards, initial, gamma)


def policy(theta: Tensor) -> Tensor:
    """Probabilities pi_theta(a | s) `[S, A]`: a softmax on each stone; theta `[P]`, P = S A."""
    return torch.softmax(theta.view(STONES, len(ACTIONS)), dim=-1)


mdp = crossing()
theta_old = torch.randn(STONES * len(ACTIONS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@dataclass(frozen=True)
class Trajectories:
    """N episodes side by side: all fields `[T, N]`, T the longest; a slot is valid until its episode has ended."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    valid: Tensor
    ended: Tensor
    """The last valid slot of each episode."""


def sample(probabilities: Tensor, episodes: int, generator: torch.Generator, mdp: TabularMDP = mdp) -> Trajectories:
    """Whole episodes with the policy `probabilities` `[S, A]`; what a row of transitions lacks to 1 ends them."""

    def draw(weights: Tensor) -> Tensor:
        uniform = torch.rand(len(weights), 1, generator=generator, dtype=weights.dtype)
        return (uniform >= weights.cumsum(-1)).sum(-1)  # one more than the last index: nothing was drawn

    state, valid = draw(mdp.initial.expand(episodes, -1)), torch.ones(episodes, dtype=torch.bool)
    steps = []
    while valid.any():
        action = draw(probabilities[state, :-1])  # the last action takes what the others leave
        target = draw(mdp.transitions[state, action])
        ended = valid & (target == len(mdp.initial))
        steps.append((state, action, torch.where(valid, mdp.rewards[state, action], 0.0), valid, ended))
        valid, state = valid & ~ended, target.clamp(max=len(mdp.initial) - 1)
    return Trajectories(*(torch.stack(column) for column in zip(*steps, strict=True)))
