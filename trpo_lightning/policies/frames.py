"""Rows of images that share their frames: a stack of the last frames differs from the one before by one frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class FrameRows:
    """B observations, of which slices are made as they are needed: `rows[part]` is a tensor `[b, *shape]` of bytes.

    Has those of a tensor's methods that rules and value functions need. `frames` `[M, F]` are on the policy's device;
    row n consists of the frames `index[n]`, `[B, C]`, one after the other.
    """

    frames: Tensor
    index: Tensor
    shape_of_row: tuple[int, ...]

    def __post_init__(self) -> None:
        self.shape_of_row = tuple(self.shape_of_row)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        index = self.index[rows]
        return self.frames.index_select(0, index.reshape(-1)).view(len(index), *self.shape_of_row)

    def index_select(self, dim: int, rows: Tensor) -> "FrameRows":
        """The given rows, in their order; nothing is copied but the index."""
        return FrameRows(self.frames, self.index.index_select(dim, rows), self.shape_of_row)

    def split(self, size: int) -> Iterator[Tensor]:
        """Consecutive tensors of at most `size` rows."""
        return (self[slice(start, start + size)] for start in range(0, len(self), size))

    @property
    def shape(self) -> torch.Size:
        """That of a tensor which holds all rows."""
        return torch.Size((len(self), *self.shape_of_row))

    @property
    def device(self) -> torch.device:
        """The device that rows are made on."""
        return self.frames.device

    @property
    def dtype(self) -> torch.dtype:
        """That of the rows: bytes."""
        return self.frames.dtype


ObservationRows = Tensor | FrameRows
"""B observations `[B, *O]`."""


def in_precision(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Observations `[B, *O]` in the precision of a computation; bytes stay bytes, which networks scale themselves."""
    return rows if rows.dtype == torch.uint8 else rows.to(dtype)


def are_finite(rows: ObservationRows) -> bool:
    """Whether all numbers are finite; bytes are."""
    return rows.dtype == torch.uint8 or bool(torch.isfinite(rows).all())  # type: ignore[arg-type]
