"""A time limit for calls of environments, even if they hang in C code."""

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Self

from trpo_lightning.environments.vector_environment import EnvironmentFailure
from trpo_lightning.errors import UserError

ALARM: int | None = getattr(signal, "SIGALRM", None) if hasattr(signal, "pthread_kill") else None
"""The signal that interrupts a call; None on Windows, where a call that takes too long ends the process."""
GRACE = 2.0
"""Seconds after its deadline in which a call may still end in an exception, before the process ends itself."""


class Overdue(Exception):
    """Raised by a signal in the middle of a call that takes too long."""


class Deadline:
    """Use `with deadline:` around calls of environments; each block may take `seconds`, or forever if that is None.

    A call that takes longer is ended by the first of these that works: at the deadline, a signal raises `Overdue` in
    the call (in the main thread, not on Windows), which becomes an `EnvironmentFailure` that names `where()`; after
    `GRACE` seconds, a thread writes that line and ends the process with exit code 2 (if a call in C lets other threads
    run); later still, faulthandler prints where each thread is and ends the process with exit code 1 (if a call in C
    keeps the interpreter's lock). Entering and leaving only set two attributes; a thread checks them now and then, and
    sleeps when no block is entered. Deadlines do not nest.
    """

    def __init__(self, seconds: float | None, where: Callable[[], str]) -> None:
        self.seconds, self.where = seconds, where
        self.inside, self.began = False, 0.0

    def __enter__(self) -> Self:
        if self.seconds is not None:
            self.began = time.monotonic()
            self.inside = True
            if _WATCHER.asleep or _WATCHER.deadline is not self:
                _WATCHER.watch(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.inside = False
        if isinstance(error, Overdue):
            raise EnvironmentFailure(self.message()) from error

    def late(self) -> float:
        """Seconds since the deadline of the current call; negative before it, or if there is no call."""
        if not self.inside or self.seconds is None:
            return -1.0
        return time.monotonic() - self.began - self.seconds

    def message(self) -> str:
        """The error message for a call that took too long."""
        return f"{self.where()}: no answer within env.timeout={self.seconds:g} seconds"


class _Watcher:
    """The process's one watching thread, for the deadline that was entered last."""

    def __init__(self) -> None:
        self.deadline: Deadline | None = None
        self.asleep = True
        self._awake, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._watched_thread, self._previous = 0, signal.SIG_DFL

    def watch(self, deadline: Deadline) -> None:
        """Watch a deadline that the calling thread has just entered."""
        with self._lock:
            self.deadline, self._watched_thread = deadline, threading.get_ident()
            if ALARM is not None and threading.current_thread() is threading.main_thread():
                handler = signal.getsignal(ALARM)
                if handler != self._on_signal:
                    self._previous = signal.signal(ALARM, self._on_signal)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="environment deadline", daemon=True)
                self._thread.start()
            self._postpone(deadline)
            self.asleep = False
            self._awake.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        deadline = self.deadline
        if deadline is not None and deadline.late() >= 0.0:
            raise Overdue(f"no answer within env.timeout={deadline.seconds:g} seconds")
        if callable(self._previous):
            self._previous(number, frame)

    def _run(self) -> None:
        while True:
            self._awake.wait()
            deadline = self.deadline
            assert deadline is not None and deadline.seconds is not None
            tick = min(1.0, deadline.seconds / 10)
            time.sleep(tick)
            late = deadline.late()
            if late >= GRACE:
                _leave(deadline)
            elif late >= 0.0 and ALARM is not None and self._watched_thread == threading.main_thread().ident:
                signal.pthread_kill(self._watched_thread, ALARM)
            with self._lock:
                if self.deadline is not deadline or late >= 0.0:
                    continue
                if deadline.inside or time.monotonic() - deadline.began < 2 * tick:
                    self._postpone(deadline)
                    continue
                self.asleep = True
                if deadline.inside:  # entered just now, before this thread was asleep
                    self.asleep = False
                    continue
                self._awake.clear()
                faulthandler.cancel_dump_traceback_later()

    @staticmethod
    def _postpone(deadline: Deadline) -> None:
        """Have faulthandler end the process unless this thread runs again in time."""
        assert deadline.seconds is not None
        seconds = deadline.seconds + min(1.0, deadline.seconds / 10) + GRACE + 1.0
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def _leave(deadline: Deadline) -> None:
    os.write(2, f"error: {UserError(deadline.message())}\n".encode())
    for action in _LAST_ACTIONS:
        with suppress(Exception):
            action()
    os._exit(UserError.exit_code)


@contextmanager
def before_hard_exit(action: Callable[[], object]) -> Iterator[None]:
    """Run `action` in another thread if a hanging call ends the process inside the block.

    At that time the main thread is inside the environment and holds no lock or half-written file of ours. If the action
    hangs as well, faulthandler ends it.
    """
    _LAST_ACTIONS.append(action)
    try:
        yield
    finally:
        _LAST_ACTIONS.remove(action)


_WATCHER = _Watcher()
_LAST_ACTIONS: list[Callable[[], object]] = []
# its thread is not in the child, its locks may be held there; nor is faulthandler's, whose end it would wait for
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=faulthandler.cancel_dump_traceback_later, after_in_child=_WATCHER.__init__)
