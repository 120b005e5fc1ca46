"""The ceiling that the network sets on synchronous training with parameter servers. Opens nothing.

docs/decisions/0012-check.md derives the formula and says what it assumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """What one node has of a run. server_bytes: of the parameters, on its parameter servers."""

    workers: int
    server_bytes: int


@dataclass(frozen=True)
class Traffic:
    """What crosses one node's link in a step, in bytes: out is as much as in.

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
    sizes: Sequence[int], servers_of_nodes: Sequence[int], workers: Sequence[int]
) -> list[Share]:
    """What each node has, where the variables are dealt out as the strategy does it: the largest
    first, each to the server that holds least so far, servers being dealt to the nodes in turn.

    sizes: bytes of each variable.  servers_of_nodes: the node of each server.  workers: per node.
    """
    held = [0] * len(servers_of_nodes)
    for size in sorted(sizes, reverse=True):
        held[min(range(len(held)), key=lambda s: (held[s], s))] += size
    return [
        Share(
            count,
            sum(bytes_ for s, bytes_ in zip(servers_of_nodes, held, strict=True) if s == node),
        )
        for node, count in enumerate(workers)
    ]


def ceiling(
    parts: Sequence[Share],
    servers: int,
    batch_size: int,
    backups: int,
    speeds: Mapping[tuple[int, int], float],
) -> Ceiling:
    """The most that links of these speeds let through.

    backups: how many workers' gradients an update does not wait for.  speeds: bytes/s measured from
    one node to another; of several from (or to) a node the fastest counts.
    """
    total = sum(part.server_bytes for part in parts)
    workers = sum(part.workers for part in parts)
    links = tuple(
        _traffic(node, part, workers, backups, total, speeds) for node, part in enumerate(parts)
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
    workers: int,
    backups: int,
    total: int,
    speeds: Mapping[tuple[int, int], float],
) -> Traffic:
    """Every worker pulls all parameters and pushes all gradients, each for itself.

    Parameters leave for workers elsewhere and gradients for servers elsewhere; what comes in is
    as much. Nobody pushes before it has pulled: so behind all pulls that go through a link, at
    least one worker's pushes go back through it. Backup workers may be those behind any link.
    """
    served = part.server_bytes * max(0, workers - part.workers - backups)
    fetched = max(0, part.workers - backups) * (total - part.server_bytes)
    out = max((speed for (source, _), speed in speeds.items() if source == node), default=0.0)
    into = max((speed for (_, target), speed in speeds.items() if target == node), default=0.0)
    if not (out > 0 and into > 0):
        return Traffic(node, served + fetched, None)
    bounds = [(served + fetched) / out, (served + fetched) / into]
    if served:
        bounds.append(served / out + part.server_bytes / into)
    if fetched:
        bounds.append(fetched / into + (total - part.server_bytes) / out)
    return Traffic(node, served + fetched, max(bounds))
