"""Do the other nodes reach this one's ports, and does it reach theirs? The agent's part of it.

Needs the standard library alone. Before the tasks of a run start, the agents listen on the very
ports that TensorFlow's servers will have, and try each other's. All of it takes turns with the rest
of the agent's work in one thread. Nothing is left on the ports for TensorFlow to stumble over:
connections are reset at their end, so that none lingers.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perftest import probe_talk
from perftest.names import Address, Names
from perftest.probe_listener import Listener, words_of
from perftest.probe_talk import StrangerError
from perftest.protocol import (
    MOST_TRANSFER_SECONDS,
    NAME_UNKNOWN,
    NO_ROUTE,
    REACHED,
    REFUSED,
    STRANGER,
    TIMED_OUT,
    EndProbe,
    Listen,
    Listening,
    Probe,
    Probed,
    ProbeResult,
)
from perftest.talks import Talk, Talks

# A process may have 1024 files open, and as many callers come at the same time.
_MOST_TRIED_AT_ONCE = 256
# All targets together may take so many times what one may.
_WAVES = 2

Clock = Callable[[], float]


class Probes:
    """What this agent listens on and what it tries, on behalf of the launcher.

    put: sends a message to the launcher.  wake: ends the agent's wait from another thread.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        put: Callable[[object], None],
        wake: Callable[[], object],
        clock: Clock,
    ) -> None:
        self._selector = selector
        self._put = put
        self._wake = wake
        self._clock = clock
        self._name = ""
        self._listener: Listener | None = None
        self._prober: _Prober | None = None

    def obey(self, message: Listen | Probe | EndProbe) -> None:
        """Do what the launcher asks; what comes of it is sent when it is known."""
        if isinstance(message, EndProbe):
            if message.probe == self._name:
                self.close()
            return
        if message.probe != self._name:
            self.close()
            self._name = message.probe
        if isinstance(message, Listen):
            if self._listener is not None:
                self._listener.close()
            self._listener = Listener(message, self._selector, self._clock)
            self._put(Listening(message.probe, self._listener.problems))
        else:
            if self._prober is not None:
                self._prober.close()
            self._prober = _Prober(message, self._selector, self._wake, self._clock)
        self.look()

    def look(self) -> None:
        """What time has brought: talks that are late, names that are known by now."""
        if self._listener is not None and self._listener.look():
            self._listener = None
        if self._prober is not None and (results := self._prober.look()) is not None:
            self._prober.close()
            self._prober = None
            self._put(Probed(self._name, results))

    def close(self) -> None:
        """Let go of all ports and connections."""
        for each in (self._listener, self._prober):
            if each is not None:
                each.close()
        self._listener = self._prober = None
        self._name = ""


@dataclass
class _Found:
    """What is known of a target so far."""

    outcome: str = TIMED_OUT
    detail: str = "too many others did not answer: its turn did not come"
    latency: float | None = None
    speed: float | None = None

    def set(self, outcome: str, detail: str = "") -> None:
        """What came of it, and more about that."""
        self.outcome, self.detail = outcome, detail[:200]

    def result(self) -> ProbeResult:
        """As a message has it."""
        return ProbeResult(self.outcome, self.latency, self.speed, self.detail)


