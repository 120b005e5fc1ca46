"""Memory for batches that is used again, because touching new memory costs more than filling it."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64  # TensorFlow takes over what is so aligned, and copies anything else


def aligned(shape: Sequence[int]) -> np.ndarray:
    """An array of float32 that TensorFlow need not copy; it holds anything."""
    size = 4 * int(np.prod(shape))
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


class Pool:
    """Arrays of one shape. One that nobody holds any more comes back, and is given out again.

    TensorFlow holds the very array that it is given for as long as a tensor of it lives, and lets
    it go when that is gone. Views of an array do not hold it: they must not outlive it.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self._free: deque[np.ndarray] = deque()

    def take(self) -> np.ndarray:
        """An array that holds anything."""
        try:
            memory = self._free.popleft()
        except IndexError:
            memory = aligned(self._shape)
        lent = memory.view()
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return lent
