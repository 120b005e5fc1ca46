"""Memory for batches that is used again, because touching new memory costs more than filling it."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64  # TensorFlow takes over what is so aligned, and copies anything else


def aligned(shape: Sequence[int]) -> np.ndarray:
    """An array of float32 that TensorFlow need not copy; it holds anything."""
    return np.frombuffer(_memory(4 * int(np.prod(shape))), np.float32).reshape(shape)


class Pool:
    """Arrays of one shape. One that nobody holds any more comes back, and is given out again.

    Whoever has a view of an array holds it: TensorFlow, too, for as long as a tensor lives that was
    made of it without a copy.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self._free: deque[memoryview] = deque()

    def take(self) -> np.ndarray:
        """An array that holds anything."""
        try:
            memory = self._free.popleft()
        except IndexError:
            memory = _memory(4 * int(np.prod(self._shape)))
        # NumPy has every view of a view refer to the first array of all, which is this one: it does
        # not own its memory, but there is no array below it.
        lent = np.frombuffer(memory, np.float32)
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return lent.reshape(self._shape)


def _memory(size: int) -> memoryview:
    """So many bytes, aligned."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].data
