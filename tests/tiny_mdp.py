"""A small random MDP whose every expectation can be enumerated; `env.id=tiny_mdp:make`."""

import gymnasium as gym
import numpy as np

STATES, ACTIONS = 4, 3


def tables(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First states `[S]`, transitions `[S, A, S]`, rewards `[S, A]`."""
    rng = np.random.default_rng(seed)
    first, transitions = rng.dirichlet(np.ones(STATES)), rng.dirichlet(0.5 * np.ones(STATES), (STATES, ACTIONS))
    return first, transitions, rng.normal(size=(STATES, ACTIONS))


class TinyMDP(gym.Env):
    """Observes its state, pays the state's and action's reward, never ends."""

    observation_space = gym.spaces.Discrete(STATES)
    action_space = gym.spaces.Discrete(ACTIONS)

    def __init__(self):
        self.first, self.transitions, self.rewards = tables()
        self.state = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self._draw(self.first)
        return self.state, {}

    def step(self, action):
        reward = self.rewards[self.state, action]
        self.state = self._draw(self.transitions[self.state, action])
        return self.state, float(reward), False, False, {}

    def snapshot(self):
        return self.state

    def restore(self, snapshot):
        self.state = snapshot

    def _draw(self, probabilities):
        return int(np.searchsorted(probabilities.cumsum()[:-1], self.np_random.random(), side="right"))


def make() -> gym.Env:
    return TinyMDP()


def q_table(policy: np.ndarray, gamma: float, length: int) -> np.ndarray:
    """Expected discounted return `[S, A]` of `length` steps that follow `policy` `[S, A]` after the first action."""
    _, transitions, rewards = tables()
    q = np.zeros_like(rewards)
    for _ in range(length):
        q = rewards + gamma * transitions @ (policy * q).sum(1)
    return q


def visitation(policy: np.ndarray, steps: int) -> np.ndarray:
    """Probability of each state at a random one of the first `steps` steps `[S]`."""
    state, transitions, _ = tables()
    total = np.zeros(STATES)
    for _ in range(steps):
        total += state / steps
        state = np.einsum("s,sa,sat->t", state, policy, transitions)
    return total
