"""The ceiling that the network sets on synchronous training with parameter servers. Opens nothing.

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
    known = [link.seconds for link in links if link.seconds is not None]
    seconds = max(known) if known and len(parts) > 1 else None
    return Ceiling(
        parameter_bytes=total,
        workers=workers,
        servers=servers,
        batch_size=batch_size,
        links=links,
        seconds_per_step=seconds,
        images_per_second=(workers - backups) * batch_size / seconds if seconds else None,
    )


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
    out = max((speed for (source, _), speed in speeds.items() if source == node), default=0.0)
    into = max((speed for (_, target), speed in speeds.items() if target == node), default=0.0)
    goes, comes = served + wire * fetched, fetched + wire * served
    if not (out > 0 and into > 0):
        return Traffic(node, round(max(goes, comes)), None)
    bounds = [goes / out, comes / into]
    if served:
        bounds.append(served / out + wire * part.server_bytes / into)
    if fetched:
        bounds.append(fetched / into + wire * (total - part.server_bytes) / out)
    return Traffic(node, round(max(goes, comes)), max(bounds))
