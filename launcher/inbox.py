"""What the nodes say, on its way to the one thread that acts on it: a queue with a bound.

Each node has a share of the room. A node that says more than is taken waits in its own reader
thread, and by that in its own connection, until its share is free again; no other node waits for
it. A message that is larger than a whole share waits until few others of that kind are held.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

# Bytes of lines, all nodes together. What is decoded of them may take twenty times as much.
_ROOM_BYTES = 16 << 20
_LEAST_SHARE_BYTES = 16 << 10
# What a decoded message takes besides its text.
_MESSAGE_BYTES = 500
# A signal that comes just before a wait begins is heard of when that wait ends.
ONE_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Event:
    """Something that came from a node: a message, or the error that ended its connection."""

    node: int
    what: object


class Inbox:
    """Events of `nodes` nodes. One thread takes them; each node has one thread that brings them."""

    def __init__(self, nodes: int) -> None:
        self._share = max(_LEAST_SHARE_BYTES, _ROOM_BYTES // max(1, nodes))
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._events: deque[tuple[Event, int]] = deque()
        self._held = [0] * nodes
        self._held_large = 0
        self._waiting: dict[int, threading.Condition] = {}
        self._closed = False

    def reserve(self, node: int, line_bytes: int) -> int:
        """Wait until there is room for a line of this node; returns what `put` has to be told.

        To be called before the line is decoded, so that this is bounded too.
        """
        size = line_bytes + _MESSAGE_BYTES
        with self._lock:
            while not self._closed and not self._has_room(node, size):
                condition = self._waiting.setdefault(node, threading.Condition(self._lock))
                condition.wait()
            self._waiting.pop(node, None)
            self._count(node, size)
        return size

    def put(self, event: Event, reserved: int = 0) -> None:
        """Add an event, in the room that was reserved for it. Never waits."""
        with self._lock:
            if not self._closed:
                self._events.append((event, reserved))
                self._arrived.notify()

    def let_go(self, node: int, reserved: int) -> None:
        """Give back room that no event has come to need."""
        with self._lock:
            self._release(node, reserved)

    def get(self, timeout: float) -> Event:
        """The next event. Raises queue.Empty when there is none for `timeout` seconds.

        Without any time left it does so always: a queue that never runs empty must not hold up
        whoever waits until a deadline for something else.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            while (left := deadline - time.monotonic()) > 0 and not self._events:
                self._arrived.wait(min(left, ONE_WAIT_SECONDS))
            if timeout <= 0 or not self._events:
                raise queue.Empty
            event, reserved = self._events.popleft()
            self._release(event.node, reserved)
        return event

    def until(self, deadline: float) -> Iterator[Event]:
        """Events as they come, until time.monotonic() says `deadline`; none after it."""
        while (left := deadline - time.monotonic()) > 0:
            try:
                yield self.get(left)
            except queue.Empty:
                return

    def close(self) -> None:
        """Nobody takes anything any more: whoever waits goes on, and what comes is dropped."""
        with self._lock:
            self._closed = True
            self._events.clear()
            for condition in self._waiting.values():
                condition.notify_all()

    def _has_room(self, node: int, size: int) -> bool:
        if size <= self._share:
            return self._held[node] + size <= self._share
        return not self._held[node] and (
            not self._held_large or self._held_large + size <= _ROOM_BYTES
        )

    def _count(self, node: int, size: int) -> None:
        self._held[node] += size
        self._held_large += size if size > self._share else 0

    def _release(self, node: int, size: int) -> None:
        self._count_out(node, size)
        # Room for large messages is everybody's; any other is the node's own.
        waiting = self._waiting.values() if size > self._share else [self._waiting.get(node)]
        for condition in waiting:
            if condition is not None:
                condition.notify_all()

    def _count_out(self, node: int, size: int) -> None:
        self._held[node] -= size
        self._held_large -= size if size > self._share else 0
