"""The other ranks of a run: started and watched by the first one, or found where torchrun has started them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import IO, Any

import torch
import torch.distributed as dist

from trpo_lightning.errors import UserError
from trpo_lightning.ranks import ONE, DistributedRanks, RankError, Ranks, torchrun_place
from trpo_lightning.settings import RunSettings
from trpo_lightning.stopping import OWN_GROUP
from trpo_lightning.threads import available_cores, thread_environment

HERE = "127.0.0.1"
SILENCE = timedelta(minutes=30)
"""How long a rank waits for the slowest one. One that dies closes its connections, and is noticed at once."""
START = timedelta(minutes=5)
"""How long ranks may take to import torch and to find each other."""
LAST_WORDS = 5.0
"""Seconds that a rank which others have lost gets to say why."""
POLL = 0.05


@contextmanager
def all_ranks(settings: RunSettings) -> Iterator[Ranks]:
    """The ranks of a run with these settings, as the first of them sees them; they end with the block.

    Raises:
        UserError: There are not as many processes or GPUs as `devices` says.
        RankError: Another rank has died; the message is its own, or says what killed it.
    """
    if settings.devices == 1:
        yield ONE
        return
    place = torchrun_place()
    if place is not None:
        if place[0] > 0:
            raise UserError(f"devices={settings.devices}: torchrun starts the ranks of `train` only")
        with group_of_torchrun(settings, place) as ranks:
            yield ranks
        return
    check_gpus(settings, settings.devices)
    with _Followers(settings) as followers:
        yield followers.ranks


@contextmanager
def group_of_torchrun(settings: RunSettings, place: tuple[int, int, int]) -> Iterator[Ranks]:
    """This process among those that torchrun has started; `place` is what `torchrun_place` returned."""
    _, size, here = place
    if size != settings.devices:
        raise UserError(f"devices={settings.devices}, but torchrun has started {size} processes: say devices={size}")
    check_gpus(settings, here)
    with process_group(settings.device, init_method="env://"):
        yield DistributedRanks(here)


@contextmanager
def process_group(device: str, **where: Any) -> Iterator[None]:
    """Torch's default process group inside the block; tensors on a GPU go through NCCL, all others through Gloo.

    Imported inside the block, these functions would keep the group in their default arguments: its threads would
    outlive the block, and now and then abort the process at its end.
    """
    import torch.distributed.fsdp.sharded_grad_scaler
    import torch.distributed.nn.functional

    if device == "gpu":
        torch.cuda.set_device(local_rank())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "gpu" else "gloo", timeout=SILENCE, **where)
    except (RuntimeError, ValueError) as error:
        raise RankError(f"the ranks cannot find each other: {' '.join(str(error).split())[:200]}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def local_rank() -> int:
    """The number of this rank among those on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def check_gpus(settings: RunSettings, here: int) -> None:
    """Refuse more ranks on this machine than it has GPUs, if each needs one. Raises `UserError`."""
    if settings.device == "gpu" and torch.cuda.device_count() < here:
        raise UserError(
            f"device=gpu: {here} ranks on this machine need a GPU each, and it has {torch.cuda.device_count()}: "
            f"use devices={max(1, torch.cuda.device_count())}"
        )


class _Followers:
    """Starts ranks 1, 2, ... on this machine, each with its share of the cores, and ends them with the block."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings, self.size = settings, settings.devices
        self._processes: dict[int, subprocess.Popen] = {}
        self._said: dict[int, IO[bytes]] = {}

    def __enter__(self) -> "_Followers":
        try:
            store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
                HERE, 0, self.size, is_master=True, wait_for_workers=False, timeout=START
            )
            for rank in range(1, self.size):
                self._start(rank, store.port)
            self._wait_for(store)
            self._group = process_group(self.settings.device, store=store, rank=0, world_size=self.size)
            self._group.__enter__()
        except BaseException:
            self._kill()
            raise
        self.ranks = DistributedRanks(self.size, self.check)
        return self

    def _start(self, rank: int, port: int) -> None:
        cores = (self.settings.threads or available_cores()) // self.size
        environment = {
            **os.environ,
            **thread_environment(max(1, cores)),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),  # to find what this process finds
            "LOCAL_RANK": str(rank),
        }
        place = [str(rank), str(self.size), str(port), self.settings.device]
        self._said[rank] = tempfile.TemporaryFile()
        self._processes[rank] = subprocess.Popen(
            [sys.executable, "-m", "trpo_lightning.runs.ranks.follow", *place],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said[rank],
            **OWN_GROUP,
        )

    def _wait_for(self, store: Any) -> None:
        """Wait until all ranks have announced themselves."""
        latest = time.monotonic() + START.total_seconds()
        while not store.check([announcement(rank) for rank in self._processes]):
            self.check()
            if time.monotonic() > latest:
                raise RankError(f"not all of {self.size} ranks have started within {START}")
            time.sleep(POLL)

    def check(self) -> None:
        """Raise `RankError` if a rank has ended."""
        if any(process.poll() is not None for process in self._processes.values()):
            raise RankError(self._why())

    def _why(self) -> str:
        """What the rank that ended first said, or what killed it; those that only lost others end with exit code 1."""
        latest = time.monotonic() + LAST_WORDS
        while time.monotonic() < latest and all(process.poll() in (None, LOST) for process in self._processes.values()):
            time.sleep(POLL)
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        ended = {rank: code for rank, code in codes.items() if code is not None}
        rank = next((rank for rank, code in ended.items() if code != LOST), min(ended))
        code = ended[rank]
        if code < 0:
            return f"rank {rank} of {self.size} was killed by {signal.Signals(-code).name}"
        said = self._said[rank]
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        last = lines[-1][:500] if lines else "it said nothing"
        if last.startswith("error: "):
            return f"rank {rank} of {self.size}: {last.removeprefix('error: ')}"
        return f"rank {rank} of {self.size} ended with exit code {code}: {last}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        try:
            if kind is None:
                with suppress(subprocess.TimeoutExpired):
                    for process in self._processes.values():
                        process.wait(timeout=LAST_WORDS)
            elif isinstance(error, RankError):
                self._explain(error)
        finally:
            self._kill()
            self._group.__exit__(None, None, None)

    def _explain(self, error: RankError) -> None:
        """Raise what another rank said instead of the mere loss of it, if it ends soon."""
        latest = time.monotonic() + LAST_WORDS
        while time.monotonic() < latest:
            if any(process.poll() is not None for process in self._processes.values()):
                raise RankError(self._why()) from error
            time.sleep(POLL)

    def _kill(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        for file in self._said.values():
            file.close()


LOST = 86
"""Exit code of a rank that has lost others: not the one that died."""


def announcement(rank: int) -> str:
    """The key under which a rank says that it has started."""
    return f"rank {rank} is here"
