"""What `check` asks a node beyond Hello, and what the node answers."""

from __future__ import annotations

import math

from perftest.record import record
from perftest.records import MessageError

# More of anything, or a larger number, no honest node has.
_MOST_ITEMS = 16384
_MOST_NUMBER = float(1 << 60)
_LATEST_CLOCK = 1e11


@record(frozen=True)
class ClockQuery:
    """Ask for the time. asked: the launcher's clock, sent back so that answers are told apart."""

    asked: float


@record(frozen=True)
class ClockReading:
    """The node's wall clock, in seconds since 1970, when the query came."""

    asked: float
    clock: float

    def __post_init__(self) -> None:
        _check_numbers(_LATEST_CLOCK, self.clock)


@record(frozen=True)
class Inspect:
    """Ask for Inspection. names: the host names that TensorFlow will use, to be looked up there."""

    names: tuple[str, ...]


@record(frozen=True)
class NetworkInterface:
    """One network interface. speed_mbit: in 10^6 bit/s; None where the system does not say.

    virtual: it is no piece of hardware (a bridge, a veth, the loopback).
    """

    name: str
    addresses: tuple[str, ...]
    speed_mbit: int | None
    mtu: int
    virtual: bool

    def __post_init__(self) -> None:
        _check_numbers(_MOST_NUMBER, self.speed_mbit or 0, self.mtu)


@record(frozen=True)
class ResolvedName:
    """What a host name means on a node. problem: why it means nothing, in the system's words."""

    name: str
    addresses: tuple[str, ...]
    problem: str


@record(frozen=True)
class GpuUse:
    """What a GPU does now. utilization_percent: None where nvidia-smi does not know.

    processes: how many processes compute on it, as far as they can be seen from there.
    """

    uuid: str
    used_mib: int
    utilization_percent: int | None
    processes: int

    def __post_init__(self) -> None:
        _check_numbers(_MOST_NUMBER, self.used_mib, self.utilization_percent or 0, self.processes)


@record(frozen=True)
class Inspection:
    """What a node says of its state.

    instruction_sets: those that matter to TensorFlow, as /proc/cpuinfo names them.
    load: processes that want a processor, averaged over the last minute.
    governor, governor_driver, huge_pages: the kernel's settings, empty where it has none.
    open_files: how many descriptors a process may have.
    noexec: whether programs in the remote directory may not be executed.
    proxies: names of variables that send traffic through a proxy; never their values.
    """

    instruction_sets: tuple[str, ...]
    load: float
    memory_available_bytes: int
    swap_used_bytes: int
    governor: str
    governor_driver: str
    huge_pages: str
    open_files: int
    noexec: bool
    proxies: tuple[str, ...]
    interfaces: tuple[NetworkInterface, ...]
    resolved: tuple[ResolvedName, ...]
    gpu_use: tuple[GpuUse, ...]

    def __post_init__(self) -> None:
        _check_numbers(_MOST_NUMBER, self.load, self.memory_available_bytes)
        _check_numbers(_MOST_NUMBER, self.swap_used_bytes, self.open_files)
        _check_items(self.instruction_sets, self.proxies, self.interfaces, self.resolved)
        _check_items(self.gpu_use)


@record(frozen=True)
class CountParameters:
    """Ask for ParameterCount. The node builds the network, which takes TensorFlow some seconds."""

    model: str


@record(frozen=True)
class ParameterCount:
    """sizes: bytes of each trainable variable in float32. problem: why there are none, if so."""

    model: str
    sizes: tuple[int, ...]
    problem: str

    def __post_init__(self) -> None:
        _check_numbers(_MOST_NUMBER, *self.sizes)


@record(frozen=True)
class ErrandFailed:
    """What was asked could not be found out. errand: the type of the question."""

    errand: str
    error: str


def _check_numbers(most: float, *values: float) -> None:
    """Raises MessageError for one that is negative, too large or no number at all."""
    if not all(math.isfinite(value) and 0 <= value <= most for value in values):
        raise MessageError("a number that no node has")


def _check_items(*lists: tuple[object, ...]) -> None:
    if any(len(items) > _MOST_ITEMS for items in lists):
        raise MessageError(f"a list of more than {_MOST_ITEMS}")
