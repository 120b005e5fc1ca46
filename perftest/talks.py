"""Talks over sockets that take turns in one thread, each a generator that says what it waits for.

Needs the standard library alone. A talk yields EVENT_READ or EVENT_WRITE when its socket would
make it wait, ends by returning or by an OSError, and has its socket closed then.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias

Talk: TypeAlias = Generator[int, None, None]

# Closed so, a connection is gone at once on both sides: nothing of it is in the way of a server
# that listens on the port next.
_AT_ONCE = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Open:
    link: socket.socket
    talk: Talk
    deadline: float
    waits_for: int = 0


class Talks:
    """The talks that are under way. `clock` gives seconds and is monotonic."""

    def __init__(self, selector: selectors.BaseSelector, clock: Callable[[], float]) -> None:
        self._selector = selector
        self._clock = clock
        self._open: set[_Open] = set()

    def __len__(self) -> int:
        return len(self._open)

    def start(self, link: socket.socket, talk: Talk, deadline: float) -> None:
        """Begin a talk; past the deadline, TimeoutError is raised in it."""
        link.setblocking(False)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each = _Open(link, talk, deadline)
        self._open.add(each)
        self._go_on(each)

    def give_until(self, link: socket.socket, deadline: float) -> None:
        """Move the deadline of the talk over this socket, which has come further than it had to."""
        for each in self._open:
            if each.link is link:
                each.deadline = deadline

    def end_late(self) -> None:
        """End the talks whose time is up."""
        now = self._clock()
        for each in [each for each in self._open if now >= each.deadline]:
            if each in self._open:  # the end of another may have ended it
                with contextlib.suppress(OSError, StopIteration):
                    each.talk.throw(TimeoutError("its time is up"))
                self._close(each)

    def close(self) -> None:
        """End all at once; nothing is raised in them but the end of a generator."""
        for each in list(self._open):
            self._close(each)

    def _go_on(self, each: _Open) -> None:
        try:
            waits_for = next(each.talk)
        except (OSError, StopIteration):
            self._close(each)
            return
        if each not in self._open:
            return
        if not each.waits_for:
            self._selector.register(each.link, waits_for, lambda: self._go_on(each))
        elif waits_for != each.waits_for:
            self._selector.modify(each.link, waits_for, lambda: self._go_on(each))
        each.waits_for = waits_for

    def _close(self, each: _Open) -> None:
        if each in self._open:
            self._open.remove(each)
            if each.waits_for:
                self._selector.unregister(each.link)
            each.link.close()
            each.talk.close()
