"""Nodes that do not reach each other, found before TensorFlow starts: real hosts, real firewalls.

No host has iptables; a rule of the routing tables that drops what comes in does the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from command import Running
from faults import (
    REMOTE,
    SMALL,
    assert_nothing_left,
    ended,
    nodes_and_config,
    reach,
    run_to_end,
    said_of,
)
from hosts import NamespaceHosts
from test_strategies import Quiet

from launcher.errors import NodesFailed, PairUnreachable, PortTaken
from launcher.nodes import Node, read_nodes
from launcher.pairs import PORT_TAKEN
from launcher.plan import greeting, make_plan
from launcher.reachability import PairResult, Target, check_reachability, probe
from launcher.session import NodeOptions, Session
from launcher.tasks import Options, RunPlan
from launcher.transports.ssh import SshTransport
from perftest.protocol import NAME_UNKNOWN, NO_ROUTE, REACHED, REFUSED, STRANGER, TIMED_OUT

pytestmark = pytest.mark.network

ANYWHERE = "0.0.0.0"  # noqa: S104 - as a server of somebody else listens
ASKED = Options(model="deepmnist")
LISTENS = "import socket, time; s = socket.create_server(('{host}', {port}), backlog=99); "
SILENT = LISTENS + "print(flush=True); time.sleep(99)"
HANGS_UP = LISTENS + "print(flush=True); [s.accept()[0].close() for _ in range(99)]"
TALKS = LISTENS + (
    "print(flush=True); [s.accept()[0].sendall(b'HTTP/1.0 400 Bad request\\r\\n' * 9) "
    "for _ in range(99)]"
)


@contextmanager
def opened(hosts: NamespaceHosts, nodes: list[Node] | None = None) -> Iterator[Session]:
    """A session of both hosts, greeted."""
    found = nodes or read_nodes(hosts.nodes_file(0, 1))
    transport = SshTransport(ssh_config=hosts.ssh_config, warn=print)
    with Session(found, transport, NodeOptions(REMOTE, sys.executable), "s") as session:
        session.open(lambda node: greeting(ASKED, node, "s"), Quiet())
        yield session
    assert_nothing_left(hosts)


def planned(session: Session) -> RunPlan:
    return make_plan(ASKED, session.nodes, session.hellos)


def target(hosts: NamespaceHosts, node: int, port: int = 2222) -> Target:
    return Target(node, hosts.hosts[node].address, port)


@contextmanager
def rule(hosts: NamespaceHosts, at: int, *words: str) -> Iterator[None]:
    """A routing rule of a host that comes before all others, for as long as the block lasts."""

    def ip(*command: str) -> None:
        hosts.run(at, ["ip", *command])

    # What comes in is looked up too; the table of own addresses must not be asked first.
    ip("rule", "add", "from", "all", "lookup", "local", "pref", "100")
    ip("rule", "del", "pref", "0")
    ip("rule", "add", *words, "pref", "10")
    try:
        yield
    finally:
        ip("rule", "add", "from", "all", "lookup", "local", "pref", "0")
        ip("rule", "del", "pref", "10")
        ip("rule", "del", "pref", "100")


@contextmanager
def dropped(hosts: NamespaceHosts, source: int, at: int, port: int) -> Iterator[None]:
    """A firewall of a host that drops what comes from another one for a port, without a word."""
    address = hosts.hosts[source].address
    with rule(hosts, at, "from", address, "ipproto", "tcp", "dport", str(port), "blackhole"):
        yield


@contextmanager
def program(hosts: NamespaceHosts, at: int, text: str, **values: object) -> Iterator[None]:
    """A program of somebody else on a host; it has begun once it prints a line."""
    enter = ["nsenter", "--target", str(hosts._first_process(at)), "--net", "--"]
    code = text.format(**values)
    with subprocess.Popen(
        [*enter, sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield
        finally:
            process.kill()


def one(results: list[PairResult]) -> PairResult:
    (result,) = results
    return result


# --- the command -----------------------------------------------------------------------------


def test_a_firewall_between_two_nodes_is_noticed_before_tensorflow_starts(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    with dropped(hosts, 0, 1, 2230):
        done = run_to_end(*SMALL, *reach(hosts, 0, 1), cwd=tmp_path, within=15.0)
    said_of(done, node0=("no way to node1 (", "port 2230: no answer within 5 s", "firewall"))
    assert done.status == 1
    (record,) = tmp_path.glob("logs/runs/*/run.json")
    assert '"status": "failed"' in record.read_text()
    assert '"startup": []' in record.read_text(), "no task was started"
    assert_nothing_left(hosts)


def test_a_port_that_somebody_takes_after_the_greeting_is_noticed_before_tensorflow_starts(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    # The agent of node0 starts late: node1 has offered its ports by then, and a server takes one.
    late, go = hosts.path(0, "/tmp/late"), hosts.path(0, "/tmp/go")
    wait = '[ "$1" != -m ] || read -r line </tmp/go'
    late.write_text(f'#!/bin/sh\n{wait}\nexec {sys.executable} "$@"\n')
    late.chmod(0o755)
    os.mkfifo(go)
    where = nodes_and_config(hosts, tmp_path, 1, keys={0: "python=/tmp/late"})
    with Running(*SMALL, *where, cwd=tmp_path) as running:
        running.wait_for("node1: TensorFlow")
        with program(hosts, 1, SILENT, host=ANYWHERE, port=2222):
            go.write_text("\n")
            done = ended(running, 15.0)
    said_of(done, node1=("port 2222 of it cannot be listened on", "--port-base"))
    assert done.status == 1
    (record,) = tmp_path.glob("logs/runs/*/run.json")
    assert '"startup": []' in record.read_text(), "no task was started"
    go.unlink()
    assert_nothing_left(hosts)


def test_a_host_name_that_the_other_nodes_do_not_know_is_named(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_text(f"{hosts.hosts[0].address} node0\nnode1.nowhere.invalid node1\n")
    options = reach(hosts, 0, 1)
    options[1] = nodes
    done = run_to_end(*SMALL, *options, cwd=tmp_path, within=15.0)
    words = "no way to node1 (", "at node1.nowhere.invalid, ports 2222 and 2230: the host name is"
    assert done.status == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert_nothing_left(hosts)


# --- a run's check ---------------------------------------------------------------------------


def test_a_healthy_pair_is_quick_and_not_tried_again_before_the_next_run(
    hosts: NamespaceHosts,
) -> None:
    with opened(hosts) as session:
        plan = planned(session)
        assert 0 < check_reachability(session, plan) < 1.0
        with dropped(hosts, 0, 1, 2222):
            assert check_reachability(session, plan) < 0.1


def test_a_port_that_was_taken_since_the_greeting_is_named(hosts: NamespaceHosts) -> None:
    with opened(hosts) as session:
        plan = planned(session)
        began = time.monotonic()
        with program(hosts, 1, SILENT, host=ANYWHERE, port=2222):
            with pytest.raises(PortTaken) as caught:
                check_reachability(session, plan)
            assert "port 2222" in str(caught.value)
            assert str(caught.value).startswith("node1 (")
            assert "--port-base" in caught.value.mend
        assert time.monotonic() - began < 5.0
        check_reachability(session, plan)


def test_a_cable_that_is_cut_for_three_seconds_meanwhile_is_survived(
    hosts: NamespaceHosts,
) -> None:
    with opened(hosts) as session:
        hosts.link_down(1)
        mend = threading.Timer(3.0, hosts.link_up, [1])
        mend.start()
        try:
            assert 2.9 < check_reachability(session, planned(session)) < 9.0
        finally:
            mend.join()
            hosts.forget_outage(1)


def test_a_router_that_loses_its_way_for_a_moment_is_survived(hosts: NamespaceHosts) -> None:
    with opened(hosts) as session, ExitStack() as outage:
        outage.enter_context(rule(hosts, 0, "to", hosts.hosts[1].address, "unreachable"))
        mend = threading.Timer(1.0, outage.close)
        mend.start()
        try:
            assert 0.9 < check_reachability(session, planned(session)) < 3.0
        finally:
            mend.join()


def test_all_that_is_wrong_is_in_one_report(hosts: NamespaceHosts) -> None:
    with opened(hosts) as session:
        plan = planned(session)
        taken = program(hosts, 1, SILENT, host=ANYWHERE, port=2222)
        with taken, dropped(hosts, 1, 0, 2230), pytest.raises(NodesFailed) as caught:
            check_reachability(session, plan, seconds=1.0)
    assert [type(failure) for failure in caught.value.failures] == [PortTaken, PairUnreachable]


def test_a_way_that_is_cut_one_way_is_told_for_each_with_what_came_of_it(
    hosts: NamespaceHosts,
) -> None:
    # node1 has no way to node0, and so none back either: what node0 sends is never answered.
    with (
        opened(hosts) as session,
        rule(hosts, 1, "to", hosts.hosts[0].address, "prohibit"),
        pytest.raises(NodesFailed) as caught,
    ):
        check_reachability(session, planned(session), seconds=1.0)
    told = sorted(map(str, caught.value.failures))
    assert len(told) == 2
    assert told[0].startswith("node0 (")
    assert "ports 2222 and 2230: no answer within 1 s" in told[0]
    assert told[1].startswith("node1 (")
    assert "ports 2222 and 2230: the network does not go there" in told[1]


def test_a_run_of_one_process_tries_nothing(hosts: NamespaceHosts) -> None:
    asked = Options(model="deepmnist", strategy="single", workers=1)
    with opened(hosts) as session:
        plan = make_plan(asked, session.nodes, session.hellos)
        check_reachability(session, plan)
        assert session.reached == set()


def test_only_ways_that_tensorflow_will_use_are_tried() -> None:
    with NamespaceHosts(3) as three, opened(three, read_nodes(three.nodes_file())) as session:
        # Workers do not call each other; with a server on each of their nodes they would have to.
        one_server = replace(ASKED, parameter_servers=1)
        with rule(three, 1, "from", three.hosts[2].address, "blackhole"):
            plan = make_plan(one_server, session.nodes, session.hellos)
            assert check_reachability(session, plan, seconds=1.0) < 1.0
            with pytest.raises(NodesFailed) as caught:
                check_reachability(session, planned(session), seconds=1.0)
    told = sorted(str(failure) for failure in caught.value.failures)
    assert [text.split(" (")[0] for text in told] == ["node1", "node2"], told


# --- single addresses ------------------------------------------------------------------------


def test_a_network_that_refuses_is_told_from_one_that_is_silent(hosts: NamespaceHosts) -> None:
    with opened(hosts) as session:
        target1 = target(hosts, 1)
        address = ("to", target1.host, "ipproto", "tcp", "dport", "2222")
        with rule(hosts, 0, *address, "prohibit"):
            assert one(probe(session, {0: [target1]})).outcome == NO_ROUTE
        with rule(hosts, 0, *address, "unreachable"):  # which might have passed
            result = one(probe(session, {0: [target1]}, seconds=0.5))
            assert (result.outcome, result.detail) == (NO_ROUTE, "Network is unreachable")
        with dropped(hosts, 0, 1, 2222):
            began = time.monotonic()
            assert one(probe(session, {0: [target1]}, seconds=1.0)).outcome == TIMED_OUT
            assert 0.9 < time.monotonic() - began < 3.0
        elsewhere = Target(1, hosts.gateway, 2222)
        assert one(probe(session, {0: [elsewhere]})).outcome == REFUSED
        nameless = Target(1, "nowhere.invalid", 2222)
        assert one(probe(session, {0: [nameless]}, seconds=2.0)).outcome == NAME_UNKNOWN
        assert one(probe(session, {0: [target1]})).outcome == REACHED


@pytest.mark.parametrize(
    ("code", "says"),
    [(SILENT, "says nothing"), (HANGS_UP, "hung up"), (TALKS, "another program answered")],
    ids=["silent", "hangs up", "talks"],
)
def test_somebody_else_at_the_address_is_told_from_our_agent(
    hosts: NamespaceHosts, code: str, says: str
) -> None:
    # The address that is listed for node1 leads to this machine, where something else listens.
    elsewhere = Target(1, hosts.hosts[0].address, 2300)
    with opened(hosts) as session, program(hosts, 0, code, host=elsewhere.host, port=2300):
        result = one(probe(session, {0: [elsewhere]}, seconds=1.0))
    assert (result.outcome, says in result.detail) == (STRANGER, True), result


def test_an_address_that_leads_to_another_node_of_the_test_is_told_so(
    hosts: NamespaceHosts,
) -> None:
    wrong = Target(1, hosts.hosts[0].address, 2222)
    with opened(hosts) as session:
        right = [target(hosts, 0), target(hosts, 1)]
        first, *others = probe(session, {0: [wrong, *right]})
    assert first.outcome == STRANGER
    assert "another node of this test" in first.detail
    assert {result.outcome for result in others} == {REACHED}


def test_a_port_that_its_own_node_cannot_have_is_not_tried(hosts: NamespaceHosts) -> None:
    with opened(hosts) as session, program(hosts, 1, SILENT, host=ANYWHERE, port=2222):
        result = one(probe(session, {0: [target(hosts, 1)]}))
    assert (result.outcome, result.detail) == (PORT_TAKEN, "Address already in use")


# --- how fast --------------------------------------------------------------------------------


def test_latency_and_bandwidth_of_a_link_are_those_that_it_has(hosts: NamespaceHosts) -> None:
    shape = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "100mbit"]
    with opened(hosts) as session:
        wanted = {0: [target(hosts, 1)]}
        free = one(probe(session, wanted, bandwidth_bytes=64 << 20))
        hosts.run(0, [*shape, "burst", "32kbit", "latency", "400ms"])
        try:
            began = time.monotonic()
            shaped = one(probe(session, wanted, bandwidth_bytes=256 << 20))
            seconds = time.monotonic() - began
        finally:
            hosts.run(0, ["tc", "qdisc", "del", "dev", "eth0", "root"])
    assert free.latency_seconds is not None
    assert free.bytes_per_second is not None
    assert 0 < free.latency_seconds < 0.05
    assert free.bytes_per_second > 4 * 100e6 / 8
    assert shaped.bytes_per_second == pytest.approx(100e6 / 8, rel=0.25)
    assert seconds < 8.0, "a slow link is measured for a second, and not for the 21 that all takes"
