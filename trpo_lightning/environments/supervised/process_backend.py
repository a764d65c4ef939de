"""gymnasium's environments in separate processes, which may fail, hang or die."""

import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from trpo_lightning.environments.gymnasium_backend import checked_environment
from trpo_lightning.environments.spaces import flatten_batch, to_env_action
from trpo_lightning.environments.supervised.deadline import ALARM, GRACE, Deadline
from trpo_lightning.environments.user_code import OBJECTS
from trpo_lightning.environments.vector_environment import (
    LIFE_LOST,
    EnvironmentFailure,
    Spaces,
    first_options,
    with_line,
)
from trpo_lightning.errors import UserError
from trpo_lightning.randomness import Stream, seed_global_generators
from trpo_lightning.settings import EnvSettings

FAILURE = "trpo_lightning_failure"
"""Key of `info` under which a process reports its environment's fault."""


class ProcessEnvironments:
    """`AsyncVectorEnv`: one process per environment. A failure kills all processes, whatever they are doing."""

    def __init__(
        self,
        settings: EnvSettings,
        seeds: list[int],
        spaces: Spaces | None = None,
        first_limits: list[int] | None = None,
    ) -> None:
        self._settings, self.num_envs, self._spaces = settings, len(seeds), spaces
        self._first_limits = first_limits or [None] * len(seeds)
        self._seeds, self._first = seeds, True
        self._episodes, self._steps = np.zeros(len(seeds), dtype=np.int64), np.zeros(len(seeds), dtype=np.int64)
        self._resetting = np.zeros(len(seeds), dtype=bool)
        self.life_lost = self._none_lost = np.zeros(len(seeds), dtype=bool)
        # the second line of defence: the wait itself has the time limit
        slow = None if settings.timeout is None else settings.timeout + GRACE
        self._deadline = Deadline(slow, lambda: f"env.id={settings.id}: one of {len(seeds)} processes")
        self._envs = AsyncVectorEnv.__new__(AsyncVectorEnv)  # kept, with its processes, even if these cannot start
        self._build()
        self._space = self._envs.single_observation_space
        self._to_env_action = to_env_action(self._envs.single_action_space, scaled=settings.scale_actions)

    def _build(self) -> None:
        """Start the processes. Raises `UserError` with the reason of the first that cannot build its environment."""
        with TemporaryDirectory() as folder:
            reasons = [Path(folder, str(index)) for index in range(self.num_envs)]
            common = (self._settings, self._spaces, OBJECTS.get(self._settings.id), os.getpid())
            rows = enumerate(zip(self._seeds, self._first_limits, reasons, strict=True))
            makers = [partial(_in_process, *common, i, *row) for i, row in rows]
            try:
                self._envs.__init__(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
            except (EOFError, ConnectionError) as error:
                _, how = self._first_dead()
                told = [path.read_text(encoding="utf-8") for path in reasons if path.exists()]
                self._kill()
                raise UserError(
                    told[0] if told else f"env.id={self._settings.id} could not be built: its process {how}"
                ) from error
            except BaseException:
                self._kill()
                raise

    def reset(self, seeds: list[int] | None = None) -> np.ndarray:
        if seeds is not None:
            self._seeds, self._first = seeds, True
        given: list[int | None] = list(self._seeds) if self._first else [None] * self.num_envs
        self._first = False
        self._resetting[:] = True
        self._count()
        send = partial(self._envs.reset_async, given, first_options(self._settings))
        observations, _ = self._ask(send, self._envs.reset_wait)
        self._resetting[:] = False
        return flatten_batch(self._space, observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        self._count()
        send = partial(self._envs.step_async, self._to_env_action(actions))
        observations, rewards, terminated, truncated, info = self._ask(send, self._envs.step_wait)
        self.life_lost = info.get(LIFE_LOST, self._none_lost)
        self._resetting = (terminated | truncated) & ~self._resetting
        return flatten_batch(self._space, observations), rewards, terminated, truncated

    def _count(self) -> None:
        """Count the coming call for each environment, because a process that dies can no longer tell where it was."""
        self._steps = np.where(self._resetting, 0, self._steps + 1)
        self._episodes += self._resetting

    def _ask(self, send: Any, wait: Any) -> Any:
        try:
            with self._deadline:
                send()
                answers = wait(timeout=self._settings.timeout)
        except multiprocessing.TimeoutError as error:
            silent = [i for i, pipe in enumerate(self._envs.parent_pipes) if not pipe.poll(0)]
            where = self._where(silent or [*range(self.num_envs)])
            failure = EnvironmentFailure(f"{where}: no answer within env.timeout={self._settings.timeout:g} seconds")
            self._kill()
            raise failure from error
        except (EOFError, ConnectionError) as error:
            failure = EnvironmentFailure(self._describe_dead_process())
            self._kill()
            raise failure from error
        except BaseException:
            self._kill()
            raise
        if FAILURE in answers[-1]:
            self._kill()
            raise EnvironmentFailure(next(message for message in answers[-1][FAILURE] if message is not None))
        return answers

    def _where(self, indices: list[int]) -> str:
        i = indices[0]
        step = f"step {self._steps[i]}" if self._steps[i] else "the reset"
        more = f" and {len(indices) - 1} more" if len(indices) > 1 else ""
        place = f"environment {i}{more} (seed {self._seeds[i]}) in {step} of episode {self._episodes[i]}"
        return f"env.id={self._settings.id}: {place}"

    def _describe_dead_process(self) -> str:
        """Which process died, and how."""
        index, how = self._first_dead()
        if index is None:
            return f"env.id={self._settings.id}: a process of its environments {how}"
        return f"{self._where([index])}: its process {how}"

    def _first_dead(self) -> tuple[int | None, str]:
        """The index of the first dead process, if any, and how it died."""
        for process in self._envs.processes:
            process.join(0.2)
        for index, process in enumerate(self._envs.processes):
            if process.exitcode is not None:
                code = process.exitcode
                return index, f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return None, "no longer answers"

    def _kill(self) -> None:
        """End all processes at once, without asking them."""
        processes = getattr(self._envs, "processes", [])  # none if not even the example could be built
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for pipe in getattr(self._envs, "parent_pipes", []):
            pipe.close()
        self._envs.closed = True

    def close(self) -> None:
        if self._envs.closed:
            return
        try:
            with self._deadline:
                self._envs.close()
        except (EnvironmentFailure, EOFError, ConnectionError) as error:
            self._kill()
            print(f"warning: env.id={self._settings.id}: its processes were killed, they did not close: {error}")
        except BaseException:
            self._kill()
            raise


class _Telling(gym.Wrapper):
    """Reports faults in `info`: an exception would reach the parent with its traceback, or not at all."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        try:
            return self.env.reset(seed=seed, options=options)
        except EnvironmentFailure as error:
            return self.observation_space.sample(), {FAILURE: str(error)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            return self.env.step(action)
        except EnvironmentFailure as error:
            return self.observation_space.sample(), 0.0, False, False, {FAILURE: str(error)}


def _in_process(
    settings: EnvSettings,
    spaces: Spaces | None,
    own: Any,
    parent: int,
    index: int,
    seed: int,
    first_limit: int | None,
    reason: Path,
) -> gym.Env:
    """Make the environment of a process, which leaves signals to its parent; or, in the parent, gymnasium's example.

    `own` is the object that `env.id` stands for, if any, because a process that is not a fork does not know it. The
    process seeds its own global generators: forks would otherwise share theirs. If the environment cannot be built, the
    reason is left in a file.
    """
    if own is not None:
        OBJECTS[settings.id] = own
    if os.getpid() == parent:
        return checked_environment(settings, index, spaces)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if ALARM is not None:
        signal.signal(ALARM, signal.SIG_DFL)
    seed_global_generators(seed, Stream.GLOBAL)
    try:
        return _Telling(checked_environment(settings, index, spaces, first_limit))
    except BaseException as error:
        told = (
            str(error)
            if isinstance(error, UserError)
            else f"env.id={settings.id} could not be built: {with_line(error)}"
        )
        reason.write_text(told, encoding="utf-8")
        os._exit(1)
