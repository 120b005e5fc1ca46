"""What is still to be sent to one node. A node that does not read holds up nobody."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from launcher.errors import NodeError

# More than all that a run says to a node. Past it, the node does not read.
_MOST_BYTES = 32 << 20
_PIECE_BYTES = 64 << 10


class Outbox:
    """Bytes for one node, sent in their order by a thread that lives while there are any."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._pieces: deque[memoryview] = deque()
        self._bytes = 0
        self._send: Callable[[bytes], None] | None = None
        self._is_sending = False
        self._since = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether all has been sent."""
        return not self._is_sending

    @property
    def stuck_seconds(self) -> float:
        """For how long the node has taken nothing of what there is for it."""
        with self._lock:
            return self._clock() - self._since if self._is_sending else 0.0

    def open(self, send: Callable[[bytes], None], first: bytes) -> None:
        """From now on, send; `first` goes ahead. What was put before is dropped."""
        self._send = send
        self.put(first)

    def put(self, data: bytes) -> bool:
        """Have `data` sent, and do not wait for it. False when too much is waiting already."""
        with self._lock:
            if self._send is None:
                return True
            if self._bytes + len(data) > _MOST_BYTES:
                return False
            view = memoryview(data)
            self._pieces += [view[i : i + _PIECE_BYTES] for i in range(0, len(view), _PIECE_BYTES)]
            self._bytes += len(data)
            if self._is_sending:
                return True
            self._is_sending, self._since = True, self._clock()
        thread = threading.Thread(target=self._run, name=f"{self._name} sending", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # this machine has no more threads
            return False
        return True

    def _run(self) -> None:
        """Send until there is nothing left. A lost connection is told by its reader, not here."""
        with suppress(NodeError):
            while (piece := self._next()) is not None:
                assert self._send is not None  # noqa: S101 - put() has looked
                self._send(bytes(piece))
            return
        with self._lock:
            self._send = None
            self._pieces.clear()
            self._is_sending = False

    def _next(self) -> memoryview | None:
        with self._lock:
            if not self._pieces:
                self._is_sending = False
                return None
            self._since = self._clock()
            piece = self._pieces.popleft()
            self._bytes -= len(piece)
            return piece
