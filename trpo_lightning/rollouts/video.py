"""A video of one episode, rendered by gymnasium."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from trpo_lightning.environments.atari import whole_games
from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.environments.supervised.checked_environment import CheckedEnvironment
from trpo_lightning.environments.vector_environment import EnvironmentSpec, with_line
from trpo_lightning.errors import UserError
from trpo_lightning.randomness import Stream, environment_seed, global_generators
from trpo_lightning.rollouts.episodes import MAX_STEPS_WITHOUT_LIMIT
from trpo_lightning.settings import RunSettings, is_atari


class Player(Protocol):
    """Anything that acts on the raw observations of an episode, one after the other."""

    def act(self, observations: Any, *, deterministic: bool = True) -> Any:
        """Actions for observations."""
        ...


class Actor(Protocol):
    """Anything that can play an episode."""

    settings: RunSettings
    spec: EnvironmentSpec

    def session(self) -> Player:
        """Begin an episode."""
        ...


def record_episode(actor: Actor, file: Path, seed: int) -> float:
    """Write an mp4 of one episode of the deterministic policy.

    Args:
        actor: The policy, with the settings of its environment.
        file: The file to write.
        seed: Seed of the episode.

    Returns:
        The episode's undiscounted return.

    Raises:
        UserError: The extra is missing, or the environment cannot be rendered.
    """
    try:
        import imageio.v2 as iio
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise UserError("--video needs the extra: pip install 'trpo_lightning[video]'") from error
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    env = make_one(whole_games(actor.settings.env), render_mode="rgb_array")
    if actor.spec.spaces is None:
        actor.spec = replace(actor.spec, spaces=(env.observation_space, env.action_space))
    unfinished = file.with_name(f"unfinished_{file.name}")
    try:
        with (
            global_generators(seed, Stream.EVALUATION_GLOBAL),
            iio.get_writer(unfinished, fps=_fps(actor, env), macro_block_size=1, codec="libx264") as film,
        ):
            show = film.append_data  # pyright: ignore[reportAttributeAccessIssue]
            total = _play(actor, env, environment_seed(seed, Stream.EVALUATION_ENVIRONMENT, 0, 0), show)
        unfinished.replace(file)
        return total
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"env.id={actor.settings.env.id} cannot be rendered here: {with_line(error)}") from error
    finally:
        unfinished.unlink(missing_ok=True)
        CheckedEnvironment(env, actor.settings.env.id, 0).close()


def _fps(actor: Actor, env: gym.Env) -> float:
    """Pictures per second: what the environment says, in Atari one for each action of a console with 60 frames."""
    settings = actor.settings.env
    return 60 / settings.frame_skip if is_atari(settings.id) else env.metadata.get("render_fps", 30)


def _play(actor: Actor, env: gym.Env, seed: int, show: Callable[[np.ndarray], None]) -> float:
    """Play an episode, handing each picture to `show` as it comes: a game has thousands of them."""
    observation, _ = env.reset(seed=seed)
    total, player = 0.0, actor.session()
    for _ in range(actor.spec.max_episode_steps or MAX_STEPS_WITHOUT_LIMIT):
        frame = env.render()
        if not isinstance(frame, np.ndarray):
            raise UserError(f"env.id={actor.settings.env.id} does not render to pictures")
        show(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])  # the codec needs even sizes
        observation, reward, terminated, truncated, _ = env.step(player.act(observation))
        total += float(reward)
        if terminated or truncated:
            break
    return total
