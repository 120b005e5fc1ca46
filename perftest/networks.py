"""The network of a node: interfaces, their addresses and speeds, and what names mean there.

Needs the standard library alone.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from perftest.protocol import NetworkInterface, ResolvedName

_SIOCGIFADDR = 0x8915
_CLASS = Path("/sys/class/net")
_LOOKUPS_AT_ONCE = 16
_LOOKUP_SECONDS = 8.0


def find_interfaces() -> tuple[NetworkInterface, ...]:
    """Every interface that has an address."""
    addresses = _addresses()
    return tuple(
        NetworkInterface(
            name=name,
            addresses=tuple(addresses[name]),
            speed_mbit=_speed(_CLASS / name),
            mtu=_positive(_CLASS / name / "mtu") or 0,
            virtual="/virtual/" in str((_CLASS / name).resolve()),
        )
        for _, name in sorted(socket.if_nameindex())
        if addresses.get(name)
    )


def resolve_all(names: Sequence[str]) -> tuple[ResolvedName, ...]:
    """Look all names up, several at once; those that take too long are said to."""
    found: dict[str, ResolvedName] = {}
    limit = threading.Semaphore(_LOOKUPS_AT_ONCE)

    def look_up(name: str) -> None:
        with limit:
            found[name] = resolve(name)

    threads = [threading.Thread(target=look_up, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _LOOKUP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {_LOOKUP_SECONDS:.0f} s"
    return tuple(found.get(name) or ResolvedName(name, (), late) for name in names)


def resolve(name: str) -> ResolvedName:
    """What a name means on this machine, as gRPC and everybody else will find it."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return ResolvedName(name, (), getattr(error, "strerror", None) or str(error))
    return ResolvedName(name, tuple(dict.fromkeys(str(each[4][0]) for each in answers)), "")


def _addresses() -> dict[str, list[str]]:
    """Addresses by interface: what the kernel calls its first IPv4 address, and those of IPv6."""
    found: dict[str, list[str]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue
            found.setdefault(name, []).append(socket.inet_ntoa(answer[20:24]))
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        address = ipaddress.IPv6Address(bytes.fromhex(words[0]))
        if not address.is_link_local:
            found.setdefault(words[-1], []).append(str(address))
    return found


def _speed(folder: Path) -> int | None:
    """Of hardware, and of what stands on top of some (a bond, a VLAN); a veth invents a number."""
    if not (folder / "device").exists() and not any(folder.glob("lower_*")):
        return None
    return _positive(folder / "speed")


def _positive(path: Path) -> int | None:
    """The number in a file, or None for none; virtual interfaces say −1 or refuse to be read."""
    try:
        number = int(path.read_text())
    except (OSError, ValueError):
        return None
    return number if number > 0 else None
