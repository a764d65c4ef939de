"""One interface to vector environments, with the next-step autoreset of gymnasium and EnvPool.

After an episode's last transition, the next `step` ignores that environment's action and returns the reset observation
with reward 0: a fake transition, which sampling schemes leave out.
"""

import re
from dataclasses import dataclass
from typing import NoReturn, Protocol

import gymnasium as gym
import numpy as np

from trpo_lightning.errors import UserError
from trpo_lightning.policies.observations import Shape
from trpo_lightning.policies.spaces import ActionSpec
from trpo_lightning.settings import EnvSettings
from trpo_lightning.user_modules import one_line, own_line

Spaces = tuple[gym.Space, gym.Space]
"""The spaces of observations and of actions, as the environment declares them."""


class EnvironmentFailure(UserError):
    """An environment did what it must not; the message names env.id and, where known, index, seed, episode and step."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """What is known about an environment before the first step."""

    observation_shape: Shape
    actions: ActionSpec
    max_episode_steps: int | None
    backend: str
    """`gymnasium` or `envpool`, resolved from `auto`."""
    spaces: Spaces | None = None
    """None in files from before spaces were recorded."""
    cautions: tuple[str, ...] = ()
    """Warnings to print before training, one line each."""
    notes: tuple[str, ...] = ()
    """What else to print before training, one line each."""


LIFE_LOST = "trpo_lightning_life_lost"
"""Key of `info` that says of an episode's end that it is only the loss of a life: the game goes on after the reset."""
NEW_GAME = "trpo_lightning_new_game"
"""Key of a reset's options that asks for a new game, even after a lost life."""


def first_options(settings: EnvSettings) -> dict[str, bool] | None:
    """Options of the resets that begin all environments anew; None where there are no games within episodes."""
    return {NEW_GAME: True} if settings.episodic_life else None


class VectorEnvironment(Protocol):
    """N copies of an environment; rows of all arrays are environments in a fixed order."""

    num_envs: int
    life_lost: np.ndarray
    """`[N]`: whose episode the last step has ended only because a life was lost (`env.episodic_life`)."""

    def reset(self, seeds: list[int] | None = None) -> np.ndarray:
        """Start an episode in each environment.

        Args:
            seeds: The environments' seeds. Without them, the first episode uses the seed that the environment was made
                with, and later ones continue with its random numbers.

        Returns:
            The first observations `[N, O]`.
        """
        ...

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Take a step in each environment.

        Args:
            actions: Actions as stored, unclipped, `[N, A]`.

        Returns:
            Observations `[N, O]`; rewards, terminated and truncated, each `[N]`.
        """
        ...

    def close(self) -> None:
        """Free what the environments hold."""
        ...


def with_line(error: BaseException) -> str:
    """As `one_line`, with the file and line of the user's code that failed, if any did."""
    line = own_line(error)
    return one_line(error) + (f" ({line})" if line else "")


def could_not_be_built(settings: EnvSettings, error: Exception) -> NoReturn:
    """Raise a one-line error for an environment that could not be built."""
    kwargs = f" with env.kwargs={settings.kwargs}" if settings.kwargs else ""
    lacking = re.search(r"missing \d+ required .*?arguments?: ((?:'\w+'|,| |and)+)", str(error))
    hint = "".join(f" env.kwargs.{name}=..." for name in re.findall(r"'(\w+)'", lacking[1])) if lacking else ""
    hint = f" (give{hint})" if hint else ""
    raise UserError(f"env.id={settings.id}{kwargs} could not be built: {with_line(error)}{hint}") from error
