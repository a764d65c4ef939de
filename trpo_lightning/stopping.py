"""SIGTERM and Ctrl-C as a request to stop, which a run checks between iterations."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


def handle_signals(numbers: list[int], handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Install a handler and return the ones it replaces; signals that the process ignores stay ignored.

    Only the main thread can do this. In any other thread (a notebook's executor, an agent's thread) nothing is
    installed, and signals keep their existing handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {n: signal.signal(n, handler) for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)}


OWN_GROUP: dict[str, Any] = {"process_group": 0}
"""Starts a child in its own process group: Ctrl-C in a terminal then reaches it only through its parent."""
if sys.platform == "win32":
    OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

BREAK: int = getattr(signal, "SIGBREAK", signal.SIGTERM)
"""Windows' Ctrl-Break, which can be sent to a process there without ending it at once."""


class StopRequest:
    """`with StopRequest() as stop:` records the first signal in `stop.signal_number`, which is 0 until then.

    A Ctrl-C after the first signal raises `KeyboardInterrupt`. Windows' Ctrl-Break counts as SIGTERM.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before = {}

    def __enter__(self) -> Self:
        self._before = handle_signals([*{signal.SIGTERM, signal.SIGINT, BREAK}], self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen_again(self) -> None:
        """Replace handlers that a library has installed in the meantime."""
        for number in self._before:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.signal_number = self.signal_number or (signal.SIGTERM if number == BREAK else number)
