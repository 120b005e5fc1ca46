"""The ceiling that the network sets on synchronous training. Opens nothing.

docs/decisions/0012-check.md derives the formula and says what it assumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perftest.protocol import place_variables


@dataclass(frozen=True)
class Share:
    """What one node has of a run. server_bytes: of the parameters, on its parameter servers.
    senders: those of its workers that talk to the servers, all or the one that adds up.
    """

    workers: int
    server_bytes: int
    senders: int


@dataclass(frozen=True)
class Traffic:
    """What crosses one node's link in a step, in bytes: out or in, whichever is more.

    seconds: that a step needs for it at least, or None where the link was not measured.
    """

    node: int
    bytes_each_way: int
    seconds: float | None


@dataclass(frozen=True)
class Ceiling:
    """seconds_per_step: at least.  images_per_second: at most.  None: no link was measured."""

    parameter_bytes: int
    workers: int
    servers: int
    batch_size: int
    links: tuple[Traffic, ...]
    seconds_per_step: float | None
    images_per_second: float | None


def shares(
    sizes: Sequence[int],
    servers_of_nodes: Sequence[int],
    workers: Sequence[int],
    add_up: bool = False,
) -> list[Share]:
    """What each node has, where the variables are dealt out as the strategy does it, but for the
    lengths of rows, which are not known.

    sizes: bytes of each variable.  servers_of_nodes: the node of each server.  workers: per node.
    add_up: nodes add up their gradients.
    """
    held = [0] * len(workers)
    rows = [(size, 1) for size in sizes]
    for pieces in place_variables(rows, len(servers_of_nodes)):
        for server, begin, end in pieces:
            held[servers_of_nodes[server]] += end - begin
    return [
        Share(count, of_node, min(1, count) if add_up else count)
        for count, of_node in zip(workers, held, strict=True)
    ]


def ceiling(
    parts: Sequence[Share],
    servers: int,
    batch_size: int,
    backups: int,
    speeds: Mapping[tuple[int, int], float],
    gradient_bytes: int = 4,
) -> Ceiling:
    """The most that links of these speeds let through.

    backups: how many workers' gradients an update does not wait for.  speeds: bytes/s measured from
    one node to another; of several from (or to) a node the fastest counts.  gradient_bytes: of one
    number of a gradient on its way; a parameter's are four.
    """
    total = sum(part.server_bytes for part in parts)
    workers = sum(part.workers for part in parts)
    senders = sum(part.senders for part in parts) - backups
    wire = gradient_bytes / 4
    links = tuple(
        _traffic(node, part, senders, backups, total, speeds, wire)
        for node, part in enumerate(parts)
    )
    return _at_most(links, total, workers, servers, batch_size, backups)


def ceiling_without_servers(
    parameter_bytes: int,
    workers: Sequence[int],
    in_a_ring: bool,
    batch_size: int,
    speeds: Mapping[tuple[int, int], float],
) -> Ceiling:
    """The same where the workers add up their gradients among themselves.

    workers: per node.  in_a_ring: whether that is certainly done by a ring of all workers.

    Of N in a ring, each sends 2 (N - 1) / N of the bytes to the next and gets as many from the one
    before: N - 1 pieces of one N-th until somebody has the sum of each, and as many until all have
    all sums. No way of adding up has a member send less (Patarasuk and Yuan, "Bandwidth optimal
    all-reduce algorithms for clusters of workstations", 2009). Workers of one node pass to each
    other without its link, through which the ring goes at least once, each way. Where the way is a
    library's choice (NCCL has trees too), the nodes are the N: none sends less than that.
    """
    members = sum(workers) if in_a_ring else sum(count > 0 for count in workers)
    crossing = round(2 * (members - 1) / members * parameter_bytes) if len(workers) > 1 else 0
    links = []
    for node, count in enumerate(workers):
        size = crossing if count else 0
        slower = min(_fastest(node, speeds))
        links.append(Traffic(node, size, size / slower if slower > 0 else None))
    return _at_most(tuple(links), parameter_bytes, sum(workers), 0, batch_size)


def _at_most(
    links: tuple[Traffic, ...],
    parameter_bytes: int,
    workers: int,
    servers: int,
    batch_size: int,
    backups: int = 0,
) -> Ceiling:
    """What the slowest of these links lets through."""
    known = [link.seconds for link in links if link.seconds is not None]
    seconds = max(known) if known and len(links) > 1 else None
    return Ceiling(
        parameter_bytes=parameter_bytes,
        workers=workers,
        servers=servers,
        batch_size=batch_size,
        links=links,
        seconds_per_step=seconds,
        images_per_second=(workers - backups) * batch_size / seconds if seconds else None,
    )


def _fastest(node: int, speeds: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """Out of a node and into it, in bytes/s; 0 where nothing was measured."""
    out = max((speed for (source, _), speed in speeds.items() if source == node), default=0.0)
    into = max((speed for (_, target), speed in speeds.items() if target == node), default=0.0)
    return out, into


def _traffic(
    node: int,
    part: Share,
    senders: int,
    backups: int,
    total: int,
    speeds: Mapping[tuple[int, int], float],
    wire: float,
) -> Traffic:
    """Every sender pulls all parameters and pushes all gradients, each for itself.

    Parameters leave for senders elsewhere and gradients for servers elsewhere; what comes in is
    the other way round. Nobody pushes before it has pulled: so behind all pulls that go through a
    link, at least one sender's pushes go back through it. Backup workers may be those behind any
    link.
    """
    served = part.server_bytes * max(0, senders - part.senders)
    fetched = max(0, part.senders - backups) * (total - part.server_bytes)
    out, into = _fastest(node, speeds)
    goes, comes = served + wire * fetched, fetched + wire * served
    if not (out > 0 and into > 0):
        return Traffic(node, round(max(goes, comes)), None)
    bounds = [goes / out, comes / into]
    if served:
        bounds.append(served / out + wire * part.server_bytes / into)
    if fetched:
        bounds.append(fetched / into + wire * (total - part.server_bytes) / out)
    return Traffic(node, round(max(goes, comes)), max(bounds))
