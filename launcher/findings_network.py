"""Findings about the network: what the data addresses mean, and which links work."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator

from launcher.checked import FAILURE, WARNING, Checked, Finding, Link, NodeState
from perftest.protocol import Hello, NetworkInterface, ResolvedName

_MBIT = 1_000_000 / 8
_SLOW_MBIT = 100
# Above this one stream of ours is no measure of the hardware.
_STREAM_LIMIT_MBIT = 25_000

PORTS_NOTE = (
    "TensorFlow's ports authenticate nobody: whoever reaches them can run code on the nodes. "
    "Run only where every machine that reaches them is trusted"
)


def name_findings(checked: Checked) -> Iterator[Finding]:
    """What the first column of the nodes file means to the nodes themselves."""
    named: dict[str, list[NodeState]] = defaultdict(list)
    for state in checked.nodes:
        yield from _public(state, checked)
        named[state.node.hostname].append(state)
    meant: dict[tuple[str, str], list[str]] = defaultdict(list)
    for seer in checked.nodes:
        for answer in seer.inspection.resolved if seer.inspection else ():
            for state in named.get(answer.name, ()):
                if trouble := _trouble(state, seer, answer):
                    meant[state.node.alias, trouble].append(seer.node.alias)
    nodes = {state.node.alias: state for state in checked.nodes}
    is_spread = len({(h.machine, h.network) for s in checked.nodes if (h := s.hello)}) > 1
    for (alias, trouble), seers in meant.items():
        harmless = not is_spread or _is_local_name(nodes[alias].node.hostname)
        if not (harmless and trouble.startswith("own_loopback")):
            yield _name_finding(nodes[alias], trouble, tuple(seers))


def _trouble(state: NodeState, seer: NodeState, answer: ResolvedName) -> str:
    """A word for what is wrong with `state`'s data address as `seer` sees it, and its details."""
    if state.hello is None or seer.hello is None:
        return ""
    if not answer.addresses:
        return f"unknown {answer.problem}"
    first = answer.addresses[0]
    if _is_loopback(first):
        if not _shares_ports(state.hello, seer.hello):
            return f"loopback {first}"
        return f"own_loopback {first}" if state is seer else ""
    if not set(answer.addresses) & set(state.hello.addresses):
        return f"elsewhere {first}"
    return ""


def _name_finding(state: NodeState, trouble: str, seers: tuple[str, ...]) -> Finding:
    kind, _, detail = trouble.partition(" ")
    name, alias = state.node.hostname, state.node.alias
    column = "in the first column of the nodes file, an address that all nodes can use"
    if kind == "unknown":
        text = f"{name}, the data address of {alias}, means nothing there: {detail}"
        return Finding(seers, FAILURE, "name_unknown", text, column)
    if kind == "loopback":
        text = f"{name}, the data address of {alias}, means {detail} there: the machine itself"
        return Finding(seers, FAILURE, "name_loopback", text, column)
    if kind == "own_loopback":
        text = f"{name}, its data address, means {detail} to itself and not to the others"
        mend = f"take {name} off the line of {detail} in /etc/hosts there"
        return Finding(seers, WARNING, "name_own_loopback", text, mend)
    text = f"{name}, the data address of {alias}, means {detail} there, which {alias} does not have"
    return Finding(seers, WARNING, "address_elsewhere", text, column)


def _public(state: NodeState, checked: Checked) -> Iterator[Finding]:
    found: dict[str, None] = {}
    for address in data_addresses(state, checked):
        try:
            if ipaddress.ip_address(address.partition("%")[0]).is_global:
                found[address] = None
        except ValueError:
            continue
    if found:
        text = (
            f"its data address is public ({', '.join(list(found)[:4])}), and TensorFlow's ports "
            "authenticate nobody"
        )
        mend = "an address of a private network in the first column, or a firewall"
        yield Finding((state.node.alias,), WARNING, "public_address", text, mend)


def data_addresses(state: NodeState, checked: Checked) -> list[str]:
    """What a node's data address means, to any node that was asked; the name itself where none."""
    return checked.meanings.get(state.node.hostname) or [state.node.hostname]


def data_interface(state: NodeState, checked: Checked) -> NetworkInterface | None:
    """The interface that carries a node's data address, if it is known."""
    addresses = set(data_addresses(state, checked))
    for interface in state.inspection.interfaces if state.inspection else ():
        if addresses & set(interface.addresses):
            return interface
    return None


def link_findings(checked: Checked) -> Iterator[Finding]:
    """Pairs that do not reach each other, and interfaces and links that are slow."""
    broken: dict[tuple[int, int, str], list[str]] = defaultdict(list)
    for link in checked.links:
        if not link.reachable:
            broken[link.source, link.target, link.detail].append(str(link.port))
        elif finding := _bad_transfer(checked, link) or _slow_link(checked, link):
            yield finding
    for (source, target, why), ports in broken.items():
        to, where = checked.nodes[target].node, f"port {', '.join(ports)}"
        text = f"does not reach {to.alias} at {to.hostname} {where}: {why}"
        mend = f"let TCP {where}, and those after, through between the nodes"
        yield Finding((checked.nodes[source].node.alias,), FAILURE, "link", text, mend)
    for state in checked.nodes:
        interface = data_interface(state, checked)
        if interface and interface.speed_mbit and interface.speed_mbit <= _SLOW_MBIT:
            speed = f"{interface.speed_mbit} Mbit/s"
            text = f"{interface.name}, which has its data address, does {speed}"
            mend = "another address in the first column, or look at the cable"
            yield Finding((state.node.alias,), WARNING, "slow_interface", text, mend)


def _bad_transfer(checked: Checked, link: Link) -> Finding | None:
    """A link that lets small messages through and no large ones."""
    if not link.detail:
        return None
    source, target = (checked.nodes[i].node for i in (link.source, link.target))
    text = f"reaches {target.alias} at {target.hostname}, but: {link.detail}"
    mend = "look at the MTU of the interfaces and of the switch between them"
    return Finding((source.alias,), WARNING, "transfer", text, mend)


def _slow_link(checked: Checked, link: Link) -> Finding | None:
    """A link that carries less than half of what the interfaces at its ends say."""
    ends = [data_interface(checked.nodes[i], checked) for i in (link.source, link.target)]
    speeds = [end.speed_mbit for end in ends if end is not None and end.speed_mbit]
    if link.bytes_per_second is None or len(speeds) < 2 or min(speeds) > _STREAM_LIMIT_MBIT:
        return None
    measured = link.bytes_per_second / _MBIT
    if measured >= min(speeds) / 2:
        return None
    target = checked.nodes[link.target].node.alias
    text = f"{measured:.0f} Mbit/s to {target}, over interfaces of {min(speeds)} Mbit/s"
    mend = "look at the switch, the cable, and who else uses them"
    return Finding((checked.nodes[link.source].node.alias,), WARNING, "slow_link", text, mend)


def _is_local_name(name: str) -> bool:
    """Whether the name says by itself that it is nobody else's: the others tell of it, then."""
    return name.lower().startswith("localhost") or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _shares_ports(a: Hello, b: Hello) -> bool:
    return (a.machine, a.network) == (b.machine, b.network)
