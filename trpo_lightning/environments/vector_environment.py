"""Vector environments behind one interface, with gymnasium's and EnvPool's next-step autoreset.

After an episode's last transition the next `step` ignores that environment's action and returns the reset observation
with reward 0: a fake transition, which the sampling schemes leave out.
"""

import re
from dataclasses import dataclass
from typing import NoReturn, Protocol

import gymnasium as gym
import numpy as np

from trpo_lightning.errors import UserError
from trpo_lightning.policies.spaces import ActionSpec
from trpo_lightning.settings import EnvSettings

Spaces = tuple[gym.Space, gym.Space]
"""Of observations and of actions, as the environment declares them."""


class EnvironmentFailure(UserError):
    """An environment did what it must not; the message names env.id and, where known, index, seed, episode and step."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """What is known of an environment before a single step."""

    observation_shape: tuple[int, ...]
    actions: ActionSpec
    max_episode_steps: int | None
    backend: str
    """`gymnasium` or `envpool`, resolved from `auto`."""
    spaces: Spaces | None = None
    """None in files from before they were recorded."""
    cautions: tuple[str, ...] = ()
    """What the user is told before training: one line each."""


class VectorEnvironment(Protocol):
    """N copies of an environment; rows of all arrays are environments in a fixed order."""

    num_envs: int

    def reset(self, seeds: list[int] | None = None) -> np.ndarray:
        """Start an episode in each environment, the first from its seed; observations `[N, O]`.

        With `seeds` this one begins from them; without, later ones go on with the environments' own random numbers.
        """
        ...

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Take stored (unclipped) actions `[N, A]`; observations `[N, O]`, rewards, terminated, truncated `[N]`."""
        ...

    def close(self) -> None:
        """Free what the environments hold."""
        ...


def one_line(error: BaseException) -> str:
    """The kind and text of someone else's exception, short enough for one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def could_not_be_built(settings: EnvSettings, error: Exception) -> NoReturn:
    """Raise the one-line error for an environment that could not be built."""
    kwargs = f" with env.kwargs={settings.kwargs}" if settings.kwargs else ""
    lacking = re.search(r"missing \d+ required .*?arguments?: ((?:'\w+'|,| |and)+)", str(error))
    hint = "".join(f" env.kwargs.{name}=..." for name in re.findall(r"'(\w+)'", lacking[1])) if lacking else ""
    hint = f" (give{hint})" if hint else ""
    raise UserError(f"env.id={settings.id}{kwargs} could not be built: {one_line(error)}{hint}") from error
