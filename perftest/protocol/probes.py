"""Whether the nodes reach each other, and how fast: asked and answered before tasks are started.

A message with values that no honest sender has (a port that is none, a time of a week, a million
targets) is refused when it is made, and so on both sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from perftest.record import record
from perftest.records import MessageError

# What can come of a look at one address.
REACHED = "reached"
REFUSED = "refused"
TIMED_OUT = "timed out"
NO_ROUTE = "no route"
NAME_UNKNOWN = "name unknown"
STRANGER = "somebody else answered"
OUTCOMES = (REACHED, REFUSED, TIMED_OUT, NO_ROUTE, NAME_UNKNOWN, STRANGER)

MOST_PORTS = 512
MOST_TARGETS = 1 << 17
MOST_PROBE_SECONDS = 60.0
MOST_TRANSFER_BYTES = 256 << 20
MOST_TRANSFER_SECONDS = 1.0

_MOST_DETAIL = 300
_SECRET = re.compile(r"[0-9a-f]{32}\Z")


@record(frozen=True)
class Listen:
    """Answer on these TCP ports, for `seconds` at most, whoever knows `secret` (32 hex digits).

    probe: the name of the check, which every answer carries.
    """

    probe: str
    secret: str
    ports: tuple[int, ...]
    seconds: float

    def __post_init__(self) -> None:
        _check_secret(self.secret)
        _check_ports(self.ports, MOST_PORTS)
        _check_range("seconds", self.seconds, MOST_PROBE_SECONDS)


@record(frozen=True)
class PortProblem:
    """A port on which the agent cannot listen, and why."""

    port: int
    reason: str

    def __post_init__(self) -> None:
        _check_ports((self.port,), 1)
        _check_text(self.reason)


@record(frozen=True)
class Listening:
    """The agent listens from now on, except where a problem is named."""

    probe: str
    problems: tuple[PortProblem, ...]

    def __post_init__(self) -> None:
        _check_count("problems", self.problems, MOST_PORTS)


@record(frozen=True)
class ProbeTarget:
    """An address that is to be tried, and the secret of the agent that listens there."""

    host: str
    port: int
    secret: str

    def __post_init__(self) -> None:
        _check_text(self.host)
        _check_ports((self.port,), 1)
        _check_secret(self.secret)


@record(frozen=True)
class Probe:
    """Try all these addresses, each for `seconds` at most.

    transfer_bytes: also measure how fast that many bytes go there (0: do not), one address after
    the other, for at most MOST_TRANSFER_SECONDS each.
    """

    probe: str
    targets: tuple[ProbeTarget, ...]
    seconds: float
    transfer_bytes: int

    def __post_init__(self) -> None:
        _check_count("targets", self.targets, MOST_TARGETS)
        _check_range("seconds", self.seconds, MOST_PROBE_SECONDS)
        _check_range("transfer_bytes", self.transfer_bytes, MOST_TRANSFER_BYTES)


@record(frozen=True)
class ProbeResult:
    """What came of one address. latency_seconds: a round trip, the median of a few."""

    outcome: str
    latency_seconds: float | None
    bytes_per_second: float | None
    detail: str

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise MessageError("outcome: none of those that there are")
        for name in ("latency_seconds", "bytes_per_second"):
            value = getattr(self, name)
            if value is not None:
                _check_range(name, value, math.inf)
        _check_text(self.detail)


@record(frozen=True)
class Probed:
    """What came of all addresses, in the order in which they were asked for."""

    probe: str
    results: tuple[ProbeResult, ...]

    def __post_init__(self) -> None:
        _check_count("results", self.results, MOST_TARGETS)


@record(frozen=True)
class EndProbe:
    """Let go of the ports and of whatever is still being tried."""

    probe: str


def _check_secret(secret: str) -> None:
    if not _SECRET.match(secret):
        raise MessageError("secret: not 32 hexadecimal digits")


def _check_ports(ports: Sequence[int], most: int) -> None:
    _check_count("ports", ports, most)
    if any(not 0 < port < 65536 for port in ports):
        raise MessageError("port: not between 1 and 65535")


def _check_count(name: str, items: Sequence[object], most: int) -> None:
    if len(items) > most:
        raise MessageError(f"{name}: more than {most}")


def _check_range(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:  # and NaN is in no range
        raise MessageError(f"{name}: not between 0 and {most:g}")


def _check_text(text: str) -> None:
    if len(text) > _MOST_DETAIL:
        raise MessageError(f"a text of more than {_MOST_DETAIL} characters")
