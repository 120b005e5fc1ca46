"""What is printed of a check: facts of the nodes, links, findings, ceiling; fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher.check_verdict import Verdict
from launcher.checked import FAILURE, HERE, MARKS, OK, WARNING, Checked, Finding, Link, NodeState
from launcher.findings_network import data_interface
from perftest.protocol import Gpu, Hello

_STYLES = {FAILURE: "bold red", WARNING: "yellow", OK: "green"}
_GIB = 1 << 30
_MOST_NAMES = 4
_MOST_LINKS = 16


def print_check(console: Console, verdict: Verdict) -> None:
    """All of it: what was found of each node, the links, and then what to make of it."""
    console.print(_facts_table(verdict.checked), "")
    if any(link.bytes_per_second for link in verdict.checked.links):
        console.print(_links_table(verdict.checked), "")
    if verdict.ceiling is not None:
        for line in ceiling_lines(verdict):
            console.print(escape(line), highlight=False)
        console.print()
    console.print(_findings_table(verdict), "")
    for note in verdict.notes:
        console.print(f"note: {escape(note)}.", highlight=False)
    console.print(last_line(verdict), highlight=False, soft_wrap=True)


def last_line(verdict: Verdict) -> str:
    """`check: 4 nodes, 1 failure, 2 warnings: a run would fail`."""
    counts = {mark: sum(one.mark == mark for one in verdict.findings) for mark in MARKS}
    end = "a run would fail" if verdict.would_fail else "a run can start"
    return (
        f"check: {_count(len(verdict.checked.nodes), 'node')}, "
        f"{_count(counts[FAILURE], 'failure')}, {_count(counts[WARNING], 'warning')}: {end}"
    )


def _facts_table(checked: Checked) -> Table:
    table = _table("node", "what it is")
    for state in checked.nodes:
        table.add_row(escape(state.node.alias), escape("\n".join(_facts(state, checked))))
    return table


def _facts(state: NodeState, checked: Checked) -> Iterator[str]:
    hello, seen = state.hello, state.inspection
    if hello is None:
        yield "nothing is known of it"
        return
    yield f"{len(hello.cpus)} × {hello.cpu_model or 'unknown processor'}" + (
        f", {' '.join(seen.instruction_sets)}" if seen else ""
    )
    yield from _gpu_lines(hello)
    memory = f"{hello.memory_bytes / _GIB:.1f} GiB of memory"
    if seen:
        memory += f", {seen.memory_available_bytes / _GIB:.1f} free; load {seen.load:.1f}"
    yield memory
    yield f"{hello.disk_free_bytes / _GIB:.1f} GiB of disk free in {hello.directory}"
    versions = hello.versions
    yield (
        f"Python {versions.python}, TensorFlow {versions.tensorflow or 'none'}, "
        f"Keras {versions.keras or 'none'}, h5py {versions.h5py or 'none'}"
    )
    yield from _network(state, hello, checked)


def _gpu_lines(hello: Hello) -> Iterator[str]:
    kinds: dict[tuple[str, int, str], list[Gpu]] = {}
    for gpu in hello.gpus:
        kinds.setdefault((gpu.name, gpu.memory_mib, gpu.driver), []).append(gpu)
    for (name, memory, driver), some in kinds.items():
        yield f"{len(some)} × {name}, {memory / 1024:.1f} GiB, driver {driver}"
    if not kinds:
        yield f"no GPU ({hello.gpu_problem})" if hello.gpu_problem else "no GPU"


def _network(state: NodeState, hello: Hello, checked: Checked) -> Iterator[str]:
    interface = data_interface(state, checked)
    ports = f"free ports {' '.join(map(str, hello.free_ports[:8])) or 'none'}"
    if interface is not None:
        speed = f"{interface.speed_mbit} Mbit/s" if interface.speed_mbit else "speed unknown"
        yield f"{state.node.hostname} on {interface.name} ({speed}), {ports}"
    else:
        yield f"{state.node.hostname}, {ports}"
    if state.clock is not None:
        off, doubt = state.clock.seconds, state.clock.uncertainty_seconds
        yield f"clock {off * 1e3:+.1f} ± {doubt * 1e3:.1f} ms against this machine's"


def _links_table(checked: Checked) -> Table:
    table = _table("link", "round trip", "bandwidth")
    measured = sorted(
        (link for link in checked.links if link.bytes_per_second is not None), key=_speed
    )
    for link in measured[:_MOST_LINKS]:
        source, target = (checked.nodes[i].node.alias for i in (link.source, link.target))
        latency = "" if link.latency_seconds is None else f"{link.latency_seconds * 1e3:.2f} ms"
        table.add_row(escape(f"{source} → {target}"), latency, bandwidth(_speed(link)))
    if len(measured) > _MOST_LINKS:
        table.add_row(f"{len(measured) - _MOST_LINKS} more, none slower", "", "")
    return table


def _speed(link: Link) -> float:
    return link.bytes_per_second or 0.0


def bandwidth(bytes_per_second: float) -> str:
    """In Mbit/s or Gbit/s, as interfaces are sold."""
    mbit = bytes_per_second * 8 / 1e6
    return f"{mbit / 1000:.2f} Gbit/s" if mbit >= 1000 else f"{mbit:.1f} Mbit/s"


def ceiling_lines(verdict: Verdict) -> Iterator[str]:
    """What the network sets, and from what."""
    top, checked = verdict.ceiling, verdict.checked
    if top is None:
        return
    servers = f"{_count(top.servers, 'parameter server')}, " if top.servers else ""
    yield (
        f"{checked.asked.model}: {top.parameter_bytes / 1e6:.1f} MB of parameters "
        f"(counted by {checked.counted_by}), {_count(top.workers, 'worker')}, "
        f"{servers}batch {top.batch_size}"
    )
    if len(checked.nodes) == 1:
        yield "one node: nothing crosses a network, which sets no ceiling"
    elif top.seconds_per_step is None or top.images_per_second is None:
        yield "no link was measured: the ceiling of the network is not known"
    else:
        known = [link for link in top.links if link.seconds is not None]
        worst = max(known, key=lambda link: link.seconds or 0.0)
        alias = checked.nodes[worst.node].node.alias
        yield (
            f"network: {worst.bytes_each_way / 1e6:.1f} MB a step each way through the link of "
            f"{alias}: at least {figure(top.seconds_per_step * 1e3)} ms a step, at most "
            f"{figure(top.images_per_second)} images/sec"
        )
        if len(known) < len(top.links):
            yield f"only {len(known)} of {len(top.links)} nodes' links were measured"


def figure(number: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _findings_table(verdict: Verdict) -> Table:
    table = _table("mark", "node", "finding")
    for one in verdict.findings:
        text = escape(one.text) + (f"\n[dim]try:[/] {escape(one.mend)}" if one.mend else "")
        mark = f"[{_STYLES[one.mark]}]{one.mark}[/]"
        table.add_row(mark, escape(_who(one, verdict.checked)), text)
    return table


def _who(one: Finding, checked: Checked) -> str:
    nodes = one.nodes
    if one.code in HERE:
        return "this machine"
    answered = [state.node.alias for state in checked.nodes if state.hello is not None]
    if len(nodes) in (0, len(checked.nodes)) and len(checked.nodes) > 1:
        return "all"
    if len(nodes) > 1 and set(nodes) == set(answered):
        return "all reached"
    more = [f"and {len(nodes) - _MOST_NAMES} more"] if len(nodes) > _MOST_NAMES else []
    return "\n".join([*nodes[:_MOST_NAMES], *more])


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns[:-1]:
        table.add_column(column, overflow="fold", max_width=24)
    table.add_column(columns[-1], overflow="fold")
    return table


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
