"""The walker of TRPO 2015: gymnasium's Walker2d with the paper's reward."""

from typing import Any

import gymnasium as gym
import numpy as np

CONTROL_COST = 1e-5
IMPACT_COST = 1e-5
"""Per N^2: the weight of impact forces for the biped in GAE 2016; TRPO 2015 does not give one."""
LARGEST_COST = 1.0
"""Per step: an impact costs no more than staying alive is worth."""
FEET = ("foot", "foot_left")


class ImpactPenalty(gym.Wrapper):
    """Subtract a cost for strong foot impacts, min(1, 1e-5 sum over feet of max(0, |f| - W)^2), from each reward.

    |f| is the norm of the external force on a foot at the end of the step, W the walker's weight, both in newtons, so
    standing costs nothing. The paper gives neither form nor size.

    Raises:
        ValueError: The model does not have the walker's feet.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        model: Any = env.unwrapped.model  # type: ignore[attr-defined]
        bodies = {model.body(index).name: index for index in range(model.nbody)}
        if not set(FEET) <= set(bodies):
            raise ValueError(f"the model has no bodies named {' and '.join(FEET)}")
        self.feet = [bodies[name] for name in FEET]
        self.weight = float(model.body_mass.sum() * np.linalg.norm(model.opt.gravity))

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        """Take a step; the cost is also in `info["reward_impact"]`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        cost = self.cost()
        return observation, float(reward) - cost, terminated, truncated, {**info, "reward_impact": -cost}

    def cost(self) -> float:
        """The cost of the impacts in the last step."""
        forces = self.env.unwrapped.data.cfrc_ext[self.feet, 3:]  # type: ignore[attr-defined]  # [2, 3], after torques
        excess = np.maximum(0.0, np.linalg.norm(forces, axis=1) - self.weight)
        return float(min(LARGEST_COST, IMPACT_COST * np.sum(excess**2)))


def walker_2015(**kwargs: Any) -> gym.Env:
    """18-d state, reward v_x + 1 - 1e-5 |u|^2 - impacts per step; `kwargs` go to gymnasium's Walker2d-v5."""
    own = {"ctrl_cost_weight": CONTROL_COST, "exclude_current_positions_from_observation": False, **kwargs}
    return ImpactPenalty(gym.make("Walker2d-v5", max_episode_steps=-1, disable_env_checker=True, **own))
