"""Observations of whole sequences: what models with a memory take, where others take rows `[B, *O]`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from trpo_lightning.errors import UserError
from trpo_lightning.numerics.curvature import row_slices
from trpo_lightning.policies.observations import ObservationRows, in_precision


@dataclass(frozen=True)
class Packing:
    """The steps of sequences in the order in which a recurrent layer runs over them, the longest sequence first.

    Between the ends of two sequences, all that go on form a rectangle of steps and sequences, which one call of a fused
    kernel takes: there is no padding, and no mask.
    """

    order: Tensor
    """`[R]`: the row of each packed step."""
    inverse: Tensor
    """`[R]`: the packed step of each row."""
    ranks: Tensor
    """`[S]`: the sequences from the longest to the shortest."""
    rectangles: list[tuple[int, int]]
    """(steps, sequences) of each rectangle, in order of time."""


@dataclass(frozen=True)
class Sequences:
    """S sequences of observations, one after the other, each in order of time and from a state of memory of its own.

    A model gives a row of outputs for each row, or only for those that `counted` names: the others are what memory
    needs. `len`, a slice and an index are those of the rows that count. An episode's end is a sequence's end.
    """

    observations: ObservationRows
    """`[R, *O]`: all rows."""
    lengths: Tensor
    """`[S]`: integers, on the CPU."""
    states: Tensor
    """`[S, M]`: the memory before the first row, a constant."""
    counted: Tensor | None = None
    """`[B]`: rows that count, in ascending order, on the CPU; None is all of them."""

    def __len__(self) -> int:
        return len(self.observations) if self.counted is None else len(self.counted)

    @property
    def device(self) -> torch.device:
        """Where the observations are."""
        return self.observations.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of what is computed from them."""
        return self.states.dtype

    def to(self, dtype: torch.dtype) -> "Sequences":
        """The same sequences in another precision; images stay bytes."""
        if dtype == self.dtype:
            return self
        observations = self.observations
        if isinstance(observations, Tensor):
            observations = in_precision(observations, dtype)
        return replace(self, observations=observations, states=self.states.to(dtype))

    def __getitem__(self, rows: slice | Tensor) -> "Sequences":
        """The sequences of rows that count. Raises `UserError` if these are not whole sequences."""
        owners = self._owners[rows.cpu() if isinstance(rows, Tensor) else rows]
        chosen, counts = torch.unique_consecutive(owners, return_counts=True)
        if not torch.equal(counts, self.counts[chosen]):
            raise UserError(
                "a policy or value function with a memory needs whole sequences, not single rows of the batch: cut it "
                "where trpo_lightning.policies.sequences.row_parts does"
            )
        return self if len(chosen) == len(self.lengths) and _ascending(chosen) else self.take(chosen)

    def take(self, chosen: Tensor) -> "Sequences":
        """The sequences with these indices `[K]` (on the CPU), in this order."""
        lengths = self.lengths[chosen]
        rows = _ranges(self._starts[chosen], lengths)
        counted = None
        if self.counted is not None:
            marked = torch.zeros(len(self.observations), dtype=torch.bool)
            marked[self.counted] = True
            counted = marked[rows].nonzero()[:, 0]
        at = rows.to(self.device)
        return Sequences(self.observations.index_select(0, at), lengths, self.states[chosen.to(self.device)], counted)

    def rows_of(self, chosen: Tensor) -> Tensor:
        """The rows that count of the sequences with these indices, in their order."""
        return _ranges((self.counts.cumsum(0) - self.counts)[chosen], self.counts[chosen])

    def parts(self, chunk: int) -> list[slice]:
        """Slices of the rows that count, each of whole sequences and of at most `chunk` steps, or of one sequence."""
        return list(self._parts(chunk))

    def _parts(self, chunk: int) -> Iterator[slice]:
        begin = end = steps = 0
        for length, count in zip(self.lengths.tolist(), self.counts.tolist(), strict=True):
            if end > begin and steps + length > chunk:
                yield slice(begin, end)
                begin, steps = end, 0
            end, steps = end + count, steps + length
        if end > begin:
            yield slice(begin, end)

    @cached_property
    def counts(self) -> Tensor:
        """How many rows of each sequence count, `[S]`; at least one."""
        if self.counted is None:
            return self.lengths
        return torch.bincount(self._owners, minlength=len(self.lengths))

    @cached_property
    def _starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def _owners(self) -> Tensor:
        """The sequence of each row that counts, `[B]`."""
        owners = torch.repeat_interleave(torch.arange(len(self.lengths)), self.lengths)
        return owners if self.counted is None else owners[self.counted]

    @cached_property
    def packing(self) -> Packing:
        """How a recurrent layer runs over the sequences."""
        lengths, ranks = self.lengths.sort(descending=True, stable=True)
        ends, dropped = torch.unique_consecutive(lengths.flip(0), return_counts=True)
        counts = len(lengths) - (dropped.cumsum(0) - dropped)
        begins = torch.cat([ends.new_zeros(1), ends[:-1]])
        starts, order, rectangles = self._starts[ranks], [], []
        for begin, end, count in zip(begins.tolist(), ends.tolist(), counts.tolist(), strict=True):
            order.append((torch.arange(begin, end)[:, None] + starts[:count]).flatten())
            rectangles.append((end - begin, count))
        packed = torch.cat(order)
        inverse = torch.empty_like(packed)
        inverse[packed] = torch.arange(len(packed))
        return Packing(packed.to(self.device), inverse.to(self.device), ranks.to(self.device), rectangles)


Observations = ObservationRows | Sequences
"""What policies and value functions take: rows `[B, *O]`, or sequences if they have a memory."""


def row_parts(observations: Observations, chunk: int) -> list[slice]:
    """Consecutive slices of at most `chunk` rows that cover all rows; of whole sequences for a model with a memory."""
    return observations.parts(chunk) if isinstance(observations, Sequences) else row_slices(len(observations), chunk)


def rows_of(observations: Observations) -> ObservationRows:
    """All observations as rows, in whatever order."""
    return observations.observations if isinstance(observations, Sequences) else observations


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """start, start + 1, ... start + length - 1 of each range, one after the other."""
    offsets = torch.arange(int(lengths.sum())) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    return torch.repeat_interleave(starts, lengths) + offsets


def _ascending(chosen: Tensor) -> bool:
    return bool((chosen == torch.arange(len(chosen))).all())