class _Prober:
    """The targets of one Probe."""

    def __init__(
        self,
        probe: Probe,
        selector: selectors.BaseSelector,
        wake: Callable[[], object],
        clock: Clock,
    ) -> None:
        self._probe = probe
        self._clock = clock
        self._talks = Talks(selector, clock)
        self._names = Names(wake)
        self._found = [_Found() for _ in probe.targets]
        self._left = len(probe.targets)
        self._waiting = list(reversed(range(len(probe.targets))))
        self._being_named: dict[int, float] = {}
        # Two transfers at once would slow each other down.
        self._at_once = 1 if probe.transfer_bytes else _MOST_TRIED_AT_ONCE
        moving = MOST_TRANSFER_SECONDS + 1.0 if probe.transfer_bytes else 0.0
        self._seconds = probe.seconds + moving
        waves = max(_WAVES, len(probe.targets)) if probe.transfer_bytes else _WAVES
        self._end = clock() + waves * self._seconds

    def look(self) -> tuple[ProbeResult, ...] | None:
        """Go on with what can go on; the results, once there is one for each target."""
        self._talks.end_late()
        self._look_at_names()
        while self._waiting and len(self._talks) + len(self._being_named) < self._at_once:
            index = self._waiting.pop()
            self._found[index].set(TIMED_OUT)
            self._being_named[index] = self._clock() + self._seconds
            self._look_at_name(index)
        if self._left and self._clock() < self._end:
            return None
        return tuple(found.result() for found in self._found)

    def close(self) -> None:
        """Let go of all connections."""
        self._talks.close()
        self._names.close()

    def _look_at_names(self) -> None:
        for index in list(self._being_named):
            self._look_at_name(index)

    def _look_at_name(self, index: int) -> None:
        known = self._names.look_up(self._probe.targets[index].host)
        late = self._clock() >= self._being_named[index]
        if known is None and not late:
            return
        deadline = self._being_named.pop(index)
        if isinstance(known, list):
            self._try(index, known, deadline)
        else:
            self._over(index, NAME_UNKNOWN, known or "the look-up took too long")

    def _over(self, index: int, outcome: str, detail: str = "") -> None:
        self._found[index].set(outcome, detail)
        self._left -= 1

    def _try(self, index: int, addresses: list[Address], deadline: float) -> None:
        """Try the first of a name's addresses, and the next if it does not answer."""
        now = self._clock()
        try:
            link = socket.socket(addresses[0][0], socket.SOCK_STREAM)
        except OSError as error:
            self._over(index, NO_ROUTE, words_of(error))
            return
        talk = self._talk(index, link, addresses, deadline)
        self._talks.start(link, talk, now + (deadline - now) / len(addresses))

    def _talk(
        self, index: int, link: socket.socket, addresses: list[Address], deadline: float
    ) -> Talk:
        target, found = self._probe.targets[index], self._found[index]
        connected = False
        try:
            yield from _connect(link, addresses[0][1], target.port)
            connected = True
            yield from probe_talk.prove(link, target.secret)
            found.latency = yield from probe_talk.round_trip(link, self._clock)
            if self._probe.transfer_bytes:
                found.speed = yield from probe_talk.transfer(
                    link, self._probe.transfer_bytes, self._clock
                )
            self._over(index, REACHED)
        except OSError as error:
            if found.latency is not None:
                self._over(index, REACHED, "a transfer of many bytes did not get through")
            elif len(addresses) > 1:
                self._try(index, addresses[1:], deadline)
            else:
                self._over(index, *self._explain(error, connected))

    def _explain(self, error: OSError, connected: bool) -> tuple[str, str]:
        """Outcome and detail of a failure."""
        if isinstance(error, StrangerError):
            others = {target.secret for target in self._probe.targets}
            if any(error.is_from(secret) for secret in others):
                return STRANGER, "the agent of another node of this test answered"
            return STRANGER, "another program answered"
        if connected and isinstance(error, TimeoutError):
            return STRANGER, "whoever listens there takes the connection and says nothing"
        if connected:
            return STRANGER, "whoever listens there hung up"
        if isinstance(error, TimeoutError):
            return TIMED_OUT, ""
        if isinstance(error, ConnectionRefusedError):
            return REFUSED, ""
        return NO_ROUTE, words_of(error)


def _connect(link: socket.socket, address: tuple[Any, ...], port: int) -> Talk:
    number = link.connect_ex((address[0], port, *address[2:]))
    if number == errno.EINPROGRESS:
        yield selectors.EVENT_WRITE
        number = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))
