"""What Horovod's processes are told of each other, as variables. Standard library alone.

Horovod's own launchers (horovodrun, mpirun) would set the same; here the agents start the ranks,
and each works its place out from the addresses that all of them know.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from perftest import networks


def variables(addresses: Sequence[str], rank: int) -> dict[str, str]:
    """The variables of one rank; `addresses` are the `host:port` of all, in the order of ranks.

    Ranks with one host name are on one host. Those with the same place on their hosts are one
    "cross" group. The rendezvous server is at the address of rank 0.
    """
    hosts = [split(address)[0] for address in addresses]
    local = [hosts[:index].count(host) for index, host in enumerate(hosts)]
    across = [hosts[index] for index, place in enumerate(local) if place == local[rank]]
    server, port = split(addresses[0])
    return {
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(len(hosts)),
        "HOROVOD_LOCAL_RANK": str(local[rank]),
        "HOROVOD_LOCAL_SIZE": str(hosts.count(hosts[rank])),
        "HOROVOD_CROSS_RANK": str(across.index(hosts[rank])),
        "HOROVOD_CROSS_SIZE": str(len(across)),
        "HOROVOD_HOSTNAME": hosts[rank],
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": server,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[host]:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def interface_of(host: str) -> str:
    """The interface of this node that has the address of its own host name, or nothing.

    Gloo would otherwise take what the kernel's name of the machine means, which may be a loopback.
    """
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return ""
    for interface in networks.find_interfaces():
        if found.intersection(interface.addresses):
            return interface.name
    return ""
