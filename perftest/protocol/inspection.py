"""What `check` asks a node beyond Hello, and what the node answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClockQuery:
    """Ask for the time. asked: the launcher's clock, sent back so that answers are told apart."""

    asked: float


@dataclass(frozen=True)
class ClockReading:
    """The node's wall clock, in seconds since 1970, when the query came."""

    asked: float
    clock: float


@dataclass(frozen=True)
class Inspect:
    """Ask for Inspection. names: the host names that TensorFlow will use, to be looked up there."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class NetworkInterface:
    """One network interface. speed_mbit: in 10^6 bit/s; None where the system does not say.

    virtual: it is no piece of hardware (a bridge, a veth, the loopback).
    """

    name: str
    addresses: tuple[str, ...]
    speed_mbit: int | None
    mtu: int
    virtual: bool


@dataclass(frozen=True)
class ResolvedName:
    """What a host name means on a node. problem: why it means nothing, in the system's words."""

    name: str
    addresses: tuple[str, ...]
    problem: str


@dataclass(frozen=True)
class GpuUse:
    """What a GPU does now. utilization_percent: None where nvidia-smi does not know.

    processes: how many processes compute on it, as far as they can be seen from there.
    """

    uuid: str
    used_mib: int
    utilization_percent: int | None
    processes: int


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class CountParameters:
    """Ask for ParameterCount. The node builds the network, which takes TensorFlow some seconds."""

    model: str


@dataclass(frozen=True)
class ParameterCount:
    """sizes: bytes of each trainable variable in float32. problem: why there are none, if so."""

    model: str
    sizes: tuple[int, ...]
    problem: str


@dataclass(frozen=True)
class ErrandFailed:
    """What was asked could not be found out. errand: the type of the question."""

    errand: str
    error: str
