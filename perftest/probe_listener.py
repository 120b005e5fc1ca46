"""The ports on which an agent answers whoever tries to reach it. Standard library alone."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from functools import partial

from perftest import probe_talk
from perftest.ports import listening_socket
from perftest.protocol import Listen, PortProblem
from perftest.talks import Talks

# A process may have 1024 files open.
_MOST_CALLERS = 256
# A caller that does not prove itself keeps others out for so long at most.
_CALLER_SECONDS = 6.0


class Listener:
    """The ports on which this agent answers."""

    def __init__(
        self, listen: Listen, selector: selectors.BaseSelector, clock: Callable[[], float]
    ) -> None:
        self._secret = listen.secret
        self._selector = selector
        self._clock = clock
        self._end = clock() + listen.seconds
        self._talks = Talks(selector, clock)
        self._full = False
        self._sockets: list[socket.socket] = []
        problems = []
        for port in sorted(set(listen.ports)):
            try:
                made = listening_socket(port)
            except OSError as error:
                problems.append(PortProblem(port, words_of(error)))
            else:
                self._sockets.append(made)
        self.problems = tuple(problems)
        self._register()

    def look(self) -> bool:
        """End what is late, take whoever waits; returns whether all is over."""
        self._talks.end_late()
        if self._full and len(self._talks) < _MOST_CALLERS:
            self._full = False
            self._register()
        if self._clock() >= self._end:
            self.close()
            return True
        return False

    def close(self) -> None:
        """Let go of the ports, and of who has called."""
        self._talks.close()
        for each in self._sockets:
            if not self._full:
                self._selector.unregister(each)
            each.close()
        self._sockets.clear()

    def _register(self) -> None:
        for each in self._sockets:
            self._selector.register(each, selectors.EVENT_READ, partial(self._accept, each))

    def _accept(self, server: socket.socket) -> None:
        try:
            link, _ = server.accept()
        except OSError:
            return  # the caller is gone again
        end = min(self._end, self._clock() + _CALLER_SECONDS)
        self._talks.start(link, probe_talk.answer(link, self._secret, self._clock), end)
        if len(self._talks) >= _MOST_CALLERS:  # the others wait where the kernel lets them
            self._full = True
            for each in self._sockets:
                self._selector.unregister(each)


def words_of(error: OSError) -> str:
    """What the system says of an error."""
    return error.strerror or type(error).__name__
