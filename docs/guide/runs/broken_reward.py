"""A pendulum whose reward sensor fails: for the run `broken_reward` of the page "Reading a run"."""

import gymnasium as gym


class BrokenReward(gym.Wrapper):
    """After `steps` steps every reward is NaN."""

    def __init__(self, env: gym.Env, steps: int) -> None:
        super().__init__(env)
        self.left = steps

    def step(self, action):
        """Take a step; after `steps` of them, the reward is NaN."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.left -= 1
        return observation, reward if self.left >= 0 else float("nan"), terminated, truncated, info


def make(steps: int = 2000, **kwargs) -> gym.Env:
    """`env.id=broken_reward:make env.kwargs.steps=2000`."""
    return BrokenReward(gym.make("Pendulum-v1", **kwargs), steps)
