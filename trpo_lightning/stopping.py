"""SIGTERM and Ctrl-C as a request that a run looks at between two iterations."""

import signal
from types import FrameType
from typing import Self


class StopRequest:
    """`with StopRequest() as stop:` notes the first signal in `stop.signal_number`, 0 before it came.

    A second Ctrl-C raises `KeyboardInterrupt`. What the process was started to ignore, it goes on to ignore.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before = {}

    def __enter__(self) -> Self:
        watched = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._handle) for number in watched}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen_again(self) -> None:
        """Take the place of handlers that a library has set in the meantime."""
        for number in self._before:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.signal_number = self.signal_number or number
