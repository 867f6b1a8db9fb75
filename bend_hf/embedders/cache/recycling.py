"""Memory for batches that is used again: filling fresh memory is several times slower than copying into used memory.

>>> recycler = Recycler()
>>> first = recycler.empty((4,), np.dtype(np.float32))
>>> address = first.ctypes.data
>>> del first; recycler.empty((2,), np.dtype(np.float16)).ctypes.data == address
True
"""

from __future__ import annotations

import sys
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_KEPT: Final = 8  # batches that may be on their way at once; more are served from fresh memory


def _references(buffers: list[NDArray[np.uint8]], place: int) -> int:
    """How often a buffer is referred to, this list included."""
    return sys.getrefcount(buffers[place])


_UNUSED: Final = _references([np.empty(0, np.uint8)], 0)  # what Python counts for a buffer that nobody else has


class Recycler:
    """Gives arrays; takes their memory back when no array or tensor refers to it any more."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array with arbitrary content."""
        n_bytes = prod(shape) * dtype.itemsize
        return self._buffer(n_bytes)[:n_bytes].view(dtype).reshape(shape)

    def _buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        small = None
        for place in range(len(self._buffers)):
            if _references(self._buffers, place) == _UNUSED:
                if len(self._buffers[place]) >= n_bytes:
                    return self._buffers[place]
                small = place
        fresh = np.empty(n_bytes + n_bytes // 4, np.uint8)
        if small is not None:
            self._buffers[small] = fresh
        elif len(self._buffers) < _KEPT:
            self._buffers.append(fresh)
        return fresh
