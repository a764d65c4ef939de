"""Environments that most projects never meet, as `env.id=odd_environments:NAME`."""

import ctypes
import fcntl
import multiprocessing
import os
import signal
import sys
import time

import gymnasium as gym
import numpy as np


class Endless(gym.Env):
    """A point that drifts for ever: no end, no time limit."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.position.copy(), {}

    def step(self, action):
        self.position = 0.9 * self.position + 0.1 * float(action[0])
        return self.position.copy(), -float(np.square(self.position).sum()), False, False, {}


def endless() -> gym.Env:
    return Endless()


class Breaking(Endless):
    """Raises in its 20th step."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 20:
            raise RuntimeError("the simulator [broke]")
        return super().step(action)


def breaking() -> gym.Env:
    return Breaking()


class Paying(Endless):
    """Pays the same `reward` for each step, whatever the policy does."""

    def __init__(self, reward):
        self.reward = reward

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self.reward, *rest


def paying(reward: float) -> gym.Env:
    return Paying(reward)


def built_here_only(how: str) -> gym.Env:
    """Cannot be built in a process of its own."""
    if multiprocessing.parent_process() is not None:
        UNBUILT[how]()
    return Endless()


class Faulty(Endless):
    """Does `fault` in step `at` of an episode (0: the reset), as long as the file `flag` is there.

    Of all environments that get there `spared` ones are, in order of time, then `times` are hit.
    """

    def __init__(self, fault, at, flag, spared, times):
        self.fault, self.at, self.flag, self.spared, self.times = fault, at, flag, spared, times
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        outcome = super().reset(seed=seed)
        self.steps = 0
        return self.misbehave(outcome) if self.at == 0 and self._mine() else outcome

    def step(self, action):
        self.steps += 1
        outcome = super().step(action)
        return self.misbehave(outcome) if self.steps == self.at and self._mine() else outcome

    def snapshot(self):
        return self.position.copy(), self.steps

    def restore(self, snapshot):
        self.position, self.steps = snapshot[0].copy(), snapshot[1]

    def _mine(self):
        """Whether it is this one's turn."""
        if not os.path.exists(self.flag):
            return False
        with open(self.flag, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            turn = len(file.read())
            file.write(b"x")
        return self.spared <= turn < self.spared + self.times

    def misbehave(self, outcome):
        return FAULTS[self.fault](outcome)


def _raise(outcome):
    raise RuntimeError("the simulator\nbroke [in two lines]")


def _unpicklable(outcome):
    class Local(Exception):
        pass

    raise Local(lambda: 0, 2)


def _hang_in_c(outcome):
    """Holds the interpreter's lock: no other thread runs, no signal handler either."""
    ctypes.PyDLL(None).sleep(60)


def _hang_in_released_c(outcome):
    """Lets other threads run, and knows no signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    ctypes.CDLL(None).sleep(60)


UNBUILT = {
    "raise": lambda: _raise(None),
    "leave": lambda: sys.exit("bye"),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(60),
}
FAULTS = {
    "raise": _raise,
    "unpicklable": _unpicklable,
    "leave": lambda outcome: sys.exit("bye"),
    "hang": lambda outcome: time.sleep(60),
    "hang_in_c": _hang_in_c,
    "hang_in_released_c": _hang_in_released_c,
    "die": lambda outcome: os._exit(7),
    "vanish": lambda outcome: os._exit(0),
    "killed": lambda outcome: os.kill(os.getpid(), signal.SIGKILL),
    "shape": lambda outcome: (np.zeros(3), *outcome[1:]),
    "dtype": lambda outcome: (np.zeros(2, dtype=complex), *outcome[1:]),
    "none": lambda outcome: (None, *outcome[1:]),
    "ragged": lambda outcome: ([[1.0], [1.0, 2.0]], *outcome[1:]),
    "words": lambda outcome: (["a", "b"], *outcome[1:]),
    "reward": lambda outcome: (outcome[0], "much", *outcome[2:]),
    "rewards": lambda outcome: (outcome[0], np.zeros(2), *outcome[2:]),
    "end": lambda outcome: (*outcome[:2], None, *outcome[3:]),
    "triple": lambda outcome: outcome[:3],
    "nothing": lambda outcome: None,
    "nan": lambda outcome: (outcome[0] * np.nan, *outcome[1:]),
    "info": lambda outcome: (*outcome[:-1], None),
    "list": lambda outcome: (outcome[0].tolist(), *outcome[1:]),
    "beyond": lambda outcome: (np.full(2, 1e6), *outcome[1:]),
    "arrays": lambda outcome: (outcome[0], *(np.array([x]) for x in outcome[1:-1]), {}),
}


def faulty(fault, at, flag, spared=1, times=1) -> gym.Env:
    return Faulty(fault, at, flag, spared, times)


def declared(space, observation) -> gym.Env:
    return Numbers(space, observation)


class Numbers(gym.Env):
    """Observes `observation`, whatever space it declares."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, observation_space, observation):
        self.observation_space, self.observation = observation_space, observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation, {}

    def step(self, action):
        return self.observation, 1.0, False, False, {}


class Paced(gym.Wrapper):
    """Waits `seconds` in every 32nd step, so that iterations take their time whatever the machine is."""

    def __init__(self, seconds: float) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.seconds, self.steps = seconds, 0

    def step(self, action):
        self.steps += 1
        if self.steps % 32 == 0:
            time.sleep(self.seconds)
        return self.env.step(action)


def paced(seconds: float) -> gym.Env:
    return Paced(seconds)


class Bandit(gym.Env):
    """Five pulls of a bandit whose second arm is best, seen by nothing: it can be solved for good."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.pulls = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.pulls += 1
        return np.zeros(2, np.float32), float(action == 1), self.pulls >= 5, False, {}
