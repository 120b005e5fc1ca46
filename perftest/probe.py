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
from dataclasses import dataclass, replace
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
# What the network says while a cable is cut, or nobody tells where an address is: an outage that
# may be over before the target's time is. A firewall that rejects may say it, too, again and again.
_MAY_PASS = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_AGAIN_SECONDS = 0.2
# TCP asks after 0, 1 and 3 s, and then only after 7; what was lost it says again after 3 s, and
# then only after 6: an outage of 3 s would cost more than a target has. So there is another try.
_CONNECT_SECONDS = 1.5
_ANSWER_SECONDS = 3.2

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


@dataclass(frozen=True)
class _Try:
    """One try of a target: at the first of the addresses that are left of all that it has."""

    index: int
    addresses: list[Address]
    left: list[Address]
    deadline: float  # of the target


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
        self._again: list[tuple[float, _Try]] = []
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
        self._try_again()
        while self._waiting and self._under_way < self._at_once:
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
            self._try(_Try(index, known, known, deadline))
        else:
            self._found[index].set(NAME_UNKNOWN, known or "the look-up took too long")
            self._left -= 1

    @property
    def _under_way(self) -> int:
        return len(self._talks) + len(self._being_named) + len(self._again)

    def _try_again(self) -> None:
        now = self._clock()
        due = [each for when, each in self._again if when <= now]
        self._again = [(when, each) for when, each in self._again if when > now]
        for each in due:
            self._try(each)

    def _try(self, each: _Try) -> None:
        now = self._clock()
        try:
            link = socket.socket(each.left[0][0], socket.SOCK_STREAM)
        except OSError as error:
            self._found[each.index].set(NO_ROUTE, words_of(error))
            self._left -= 1
            return
        seconds = min(_CONNECT_SECONDS, (each.deadline - now) / len(each.left))
        self._talks.start(link, self._talk(each, link, now), now + seconds)

    def _talk(self, each: _Try, link: socket.socket, began: float) -> Talk:
        target, found = self._probe.targets[each.index], self._found[each.index]
        connected = False
        try:
            yield from _connect(link, each.left[0][1], target.port)
            connected = True
            self._talks.give_until(link, min(each.deadline, began + _ANSWER_SECONDS))
            yield from probe_talk.prove(link, target.secret)
            found.latency = yield from probe_talk.round_trip(link, self._clock)
            if self._probe.transfer_bytes:
                self._talks.give_until(link, each.deadline)
                found.speed = yield from probe_talk.transfer(
                    link, self._probe.transfer_bytes, self._clock
                )
            found.set(REACHED)
            self._left -= 1
        except OSError as error:
            self._failed(each, error, connected)

    def _failed(self, each: _Try, error: OSError, connected: bool) -> None:
        """Go on with the next address, or with the first again while there is time and hope."""
        found = self._found[each.index]
        if found.latency is not None:
            found.set(REACHED, "a transfer of many bytes did not get through")
            self._left -= 1
            return
        outcome, detail = self._explain(error, connected)
        if outcome != TIMED_OUT:  # what was said once tells more than silence
            found.set(outcome, detail)
        may_pass = isinstance(error, TimeoutError) or error.errno in _MAY_PASS
        again = self._clock() + _AGAIN_SECONDS
        if len(each.left) > 1:
            self._try(replace(each, left=each.left[1:]))
        elif may_pass and again < each.deadline:
            self._again.append((again, replace(each, left=each.addresses)))
        else:
            self._left -= 1

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
