"""Observations with images during a rollout: each frame of a stack is stored once."""

import numpy as np
import torch
from numpy.typing import DTypeLike

from trpo_lightning.policies.observations import FrameRows, Layout

GROWTH = 1.25
"""Factor by which the store grows when it is full."""


class FrameStore:
    """Observations `[T + 1, N, *O]` of bytes, in place of an array of that shape.

    Where an image is a stack (channels first), a step shifts the frames by one and adds a new one. Only what is new is
    stored; whether the others have been shifted is compared byte by byte, so nothing else is assumed of the
    environment. Whatever is not shifted, such as an episode's first stack, is stored whole.

    Args:
        steps: T + 1, the most rows.
        num_envs: N.
        layout: What an observation consists of.
    """

    def __init__(self, steps: int, num_envs: int, layout: Layout) -> None:
        self._shape = layout.row_shape
        self._frames_per_row = _frames_per_row(layout)
        size = int(np.prod(self._shape)) // self._frames_per_row
        capacity = num_envs * (steps + 8 * self._frames_per_row)
        self._frames = np.empty((capacity, size), dtype=layout.dtype)
        self._index = np.zeros((steps, num_envs, self._frames_per_row), dtype=np.int64)
        self._used = 0
        self._last = np.zeros((num_envs, self._frames_per_row, size), dtype=layout.dtype)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """The bytes in use."""
        return self._used * self._frames.shape[1] + self._index.nbytes

    def put(self, t: int, rows: np.ndarray) -> None:
        """Store the observations `[N, *O]` before step t; steps come in order."""
        frames = rows.reshape(self._last.shape)
        shifted = np.zeros(len(rows), dtype=bool)
        if t and self._frames_per_row > 1:
            shifted = (_words(frames)[:, :-1] == _words(self._last)[:, 1:]).all(axis=(1, 2))
        self._index[t, shifted, :-1] = self._index[t - 1, shifted, 1:]
        self._index[t, shifted, -1] = self._add(frames[shifted, -1])
        self._index[t, ~shifted] = self._add(frames[~shifted].reshape(-1, frames.shape[2])).reshape(-1, frames.shape[1])
        self._last[:] = frames

    def _add(self, frames: np.ndarray) -> np.ndarray:
        """Store frames `[M, F]`; returns their numbers."""
        end = self._used + len(frames)
        if end > len(self._frames):
            self._frames.resize((int(GROWTH * end), frames.shape[1]), refcheck=False)
        self._frames[self._used : end] = frames
        numbers = np.arange(self._used, end)
        self._used = end
        return numbers

    def first(self, steps: int) -> "FrameStore":
        """The store cut to its first rows."""
        self._index = self._index[:steps]
        return self

    def __getitem__(self, slots: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Observations `[S, *O]` of the slots (t, n), each `[S]`."""
        index = self._index[slots]
        return self._frames[index.reshape(-1)].reshape(len(index), *self._shape)

    def rows(self, valid: np.ndarray | None, device: torch.device) -> FrameRows:
        """All observations, or those of the valid slots `[T, N]`, time-major, with their frames on `device`."""
        index = self._index.reshape(-1, self._frames_per_row) if valid is None else self._index[: len(valid)][valid]
        return FrameRows(self._on(device), torch.from_numpy(index).to(device), self._shape)

    def rows_at(self, steps: np.ndarray, envs: np.ndarray, device: torch.device) -> FrameRows:
        """The observations of some slots, as `rows`."""
        return FrameRows(self._on(device), torch.from_numpy(self._index[steps, envs]).to(device), self._shape)

    def _on(self, device: torch.device) -> torch.Tensor:
        if getattr(self, "_moved", None) is None or self._moved.device != device:
            self._moved = torch.from_numpy(self._frames[: self._used]).to(device)
        return self._moved


def bytes_of_images(layout: Layout) -> int:
    """Bytes that a step's images take in a store, if no episode begins; three channels may be colours, not a stack."""
    frames = _frames_per_row(layout) if layout.images else 1
    return layout.image_bytes // (1 if frames == 3 else frames)


def _frames_per_row(layout: Layout) -> int:
    stacked = not layout.is_packed and not layout.images[0].channels_last
    return layout.images[0].channels if stacked else 1


def _words(frames: np.ndarray) -> np.ndarray:
    """The same bytes in fewer numbers, where their count allows it: faster to compare."""
    return frames.view(np.int64) if frames.shape[-1] % 8 == 0 and frames.flags.c_contiguous else frames


def observation_store(
    steps: int, num_envs: int, layout: Layout, dtype: DTypeLike = np.float32
) -> "np.ndarray | FrameStore":
    """Room for observations `[steps, N, *O]` as the policy sees them."""
    if layout.images:
        return FrameStore(steps, num_envs, layout)
    return np.empty((steps, num_envs, *layout.row_shape), dtype=dtype)
