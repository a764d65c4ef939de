"""The cart-pole of Barto, Sutton & Anderson 1983 (IEEE SMC-13, appendix), pushed by a continuous force."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

GRAVITY = 9.8
"""m/s^2; the paper prints -9.8 with the signs of its equation, which would make the upright pole stable."""
CART_MASS = 1.0
POLE_MASS = 0.1
"""kg"""
HALF_LENGTH = 0.5
"""m, from the pivot to the pole's centre of mass"""
CART_FRICTION = 0.0005
"""mu_c, N: a constant force on the track against the motion"""
POLE_FRICTION = 0.000002
"""mu_p, N m s: at the pivot"""
STEP = 0.02
"""s"""
FORCE_LIMIT = 10.0
"""N; the paper's force is +10 or -10"""
POSITION_LIMIT = 2.4
"""m"""
ANGLE_LIMIT = math.radians(12)
RESET_RANGE = 0.05
"""Each component of the first state is uniform in +- this (m, m/s, rad, rad/s), as in gymnasium; no paper says."""

State = tuple[float, float, float, float]
"""x, x_dot, theta, theta_dot; theta is 0 upright and grows in the direction of x."""


def accelerations(
    state: State,
    force: float,
    cart_friction: float = CART_FRICTION,
    pole_friction: float = POLE_FRICTION,
) -> tuple[float, float]:
    """Accelerations of the cart, in m/s^2, and of the pole, in rad/s^2.

    theta'' = (g sin(theta) + cos(theta) u - mu_p theta' / (m l)) / (l (4/3 - m cos(theta)^2 / M)) with
    u = (-F - m l theta'^2 sin(theta) + mu_c sgn(x')) / M, M = m_c + m, and
    x'' = (F + m l (theta'^2 sin(theta) - theta'' cos(theta)) - mu_c sgn(x')) / M.
    """
    _, x_dot, theta, theta_dot = state
    sine, cosine = math.sin(theta), math.cos(theta)
    total, moment = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
    friction = math.copysign(cart_friction, x_dot) if x_dot else 0.0
    push = (-force - moment * theta_dot**2 * sine + friction) / total
    torque = GRAVITY * sine + cosine * push - pole_friction * theta_dot / moment
    pole = torque / (HALF_LENGTH * (4 / 3 - POLE_MASS * cosine**2 / total))
    cart = (force + moment * (theta_dot**2 * sine - pole * cosine) - friction) / total
    return cart, pole


class CartPole(gym.Env):
    """Observes the state [4], takes a force [1] in newtons, and pays reward 1 for each step, even the failing one.

    Explicit Euler steps of 0.02 s, as in the paper. An episode terminates beyond 2.4 m or 12 degrees.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-FORCE_LIMIT, FORCE_LIMIT, (1,), np.float32)

    def __init__(self) -> None:
        self.state: State = (0.0, 0.0, 0.0, 0.0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start nearly upright and at rest."""
        super().reset(seed=seed)
        x, x_dot, theta, theta_dot = self.np_random.uniform(-RESET_RANGE, RESET_RANGE, 4).tolist()
        self.state = (x, x_dot, theta, theta_dot)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Push for 0.02 s."""
        force = min(max(float(action[0]), -FORCE_LIMIT), FORCE_LIMIT)
        x, x_dot, theta, theta_dot = self.state
        cart, pole = accelerations(self.state, force)
        self.state = (x + STEP * x_dot, x_dot + STEP * cart, theta + STEP * theta_dot, theta_dot + STEP * pole)
        failed = abs(self.state[0]) > POSITION_LIMIT or abs(self.state[2]) > ANGLE_LIMIT
        return self._observation(), 1.0, failed, False, {}

    def snapshot(self) -> State:
        """The state, without the random generator for later resets."""
        return self.state

    def restore(self, snapshot: State) -> None:
        """Return to a snapshot: the same forces then have bit-identical consequences."""
        self.state = snapshot

    def _observation(self) -> np.ndarray:
        return np.array(self.state, dtype=np.float32)
