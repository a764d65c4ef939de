"""Properties of an environment that spoil training without an error: refused, or warned of before it begins."""

import math
from typing import Any

import gymnasium as gym
import numpy as np

from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.errors import UserError
from trpo_lightning.settings import RunSettings
from trpo_lightning.settings.models import MLPPolicySettings

OURS = {
    gym.wrappers.NormalizeObservation: "normalize.observations=true",
    gym.wrappers.NormalizeReward: "normalize.rewards=true",
}
"""Wrappers that keep running statistics, and the settings by which this package does the same."""
MOMENTS = (("mean",), ("var", "std"), ("count", "n"))
"""Attributes of running statistics: of OpenAI's `RunningMeanStd` and its heirs, and of `RunningStat` in a `ZFilter`."""
LEAST_REACH = 0.25
"""Share of an action's range that three std of the first policy must reach (HalfCheetah: 1; a force of +-10: 0.3)."""


def statistics_cautions(env: gym.Env, env_id: str) -> tuple[str, ...]:
    """Warnings about layers of an environment that keep statistics from one episode to the next.

    Raises:
        UserError: A layer is a gymnasium wrapper that does what settings do, but whose statistics are missing from
            checkpoints, evaluations and saved policies.
    """
    lines = []
    for layer in _layers(env):
        setting = next((setting for kind, setting in OURS.items() if isinstance(layer, kind)), None)
        if setting is not None:
            raise UserError(
                f"env.id={env_id}: its wrapper {type(layer).__name__} keeps running statistics, which evaluation, "
                f"barriers and the saved policy begin without: leave it out, {setting} does the same and keeps them"
            )
        if _keeps_moments(layer):
            lines.append(
                f"env.id={env_id}: {type(layer).__name__} keeps running statistics: each environment of training and "
                "evaluation has its own, and barriers begin them anew; normalize.observations and normalize.rewards do "
                "not"
            )
    return tuple(lines)


def _layers(env: Any) -> list[Any]:
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _keeps_moments(layer: Any) -> bool:
    """Whether an attribute, or one of its own, is a running mean and variance, as they are written everywhere."""
    held = [value for value in vars(layer).values() if not isinstance(value, gym.Env | gym.Space)]
    within = [inner for value in held if hasattr(value, "__dict__") for inner in vars(value).values()]
    return any(_is_moments(value) for value in [*held, *within])


def _is_moments(value: Any) -> bool:
    return all(any(_is_number_or_array(value, name) for name in names) for names in MOMENTS)


def _is_number_or_array(value: Any, name: str) -> bool:
    try:
        return not callable(getattr(value, name))
    except Exception:  # not there, or a property that cannot tell yet
        return False


def cautions(settings: RunSettings, spec: EnvironmentSpec) -> list[str]:
    """Warnings to print before training begins."""
    lines, policy = list(spec.cautions), settings.policy
    actions = spec.spaces[1] if spec.spaces and not settings.env.scale_actions else None
    if isinstance(actions, gym.spaces.Box) and isinstance(policy, MLPPolicySettings):
        lines += _out_of_reach(settings.env.id, actions, math.exp(policy.initial_log_std))
    return lines


def _out_of_reach(env_id: str, space: gym.spaces.Box, std: float) -> list[str]:
    """Warnings about action ranges that a policy with mean 0 hardly reaches."""
    low, high = space.low.astype(np.float64).reshape(-1), space.high.astype(np.float64).reshape(-1)
    bounded = np.isfinite(low) & np.isfinite(high) & (high > low)
    low, high = low[bounded], high[bounded]
    reach = np.clip(np.minimum(high, 3 * std) - np.maximum(low, -3 * std), 0.0, None) / (high - low)
    narrow = 0.1 * 2 * std > high - low
    if not len(low) or not (worst := np.where(narrow, 0.0, reach)).min() < LEAST_REACH:
        return []
    i = int(worst.argmin())
    what = "nearly always at a bound" if narrow[i] and reach[i] else f"within {reach[i]:.0%} of them"
    return [
        f"env.id={env_id}: actions lie in [{low[i]:g}, {high[i]:g}], but the policy begins with mean 0 and "
        f"std {std:g}, {what}, and may never learn to leave: set env.scale_actions=true"
    ]
