"""The processes (ranks) that train one run together: what they tell each other, and which rows of a batch each holds.

Each rank steps its share of the environments and holds their rows; a sum over rows becomes a sum over all ranks, by an
explicit all-reduce. One rank alone is the rule: every operation then returns its argument, bit for bit.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.errors import UserError

T = TypeVar("T")


class RankError(UserError):
    """Another rank has died or cannot be reached, or ranks have drifted apart: the run has failed."""

    exit_code = 1


class Ranks:
    """A process without others. `DistributedRanks` has the same methods, which all ranks call in the same order."""

    index = 0
    size = 1
    on_this_machine = 1
    """How many ranks share this machine's cores."""

    def sum_(self, x: Tensor) -> Tensor:
        """The sum of all ranks' tensors, written into `x`."""
        return x

    def sum(self, x: T) -> T:
        """The sum of all ranks' tensors, or of their numbers, which are then float64."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """The tensors of all ranks, which have one shape: `[ranks, ...]`."""
        return x[None]

    def objects(self, x: T) -> list[T]:
        """The objects of all ranks, pickled for the way."""
        return [x]

    def of_first(self, x: T) -> T:
        """The object of rank 0, pickled for the way."""
        return x

    def largest(self, x: float) -> float:
        """The largest of all ranks' numbers; NaN if one is NaN."""
        return x

    def all(self, yes: bool) -> bool:
        """Whether it is so on all ranks."""
        return yes

    def check(self) -> None:
        """Raise `RankError` if another rank is known to have died; takes a microsecond, and talks to nobody."""

    @contextmanager
    def together(self, kind: type[Exception]) -> Iterator[None]:
        """Let an exception of this kind that one rank raises in the block be raised by all of them."""
        yield

    def check_versions(self) -> None:
        """Raise `UserError` if ranks have other versions of Python, torch, NumPy or this package."""

    def check_same(self, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Raise `RankError` if tensors that must be the same on all ranks differ in a bit."""

    def measure(self) -> dict[str, float]:
        """Metrics of the exchanges since the last call; none of a rank alone."""
        return {}

    def environments(self, number: int) -> range:
        """The global indices of this rank's environments, of `number` in all."""
        each = number // self.size
        return range(self.index * each, (self.index + 1) * each)


ONE = Ranks()


class DistributedRanks(Ranks):
    """The ranks of torch's default process group.

    Args:
        on_this_machine: How many ranks share this machine's cores.
        check: Raises `RankError` if another rank is known to have died.
    """

    def __init__(self, on_this_machine: int, check: Callable[[], None] | None = None) -> None:
        import torch.distributed as dist

        self.index, self.size = dist.get_rank(), dist.get_world_size()
        self.on_this_machine = on_this_machine
        self.seconds = 0.0
        """Time spent in all-reduces and so on, waits for other ranks included."""
        self.calls = self.bytes = 0
        self._check = check
        of_cpu = "cpu:" in str(dist.get_backend_config())  # NCCL alone takes no tensors on the CPU
        self._device = None if of_cpu else torch.device("cuda", torch.cuda.current_device())

    def measure(self) -> dict[str, float]:
        found = {"ranks/seconds": self.seconds, "ranks/exchanges": self.calls, "ranks/megabytes": self.bytes / 1e6}
        self.seconds, self.calls, self.bytes = 0.0, 0, 0
        return found

    def check(self) -> None:
        if self._check is not None:
            self._check()

    @contextmanager
    def _talk(self, bytes_sent: int = 0) -> Iterator[None]:
        """Count an exchange, and turn what torch raises when another rank is gone into one line."""
        began = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            self.check()
            reason = " ".join(str(error).split())
            raise RankError(f"rank {self.index} of {self.size} has lost the others: {reason[:200]}") from error
        self.seconds += time.perf_counter() - began
        self.calls += 1
        self.bytes += bytes_sent

    def _placed(self, x: Tensor) -> Tensor:
        return x if self._device is None or x.device.type == "cuda" else x.to(self._device)

    def sum_(self, x: Tensor) -> Tensor:
        import torch.distributed as dist

        sent = self._placed(x)
        with self._talk(sent.numel() * sent.element_size()):
            dist.all_reduce(sent)
        return x if sent is x else x.copy_(sent)

    def sum(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return self.sum_(x.detach().clone())
        return float(self.sum_(torch.tensor(float(x), dtype=torch.float64)))

    def gather(self, x: Tensor) -> Tensor:
        import torch.distributed as dist

        sent = self._placed(x.detach().contiguous())
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        with self._talk(sent.numel() * sent.element_size()):
            dist.all_gather(parts, sent)
        return torch.stack(parts).to(x.device)

    def objects(self, x: Any) -> list[Any]:
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with self._talk():
            dist.all_gather_object(found, x)
        return found

    def of_first(self, x: Any) -> Any:
        import torch.distributed as dist

        found = [x if self.index == 0 else None]
        with self._talk():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def largest(self, x: float) -> float:
        return float(self.gather(torch.tensor(float(x), dtype=torch.float64)).max())

    def all(self, yes: bool) -> bool:
        return self.sum(float(not yes)) == 0.0

    @contextmanager
    def together(self, kind: type[Exception]) -> Iterator[None]:
        failure: Exception | None = None
        try:
            yield
        except kind as error:
            failure = error
        if self.all(failure is None):
            return
        told = [text for text in self.objects(None if failure is None else str(failure)) if text is not None]
        raise failure or kind(told[0])

    def check_versions(self) -> None:
        for rank, found in enumerate(versions := self.objects(_versions())):
            for name, version in found.items():
                if version != versions[0][name]:
                    raise UserError(
                        f"rank {rank} has {name} {version}, rank 0 has {versions[0][name]}: install the same"
                    )

    def check_same(self, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        named = {name: x.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for name, x in tensors().items()}
        found = self.gather(torch.tensor([zlib.crc32(x.numpy().data) for x in named.values()], dtype=torch.int64))
        if not torch.equal(found, found[:1].expand_as(found)):
            different = [name for name, column in zip(named, found.T, strict=True) if len(column.unique()) > 1]
            raise RankError(
                f"rank {self.index} of {self.size}: ranks have drifted apart in {', '.join(different)[:200]}: they "
                "need processors, devices and versions of one kind"
            )


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "trpo_lightning")}
    return {"Python": platform.python_version(), **packages}


@dataclass(frozen=True)
class Share:
    """The rows of a batch that this rank holds, among those of all ranks.

    The order of all rows is that of one rank with all environments: time first, then environments.

    Args:
        count: The number of all ranks' rows.
        ranks: Who holds them.
        places: `[rows held here]`, the number of each among all, ascending; None if all are held here.
    """

    count: int
    ranks: Ranks = ONE
    places: Tensor | None = None

    @classmethod
    def of_slots(cls, valid: np.ndarray, ranks: Ranks) -> Share:
        """The share of the valid slots of a rollout, `[T, environments held here]`; T may differ between ranks."""
        if ranks.size == 1:
            return cls(int(valid.sum()), ranks)
        packed = ranks.objects((valid.shape, np.packbits(valid)))
        masks = [np.unpackbits(bits, count=rows * columns).reshape(rows, columns) for (rows, columns), bits in packed]
        longest = max(map(len, masks))
        slots = np.concatenate([np.pad(mask, ((0, longest - len(mask)), (0, 0))) for mask in masks], axis=1)
        numbers = (np.cumsum(slots, dtype=np.int64) - 1).reshape(slots.shape)
        first = sum(mask.shape[1] for mask in masks[: ranks.index])
        places = numbers[: len(valid), first : first + valid.shape[1]][valid]
        return cls(int(slots.sum()), ranks, torch.from_numpy(places))

    def sum(self, total: T) -> T:
        """From the sum over the rows held here to that over all."""
        return self.ranks.sum(total)

    def mean(self, total: T) -> T:
        """From the sum over the rows held here to the mean over all."""
        return self.ranks.sum(total) / self.count  # type: ignore[operator]

    def all(self, yes: bool) -> bool:
        """Whether it is so for the rows of all ranks."""
        return self.ranks.all(yes)

    def whole(self, *columns: Tensor) -> list[Tensor]:
        """The rows of all ranks, `[count, ...]` on the CPU, in the order in which one rank would have them."""
        if self.places is None:
            return [column.cpu() for column in columns]
        found = self.ranks.objects([column.cpu() for column in (self.places, *columns)])
        places, *parts = (torch.cat(of_ranks) for of_ranks in zip(*found, strict=True))
        order = places.argsort()
        return [part[order] for part in parts]

    def held(self, order: Tensor) -> Tensor | None:
        """Which places in `order`, row numbers among all, are rows held here; None for all."""
        if self.places is None:
            return None
        here = torch.zeros(self.count, dtype=torch.bool)
        here[self.places] = True
        return here[order].nonzero()[:, 0]

    def rows(self, order: Tensor) -> Tensor:
        """Of row numbers `order` among all, those held here, in this order, as row numbers here."""
        if self.places is None:
            return order
        here = torch.full((self.count,), -1)
        here[self.places] = torch.arange(len(self.places))
        found = here[order]
        return found[found >= 0]

    def minibatches(self, order: Tensor, size: int) -> list[tuple[slice, int]]:
        """For each `size` of the row numbers in `order`: the slice of `rows(order)` that is held here, and its length.

        The length is that over all ranks: of all minibatches the same, but for the last.
        """
        ends = [*range(size, self.count, size), self.count]
        held = self.held(order)
        cuts = ends if held is None else torch.searchsorted(held, torch.tensor(ends)).tolist()
        starts = [0, *cuts[:-1]]
        lengths = [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        return [(slice(a, b), n) for a, b, n in zip(starts, cuts, lengths, strict=True)]


def torchrun_place() -> tuple[int, int, int] | None:
    """(rank, ranks, ranks on this machine) if `torchrun` or another elastic agent started this process, else None."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    if not all(os.environ.get(name, "").isdigit() for name in (*names, "MASTER_PORT")):
        return None
    rank, size, local = (int(os.environ[name]) for name in names)
    return rank, size, local
