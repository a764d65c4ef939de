"""An environment that sends signals, as `env.id=signalling:make`."""

import os
from pathlib import Path

from odd_environments import Endless

steps = 0


class Signalling(Endless):
    """In the `at`-th step of all environments of its process the signals go to the run's process, or to its group.

    Only once: the file `flag` is left behind.
    """

    def __init__(self, flag: str, at: int, signals: list[int], group: bool = False) -> None:
        self.flag, self.at, self.signals, self.group = Path(flag), at, signals, group

    def step(self, action):
        global steps
        steps += 1
        if steps == self.at and not self.flag.exists():
            self.flag.touch()
            for number in self.signals:
                os.killpg(os.getpgid(0), number) if self.group else os.kill(os.getpid(), number)
        return super().step(action)

    def snapshot(self):
        return self.position.copy()

    def restore(self, snapshot):
        self.position = snapshot.copy()


def make(**keywords) -> Signalling:
    return Signalling(**keywords)
