"""Single environments whose state can be saved and restored, stepped together under the time limit."""

from collections.abc import Sequence
from functools import partial

import gymnasium as gym
import numpy as np

from trpo_lightning.environments.gymnasium_backend import checked_environment
from trpo_lightning.environments.observations import as_batch
from trpo_lightning.environments.snapshots import Restorable
from trpo_lightning.environments.spaces import observation_layout, to_env_action
from trpo_lightning.environments.supervised.checked_environment import locate
from trpo_lightning.environments.supervised.deadline import Deadline
from trpo_lightning.settings import EnvSettings


def make_worker(settings: EnvSettings) -> Restorable:
    """One environment. Raises `UserError` if its state cannot be saved."""
    return Restorable(checked_environment(settings), settings.id)


def check_restorable(settings: EnvSettings) -> None:
    """Save the state of one environment, so that one that cannot be saved fails now. Raises `UserError`."""
    env = checked_environment(settings)
    try:
        with Deadline(settings.timeout, env.where):
            env.reset(seed=0)
            Restorable(env, settings.id).snapshot()
    finally:
        env.close()


def step_workers(
    workers: Sequence[Restorable], actions: np.ndarray, settings: EnvSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step each worker with its row of stored actions `[W, A]`.

    Returns:
        Observations `[W, O]`, rewards `[W]`, and whether each episode ended `[W]`.

    Raises:
        EnvironmentFailure: One fails, or together they take longer than `env.timeout`.
    """
    envs: list[gym.Env] = [worker.env for worker in workers]
    space, to_env = envs[0].observation_space, to_env_action(envs[0].action_space, scaled=settings.scale_actions)
    images = bool(observation_layout(space).images)
    observations, rewards, ended = [], np.zeros(len(envs)), np.zeros(len(envs), dtype=bool)
    with Deadline(settings.timeout, partial(locate, envs, settings.id)):
        for i, (env, action) in enumerate(zip(envs, to_env(actions), strict=True)):
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(
                as_batch(space, observation)[0][0] if images else gym.spaces.flatten(space, observation)
            )
            rewards[i], ended[i] = reward, terminated or truncated
    return np.stack(observations), rewards, ended
