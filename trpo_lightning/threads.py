"""How many threads torch and NumPy may use in each part of a run."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path


def available_cores() -> int:
    """Cores this process may use: the minimum of its affinity mask, a container's quota and a Slurm task's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    limits = [int(task)] if task.isdigit() else []
    quota = cpu_quota()
    if quota is not None:
        limits.append(int(quota))  # rounded down: a thread more would exceed the quota and be throttled
    return max(1, min([cores, *limits]))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU time, in cores, that control groups grant this process (`docker run --cpus 2`); None means no limit.

    Linux has two versions of control groups; the files of both are looked up below `root`.
    """
    found = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "":
            folders, quota_of = [root / "sys/fs/cgroup"], _quota_2
        elif "cpu" in controllers.split(","):
            folders, quota_of = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"], _quota_1
        else:
            continue
        for folder in folders:  # the limits of all enclosing groups hold for a nested one
            group = folder / path.strip("/")
            found += [quota_of(part) for part in (group, *group.parents) if part.is_relative_to(folder)]
    return min((quota for quota in found if quota is not None), default=None)


def _quota_2(group: Path) -> float | None:
    """The quota of a version 2 group: `max 100000`, or the microseconds of CPU time and of the period."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_1(group: Path) -> float | None:
    """The quota of a version 1 group: -1, or microseconds of CPU time, with the period in a second file."""
    try:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = (int((group / name).read_text(encoding="utf-8")) for name in names)
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def default_threads() -> int:
    """Torch's default number of threads, capped by a container's quota and a Slurm task's cores, which it ignores."""
    import torch

    return min(torch.get_num_threads(), available_cores())


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables that limit a process to `threads`; set them before torch and NumPy are imported.

    NumPy's BLAS gets one thread: all work that gains from more is torch's.
    """
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}


ONE_THREAD = 30_000_000
"""Largest rows * parameters for which one thread is used. Up to here a second thread gains little if it has its own
core, and costs a factor of ten or more if it has not: torch's threads wait for each other after each operation
(measured)."""


def threads_for(rows: int, parameters: int) -> int:
    """How many torch threads pay off for passes of `rows` through a network with that many `parameters`."""
    import torch

    return 1 if rows * parameters <= ONE_THREAD else torch.get_num_threads()


class _OneThread:
    """Keeps NumPy's OpenBLAS on one thread while any thread is inside the block: the limit is process-wide."""

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController

        self._library, self._lock = ThreadpoolController().select(internal_api="openblas"), threading.Lock()
        self._inside, self._limit = 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit.enter_context(self._library.limit(limits=1))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library in self._library.lib_controllers:  # else only the thread that set the limit may lift it
                    library.clear_controlling_thread(force=True)  # pyright: ignore[reportAttributeAccessIssue]
                self._limit.close()


@cache
def _one_thread() -> _OneThread:
    return _OneThread()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Run torch on `number` threads inside the block, and NumPy's matrix products on one.

    Rollouts use one thread while environments step: a small batch gains nothing from a second one, which would compete
    with the simulator's threads (measured on 2 cores: inference of a rollout takes 0.02 s instead of 0.20 s).
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with _one_thread():  # as `thread_environment` does where it was applied
            yield
    finally:
        torch.set_num_threads(before)
