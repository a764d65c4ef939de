"""The tutorial's example: five stepping stones across a river, and a policy that sees how far it has come."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trpo_lightning.numerics.tabular import TabularMDP, evaluate_policy

STONES, ACTIONS, GAMMA = 5, ("shuffle", "step", "leap"), 0.95
STRIDE = (1, 1, 2)  # stones ahead; beyond the last one lies the far bank
SUCCESS = (0.4, 0.9, 0.8)  # probability of getting there
FALL = (0.0, 0.05, 0.15)  # probability of the water; else one stays
MOSSY, SLIP = 3, 0.8  # on this stone, the share of successes that slip
COST = 0.02  # of a move; the far bank pays 1, the water costs 1


def crossing(gamma: float = GAMMA) -> TabularMDP:
    """The MDP; the far bank and the water end the episode."""
    shape = STONES, len(ACTIONS), STONES
    transitions = torch.zeros(shape, dtype=torch.float64)
    rewards = torch.full(shape[:2], -COST, dtype=torch.float64)
    for stone in range(STONES):
        for action, stride in enumerate(STRIDE):
            success, fall = SUCCESS[action], FALL[action]
            transitions[stone, action, stone] += 1.0 - success - fall
            if stone == MOSSY:
                success, fall = success * (1.0 - SLIP), fall + success * SLIP
            rewards[stone, action] -= fall
            if stone + stride < STONES:
                transitions[stone, action, stone + stride] += success
            else:
                rewards[stone, action] += success
    initial = torch.zeros(STONES, dtype=torch.float64)
    initial[0] = 1.0
    return TabularMDP(transitions, rewards, initial, gamma)


POSITION = torch.linspace(-1.0, 1.0, STONES, dtype=torch.float64)
FEATURES = torch.stack([torch.ones_like(POSITION), POSITION], dim=1)  # [S, 2]


def logits(theta: Tensor) -> Tensor:
    """[S, A]: a constant and a slope for each action; theta is [6]."""
    return FEATURES @ theta.view(2, len(ACTIONS))


def policy(theta: Tensor) -> Tensor:
    """The probabilities pi_theta(a | s), [S, A]."""
    return torch.softmax(logits(theta), dim=-1)


mdp = crossing()
theta_old = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def best_policy(mdp: TabularMDP) -> Tensor:
    """The best policy of all, deterministic `[S, A]`, by policy iteration: take the largest Q, evaluate, repeat."""
    best = torch.full_like(mdp.rewards, 1.0 / mdp.rewards.shape[1])
    while True:
        q_values = evaluate_policy(mdp, best).q_values
        greedy = torch.nn.functional.one_hot(q_values.argmax(-1), best.shape[1]).to(best)
        if torch.equal(greedy, best):
            return best
        best = greedy


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
    """Whole episodes with the policy `probabilities` `[S, A]`; what a row of transitions lacks to 1 ends an episode."""

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
