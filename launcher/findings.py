"""Facts -> findings: what of a check would make a run fail, or disturb it. Opens nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from launcher import errors
from launcher.checked import (
    FAILURE,
    OK,
    WARNING,
    Checked,
    Finding,
    NodeState,
    groups,
    listed,
    merge,
)
from launcher.findings_machine import device_findings, machine_findings
from launcher.findings_network import link_findings, name_findings
from launcher.placement import WORKER_PORT_OFFSET
from launcher.tasks import GET_HOROVOD, HOROVOD, OVER_THE_NETWORK, PARAMETER_SERVER_STRATEGY

_CLOCK_SECONDS = 1.0

_CODES: dict[type[errors.NodeError], str] = {
    errors.Unreachable: "unreachable",
    errors.HostKeyUnknown: "host_key_unknown",
    errors.HostKeyChanged: "host_key_changed",
    errors.AuthenticationFailed: "authentication_failed",
    errors.SshConfigError: "ssh_config",
    errors.ShellError: "login_shell",
    errors.RemoteDirectoryError: "remote_directory",
    errors.PythonMissing: "python_missing",
    errors.TensorFlowMissing: "tensorflow_missing",
    errors.ProtocolError: "protocol",
    errors.ConnectionLost: "connection_lost",
}


def find(checked: Checked) -> list[Finding]:
    """Every finding, the worst first.

    An area in which a node has none is one finding more, that it is in order there.
    """
    found: list[Finding] = []
    for area in _AREAS:
        here = list(area.find(checked))
        found += here
        told = {alias for one in here for alias in one.nodes}
        found += [
            Finding((state.node.alias,), OK, area.code, area.in_order)
            for state in checked.nodes
            if state.node.alias not in told and area.examined(checked, state)
        ]
    found += model_findings(checked)
    if checked.plan_problem and not any(one.mark == FAILURE for one in found):
        why, _, mend = checked.plan_problem.partition(". Try: ")
        found.append(Finding((), FAILURE, "plan", why, mend or "other options"))
    return merge(found)


def connection_findings(checked: Checked) -> Iterator[Finding]:
    """Nodes that cannot be used, each with the reason and mend that `run` would give."""
    for state in checked.nodes:
        if state.failure is not None:
            code = _CODES.get(type(state.failure), "node")
            alias, failure = state.node.alias, state.failure
            yield Finding((alias,), FAILURE, code, failure.reason, failure.mend)
        elif state.inspection is None and state.hello is not None:
            text = f"its state could not be looked at: {state.inspection_problem or 'no answer'}"
            mend = "look at it by hand: nvidia-smi, df and free there"
            yield Finding((state.node.alias,), WARNING, "not_inspected", text, mend)


def version_findings(checked: Checked) -> Iterator[Finding]:
    """Differences that make a run fail (TensorFlow, Keras), or may make it differ."""
    mend = "install one version on all, or name an interpreter with python= in the nodes file"
    with_horovod = checked.asked.strategy == HOROVOD
    without = tuple(
        state.node.alias
        for state in checked.nodes
        if with_horovod and state.hello is not None and not state.hello.versions.horovod
    )
    if without:
        yield Finding(
            without,
            FAILURE,
            "horovod_missing",
            "has no Horovod, and --strategy horovod is asked for",
            GET_HOROVOD,
        )
    for what, of, mark in (
        ("TensorFlow", lambda hello: hello.versions.tensorflow, FAILURE),
        ("Keras", lambda hello: hello.versions.keras, FAILURE),
        ("Python", lambda hello: ".".join(hello.versions.python.split(".")[:2]), WARNING),
        ("h5py", lambda hello: hello.versions.h5py or "none", WARNING),
    ):
        aliases = groups(checked.nodes, of)
        aliases.pop("", None)  # no TensorFlow at all is told elsewhere
        if len(aliases) > 1:
            text = f"the nodes have different versions of {what}: {listed(aliases)}"
            everyone = tuple(alias for some in aliases.values() for alias in some)
            yield Finding(everyone, mark, f"{what.lower()}_differs", text, mend)


def port_findings(checked: Checked) -> Iterator[Finding]:
    """Ports that are taken."""
    asked = checked.asked
    if asked.strategy not in OVER_THE_NETWORK:
        return
    has_servers = asked.strategy == PARAMETER_SERVER_STRATEGY
    sharing = groups(checked.nodes, lambda hello: f"{hello.machine} {hello.network}")
    for state in checked.nodes:
        if state.hello is None:
            continue
        first = state.node.first_port or asked.first_port
        servers = (asked.parameter_servers or 1) if has_servers else 0
        workers, alias, free = asked.gpus_per_node, (state.node.alias,), state.hello.free_ports
        if not has_servers:
            free = tuple(port for port in free if port >= first + WORKER_PORT_OFFSET)
        mend = "--port-base with another first port, or port= for this node"
        if len(free) < servers + workers:
            text = f"too few free ports from {first} on: {len(free)} of {servers + workers}"
            yield Finding(alias, FAILURE, "no_free_port", text, mend)
            continue
        wanted = [first + WORKER_PORT_OFFSET + i for i in range(workers)]
        wanted += [first + i for i in range(min(servers, WORKER_PORT_OFFSET))]
        alone = len(sharing[f"{state.hello.machine} {state.hello.network}"]) == 1
        taken = sorted(set(wanted) - set(free))
        if alone and taken:
            text = (
                f"port {', '.join(map(str, taken))} is taken; a run would use "
                f"{', '.join(map(str, free))}, which a firewall must let through, too"
            )
            yield Finding(alias, WARNING, "port_taken", text, mend)


def clock_findings(checked: Checked) -> Iterator[Finding]:
    """Clocks that are off by more than a second."""
    for state in checked.nodes:
        clock = state.clock
        if clock and abs(clock.seconds) - clock.uncertainty_seconds > _CLOCK_SECONDS:
            ahead = "ahead of" if clock.seconds > 0 else "behind"
            text = (
                f"its clock is {abs(clock.seconds):.1f} s {ahead} this machine's; steps are "
                "timed by monotonic clocks, so that only times of files and logs are off"
            )
            mend = "timedatectl set-ntp true on the node"
            yield Finding((state.node.alias,), WARNING, "clock_offset", text, mend)


def model_findings(checked: Checked) -> Iterator[Finding]:
    """A network that the node that was asked cannot build."""
    if checked.count is not None and checked.count.problem:
        text = f"{checked.asked.model} cannot be built there: {checked.count.problem}"
        yield Finding((checked.counted_by,), FAILURE, "model", text, "runtest run --help")


@dataclass(frozen=True)
class Area:
    """A kind of findings. in_order: what is said of a node that was examined and has none.

    examined: whether enough is known of a node to say so.
    """

    code: str
    find: Callable[[Checked], Iterator[Finding]]
    in_order: str
    examined: Callable[[Checked, NodeState], bool]


def _answered(checked: Checked, state: NodeState) -> bool:
    return state.hello is not None


def _inspected(checked: Checked, state: NodeState) -> bool:
    return state.hello is not None and state.inspection is not None


def _has_fellows(checked: Checked, state: NodeState) -> bool:
    return state.hello is not None and sum(each.hello is not None for each in checked.nodes) > 1


def _all_inspected(checked: Checked, state: NodeState) -> bool:
    states = [each for each in checked.nodes if each.hello is not None]
    return _has_fellows(checked, state) and all(each.inspection for each in states)


def _has_clock(checked: Checked, state: NodeState) -> bool:
    return state.clock is not None


def _was_probed(checked: Checked, state: NodeState) -> bool:
    return any(checked.nodes[i] is state for i in checked.probed)


_AREAS = (
    Area(
        "connection",
        connection_findings,
        "reached; directory, Python and TensorFlow will do",
        _answered,
    ),
    Area("versions", version_findings, "the same versions as the others", _has_fellows),
    Area("devices", device_findings, "the processors or GPUs that are asked for", _answered),
    Area("machine", machine_findings, "nothing that disturbs a measurement", _inspected),
    Area("ports", port_findings, "the ports of a run are free", _answered),
    Area("clock", clock_findings, "clock right to a second", _has_clock),
    Area("names", name_findings, "data address known to the other nodes", _all_inspected),
    Area("links", link_findings, "reaches the ports of the other nodes", _was_probed),
)
