"""A task in the background: the value function's fit, which the next rollout does not need."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from trpo_lightning.threads import torch_threads

Result = TypeVar("Result")


class BackgroundTask(Generic[Result]):
    """Runs `task()` in a new thread, on one core; `wait()` returns its result or raises its exception."""

    def __init__(self, task: Callable[[], Result]) -> None:
        self._task = task
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="beside")
        self._thread.start()

    def _run(self) -> None:
        try:
            with torch_threads(1):  # a new thread has its own number of them
                self._result = self._task()
        except BaseException as error:
            self._error = error

    def wait(self) -> Result:
        """Block until the task has ended; return its result or raise its exception."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result  # pyright: ignore[reportReturnType]
