"""How observations are stored: vectors of numbers, images of bytes, or both packed into one row of bytes.

Rows of images share their frames: a stack of the last frames differs from the one before by one frame.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...] | tuple[tuple[int, ...], ...]
"""The shape of one observation: `(O,)` for a vector, three numbers for an image; for a mixture the shapes of its images
and, at the end, that of its vector."""

Rows = TypeVar("Rows", np.ndarray, Tensor)


@dataclass(frozen=True)
class Image:
    """An image of bytes; the smaller one of the first and the last axis is that of its channels."""

    shape: tuple[int, ...]

    @property
    def channels_last(self) -> bool:
        """Whether the channels are the last axis."""
        return self.shape[2] < self.shape[0]

    @property
    def channels(self) -> int:
        """The number of channels, which stacked frames are, too."""
        return min(self.shape[0], self.shape[2])

    @property
    def height_and_width(self) -> tuple[int, int]:
        """The size of one channel."""
        return self.shape[:2] if self.channels_last else self.shape[1:]  # type: ignore[return-value]

    @property
    def size(self) -> int:
        """The number of bytes."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        height, width = self.height_and_width
        where = "last" if self.channels_last else "first"
        return f"image of {height} x {width} with {self.channels} channel{'s'[: self.channels != 1]} ({where})"


@dataclass(frozen=True)
class Layout:
    """The parts of one observation.

    A vector alone is a row of its numbers, an image alone has its own shape, both of any dtype. A mixture is a row of
    bytes: those of the images, then those of the vector's float32 numbers.
    """

    images: tuple[Image, ...]
    vector: int

    @classmethod
    def of(cls, shape: Shape) -> "Layout":
        """The layout of observations of this shape."""
        if shape and isinstance(shape[0], tuple):
            *images, vector = shape
            return cls(tuple(Image(image) for image in images), vector[0])  # type: ignore[index, arg-type]
        if len(shape) == 3:
            return cls((Image(shape),), 0)  # type: ignore[arg-type]
        return cls((), math.prod(shape))  # type: ignore[arg-type]

    @classmethod
    def of_record(cls, record: list) -> "Layout":
        """The layout of a shape that a file holds, with lists for tuples."""
        return cls.of(tuple(tuple(part) if isinstance(part, list | tuple) else part for part in record))

    @property
    def shape(self) -> Shape:
        """The inverse of `of`, except that a vector has one axis."""
        if not self.images:
            return (self.vector,)
        images = tuple(image.shape for image in self.images)
        return images[0] if len(images) == 1 and not self.vector else (*images, (self.vector,))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape in which one observation is stored."""
        if self.is_packed:
            return (self.image_bytes + 4 * self.vector,)
        return self.images[0].shape if self.images else (self.vector,)

    @property
    def dtype(self) -> type:
        """The type of the numbers that policies see in a row."""
        return np.uint8 if self.images else np.float32

    @property
    def is_packed(self) -> bool:
        """Whether a row holds several parts."""
        return bool(self.images) and (len(self.images) > 1 or self.vector > 0)

    @property
    def image_bytes(self) -> int:
        """The bytes of all images."""
        return sum(image.size for image in self.images)

    def pack(self, images: list[np.ndarray], vector: np.ndarray) -> np.ndarray:
        """Rows `[N, *row_shape]` of the parts `[N, ...]`, where there are images."""
        if not self.is_packed:
            return images[0]
        numbers = np.ascontiguousarray(vector, dtype=np.float32).view(np.uint8)
        return np.concatenate([*(image.reshape(len(image), -1) for image in images), numbers], axis=1)

    def vectors(self, rows: Rows) -> Rows:
        """The vectors `[..., V]` in rows `[..., *row_shape]`; of packed rows as float32."""
        if not self.images:
            return rows
        if not self.is_packed:
            return rows[..., 0, 0, :0]
        numbers = rows[..., self.image_bytes :]
        if isinstance(numbers, Tensor):
            return numbers.clone(memory_format=torch.contiguous_format).view(torch.float32)  # aligned, one row, too
        return np.ascontiguousarray(numbers).view(np.float32)

    def pictures(self, rows: Tensor) -> list[Tensor]:
        """The images in rows `[B, *row_shape]`, each `[B, channels, height, width]`, still of bytes."""
        if not self.is_packed:
            parts = [rows]
        else:
            ends = [*np.cumsum([image.size for image in self.images])]
            starts = [0, *ends[:-1]]
            parts = [
                rows[:, start:end].reshape(-1, *image.shape)
                for image, start, end in zip(self.images, starts, ends, strict=True)
            ]
        pairs = zip(self.images, parts, strict=True)
        return [part.movedim(-1, 1) if image.channels_last else part for image, part in pairs]


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
