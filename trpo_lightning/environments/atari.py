"""Atari games with the preprocessing of Mnih et al. 2013, the same in both backends: frames are equal, bit for bit.

Frames are grey, shrunken, and the maximum of the last two of the emulator's; the policy sees the last few of them.
"""

import atexit
import weakref
from dataclasses import replace
from typing import Any

import gymnasium as gym

from trpo_lightning.environments.vector_environment import LIFE_LOST, NEW_GAME, could_not_be_built
from trpo_lightning.errors import UserError, nearest
from trpo_lightning.extras import check_extra
from trpo_lightning.settings import EnvSettings, is_atari

FRAMES_PER_EPISODE = 108_000
"""The emulator's frames after which an episode is cut: half an hour of the game (Machado et al. 2018)."""
OURS = {
    "frameskip": "env.frame_skip",
    "frame_skip": "env.frame_skip",
    "stack_num": "env.frame_stack",
    "img_height": "env.frame_size",
    "img_width": "env.frame_size",
    "noop_max": "env.noop_max",
    "episodic_life": "env.episodic_life",
    "repeat_action_probability": "env.sticky_actions",
    "max_num_frames_per_episode": "env.max_episode_steps",
    "reward_clip": "normalize.reward_signs",
}
"""Arguments of the backends that settings stand for."""
FIXED = ("obs_type", "gray_scale", "use_inter_area_resize", "use_fire_reset", "continuous", "sound_obs")
"""Arguments that the preprocessing decides."""


_MADE: weakref.WeakSet[gym.Env] = weakref.WeakSet()


@atexit.register
def _free_emulators() -> None:
    """Free them before the interpreter ends: its extension module complains of those that it finds then."""
    for env in list(_MADE):
        vars(env).pop("ale", None)


class EpisodicLife(gym.Wrapper):
    """Ends an episode where a life is lost; the game goes on in the next one, which begins with what was seen last.

    A reset at any other time, with a seed, or with `NEW_GAME` among its options begins a game. `info` says whether the
    end was that of a life only.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.lives, self.goes_on = 0, False
        self.last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game, or go on with the one that a life was lost in."""
        info: dict[str, Any] = {}
        if not self.goes_on or seed is not None or NEW_GAME in (options or {}):
            self.last, info = self.env.reset(seed=seed, options=options)
        self.lives, self.goes_on = self._lives(), False
        return self.last, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        self.last, reward, terminated, truncated, _ = self.env.step(action)
        self.goes_on = self._lives() < self.lives and not (terminated or truncated)
        self.lives = self._lives()
        return self.last, reward, terminated or self.goes_on, truncated, {LIFE_LOST: True} if self.goes_on else {}

    def _lives(self) -> int:
        return self.env.unwrapped.ale.lives()  # type: ignore[attr-defined]


def step_limit(settings: EnvSettings) -> int:
    """The time limit in steps of the policy."""
    return settings.max_episode_steps or FRAMES_PER_EPISODE // settings.frame_skip


def make(settings: EnvSettings, kwargs: dict[str, Any]) -> gym.Env:
    """One game through gymnasium's wrappers.

    Raises:
        UserError: The extra is missing, there is no such game, or an argument is one that settings stand for.
    """
    register(settings)
    _check_arguments(kwargs)
    height, width = _frame_size(settings)
    try:
        env = gym.make(
            _name(settings),
            obs_type="grayscale",  # the emulator's other screens are made at each frame, for nothing
            frameskip=1,
            repeat_action_probability=0.0,
            max_num_frames_per_episode=None,
            disable_env_checker=True,
            **kwargs,
        )
        if settings.sticky_actions:  # as the emulator's own at each frame, but snapshots hold the last action
            env = gym.wrappers.StickyAction(env, settings.sticky_actions)
        env = gym.wrappers.AtariPreprocessing(
            env, noop_max=settings.noop_max, frame_skip=settings.frame_skip, screen_size=(width, height)
        )
    except Exception as error:
        could_not_be_built(settings, error)
    _MADE.add(env.unwrapped)
    env = gym.wrappers.TimeLimit(env, step_limit(settings))
    env = gym.wrappers.FrameStackObservation(env, settings.frame_stack)
    return EpisodicLife(env) if settings.episodic_life else env


def pool_arguments(settings: EnvSettings) -> dict[str, Any]:
    """EnvPool's arguments for the same game; raises `UserError` as `make` does."""
    _check_arguments(settings.kwargs)
    height, width = _frame_size(settings)
    return {
        "frame_skip": settings.frame_skip,
        "stack_num": settings.frame_stack,
        "img_height": height,
        "img_width": width,
        "noop_max": settings.noop_max,
        "episodic_life": settings.episodic_life,
        "repeat_action_probability": settings.sticky_actions,
        "max_episode_steps": step_limit(settings),
        "use_fire_reset": False,
        "reward_clip": False,
        **settings.kwargs,
    }


def pool_id(env_id: str) -> str:
    """EnvPool's name for an id: the same without `ALE/`, if it is a game's."""
    return env_id.partition("ALE/")[2] if is_atari(env_id) else env_id


def register(settings: EnvSettings) -> None:
    """Register the games. Raises `UserError` if the extra is missing, or there is no such game."""
    check_extra("atari", f"env.id={settings.id}")
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it introduces itself
    if _name(settings) not in gym.registry:
        known = [name for name in gym.registry if name.startswith("ALE/")]
        raise UserError(f"env.id={settings.id}: ale-py has no such game{nearest(_name(settings), known)}")


def notes(settings: EnvSettings) -> tuple[str, ...]:
    """What is said about a game before training."""
    sticky = settings.sticky_actions
    said = f"the last action is repeated with probability {sticky:g}" if sticky else "no sticky actions"
    lives = ", episodes end with each life" if settings.episodic_life else ""
    return (
        f"env.id={settings.id}: {settings.frame_stack} grey frames, one every {settings.frame_skip} of the emulator's; "
        f"{said} (the id by itself has 0.25){lives}",
    )


def whole_games(settings: EnvSettings) -> EnvSettings:
    """The settings with which returns are those of whole games, as in evaluations."""
    return replace(settings, episodic_life=False) if settings.episodic_life else settings


def _name(settings: EnvSettings) -> str:
    return settings.id.rpartition(":")[2]


def _frame_size(settings: EnvSettings) -> tuple[int, int]:
    if len(settings.frame_size) != 2:
        raise UserError(f"env.frame_size={settings.frame_size} is not [height, width]")
    if settings.frame_stack > min(settings.frame_size):
        raise UserError(
            f"env.frame_stack={settings.frame_stack} is more than the pixels of a side, env.frame_size="
            f"{settings.frame_size}: the stack would be taken for an image with channels last"
        )
    return settings.frame_size[0], settings.frame_size[1]


def _check_arguments(kwargs: dict[str, Any]) -> None:
    for name in kwargs:
        if name in OURS:
            raise UserError(f"env.kwargs.{name}: set {OURS[name]} instead")
        if name in FIXED:
            raise UserError(f"env.kwargs.{name}: the preprocessing of Atari's frames decides that")
