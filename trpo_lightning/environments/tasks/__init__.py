"""Tasks from the papers that gymnasium lacks.

They are registered with gymnasium as `CartPole1983-v0` and `Walker2015-v0`; as a function,
`trpo_lightning.environments.tasks:cart_pole_1983` is the same task without a time limit. The 2015 paper's swimmer and
hopper are gymnasium's with other `env.kwargs`: see `experiments/trpo2015_*.yaml`.
"""

import gymnasium as gym

from trpo_lightning.environments.tasks.cart_pole import CartPole
from trpo_lightning.environments.tasks.walker import ImpactPenalty, walker_2015

HORIZON = 1000
"""Maximum steps of an episode: given in GAE 2016 for cart-pole, and in TRPO 2015 for the walker (not cart-pole)."""


def cart_pole_1983() -> gym.Env:
    """The cart-pole of Barto, Sutton & Anderson 1983 with a continuous force."""
    return CartPole()


for _id, _function in {"CartPole1983-v0": "cart_pole_1983", "Walker2015-v0": "walker_2015"}.items():
    gym.register(_id, entry_point=f"{__name__}:{_function}", max_episode_steps=HORIZON)

__all__ = ["HORIZON", "CartPole", "ImpactPenalty", "cart_pole_1983", "walker_2015"]
