"""What a check amounts to: findings, the network's ceiling, and the worst mark. Opens nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.ceiling import Ceiling, ceiling, ceiling_without_servers, shares
from launcher.checked import FAILURE, Checked, Finding, merge, worst
from launcher.findings import find
from launcher.findings_network import PORTS_NOTE
from launcher.placement import adds_up, workers_of_nodes
from launcher.tasks import GRADIENT_BYTES, OVER_THE_NETWORK, PARAMETER_SERVER_STRATEGY


@dataclass(frozen=True)
class Verdict:
    """What is told of a check. notes: what is true whatever was found."""

    checked: Checked
    findings: tuple[Finding, ...]
    ceiling: Ceiling | None
    notes: tuple[str, ...]

    @property
    def mark(self) -> str:
        """The worst mark of all findings."""
        return worst(self.findings)

    @property
    def would_fail(self) -> bool:
        """Whether a run would fail."""
        return self.mark == FAILURE


def judge(checked: Checked, here: Sequence[Finding] = ()) -> Verdict:
    """Everything that follows from the facts. here: what was found of this machine."""
    with_ports = checked.asked.strategy in OVER_THE_NETWORK
    return Verdict(
        checked=checked,
        findings=tuple(merge([*find(checked), *here])),
        ceiling=network_ceiling(checked),
        notes=(PORTS_NOTE,) if with_ports else (),
    )


def network_ceiling(checked: Checked) -> Ceiling | None:
    """The ceiling of the network that was named.

    None where nothing is known of its parameters, where nothing crosses a network, and where no
    update waits for all links: an asynchronous worker behind a slow link makes fewer steps and
    holds nobody up.
    """
    asked = checked.asked
    sizes = checked.count.sizes if checked.count is not None else ()
    if not sizes or asked.strategy not in OVER_THE_NETWORK or not asked.synchronous:
        return None
    workers = workers_of_nodes(asked, len(checked.nodes))
    speeds = {
        (link.source, link.target): link.bytes_per_second
        for link in checked.links
        if link.bytes_per_second
    }
    if asked.strategy != PARAMETER_SERVER_STRATEGY:
        in_a_ring = asked.communication == "ring" or not _has_gpus(checked)
        return ceiling_without_servers(sum(sizes), workers, in_a_ring, asked.batch_size, speeds)
    return _with_servers(checked, sizes, workers, speeds)


def _has_gpus(checked: Checked) -> bool:
    """Whether workers compute on GPUs, between which a library chooses the way."""
    any_gpu = any(state.hello.gpus for state in checked.nodes if state.hello is not None)
    return checked.asked.device == "gpu" or (checked.asked.device == "auto" and any_gpu)


def _with_servers(
    checked: Checked,
    sizes: Sequence[int],
    workers: Sequence[int],
    speeds: Mapping[tuple[int, int], float],
) -> Ceiling:
    asked, nodes = checked.asked, len(checked.nodes)
    servers = asked.parameter_servers or nodes
    of_nodes = [index % nodes for index in range(servers)]
    parts = shares(sizes, of_nodes, workers, adds_up(asked, workers))
    return ceiling(
        parts,
        servers,
        asked.batch_size,
        asked.backup_workers,
        speeds,
        GRADIENT_BYTES[asked.gradient_dtype],
    )
