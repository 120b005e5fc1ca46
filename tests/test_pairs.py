"""Who has to reach whom in a run, and what is said of those that do not. Nothing is opened."""

from __future__ import annotations

from dataclasses import replace

from test_plan import hello, nodes, plan

from launcher.errors import ConnectionLost, PairUnreachable, PortTaken
from launcher.nodes import Node
from launcher.pairs import (
    NO_ANSWER,
    NOT_LISTENING,
    PORT_TAKEN,
    PairResult,
    Target,
    failures,
    needed_pairs,
)
from launcher.tasks import RunPlan
from perftest.protocol import OUTCOMES, REACHED, REFUSED, TIMED_OUT


def ports_by_pair(made: RunPlan) -> dict[tuple[int, int], set[int]]:
    found: dict[tuple[int, int], set[int]] = {}
    for source, targets in needed_pairs(made).items():
        for target in targets:
            found.setdefault((source, target.node), set()).add(target.port)
    return found


def test_workers_call_servers_and_servers_call_all() -> None:
    # As seen in the sockets of three hosts in a run of DeepMNIST, synchronous and asynchronous.
    expected = {
        (0, 0): {2222, 2230},
        (0, 1): {2222, 2230},
        (0, 2): {2230},
        (1, 0): {2222, 2230},
        (1, 1): {2222, 2230},
        (1, 2): {2230},
        (2, 0): {2222},
        (2, 1): {2222},
    }
    three = [hello(i) for i in range(3)]
    assert ports_by_pair(plan(three, parameter_servers=2)) == expected
    assert ports_by_pair(plan(three, parameter_servers=2, synchronous=False)) == expected


def test_workers_call_the_one_of_their_node_that_adds_up() -> None:
    made = plan([hello(0), hello(1)], parameter_servers=1, gpus_per_node=2)
    every = {2222, 2230, 2231}
    assert ports_by_pair(made) == {
        (0, 0): every,
        (0, 1): {2230, 2231},
        (1, 0): {2222},
        (1, 1): {2230},
    }
    by_themselves = plan(
        [hello(0), hello(1)], parameter_servers=1, gpus_per_node=2, aggregation="none"
    )
    assert (1, 1) not in ports_by_pair(by_themselves)


def test_without_servers_all_workers_call_each_other() -> None:
    made = plan([hello(0), hello(1)], strategy="all_reduce", gpus_per_node=2)
    every = {2230, 2231}
    assert ports_by_pair(made) == {(i, j): every for i in (0, 1) for j in (0, 1)}


def test_a_single_process_calls_nobody() -> None:
    assert needed_pairs(plan([hello()], strategy="single")) == {}


def test_nodes_of_one_network_stack_are_one_caller() -> None:
    made = plan([hello(), hello()], [Node("127.0.0.1", "a"), Node("127.0.0.1", "b")])
    (targets,) = needed_pairs(made).values()
    assert sorted(target.port for target in targets) == [2222, 2223, 2230, 2231]
    assert [target.node for target in sorted(targets, key=lambda t: t.port)] == [0, 1, 0, 1]


def test_an_address_of_many_colons_is_taken_apart_right() -> None:
    made = plan([hello(0), hello(1)], [Node("fe80::1", "a"), Node("::1", "b")])
    assert {target.host for target in needed_pairs(made)[0]} == {"fe80::1", "::1"}


def test_very_many_nodes_share_the_tries_and_leave_no_address_out() -> None:
    made = plan([hello(i) for i in range(600)])
    needed = needed_pairs(made)
    assert len(needed) == 600
    assert sum(map(len, needed.values())) <= 1 << 16
    tried = {target for targets in needed.values() for target in targets}
    assert len(tried) == 1200
    assert all(len(set(targets)) == len(targets) > 100 for targets in needed.values())


# --- the report ------------------------------------------------------------------------------


def failed(source: int, node: int, port: int, outcome: str, detail: str = "") -> PairResult:
    return PairResult(source, Target(node, f"host{node}", port), outcome, None, None, detail)


def test_what_is_reached_is_no_failure() -> None:
    assert failures([failed(0, 1, 2222, REACHED)], nodes(2), 5.0) == []


def test_those_who_fail_alike_share_a_line() -> None:
    results = [failed(i, 3, port, TIMED_OUT) for i in (0, 1, 2) for port in (2230, 2222)]
    results += [failed(0, 1, 2222, TIMED_OUT), failed(2, 1, 2222, REFUSED)]
    all_to_3, to_1, refused = failures(results, nodes(4), 5.0)
    assert all(isinstance(error, PairUnreachable) for error in (all_to_3, to_1, refused))
    assert str(all_to_3).startswith(
        "node0 (nodes, line 1), node1 (nodes, line 2), node2 (nodes, line 3): "
        "no way to node3 (nodes, line 4) at host3, ports 2222 and 2230: no answer within 5 s. Try: "
    )
    assert to_1.node == "node0 (nodes, line 1)"
    assert "port 2222: connection refused" in str(refused)


def test_the_causes_of_a_port_that_is_taken_are_told_once() -> None:
    results = [failed(i, 1, 2222, PORT_TAKEN, "Address already in use") for i in (0, 1, 2)]
    (error,) = failures(results, nodes(3), 5.0)
    assert isinstance(error, PortTaken)
    assert error.node == "node1 (nodes, line 2)"
    assert "port 2222" in error.reason


def test_a_node_that_does_not_answer_is_told_once_whoever_missed_it() -> None:
    results = [failed(1, 0, 2222, NO_ANSWER, "gone"), failed(0, 1, 2222, NOT_LISTENING, "gone")]
    (error,) = failures(results, nodes(2), 5.0)
    assert isinstance(error, ConnectionLost)
    assert str(error).startswith("node1 (nodes, line 2): gone")


def test_every_outcome_has_words_and_a_mend() -> None:
    for outcome in set(OUTCOMES) - {REACHED}:
        for where in ("", "nodes, line 2"):
            two = [replace(node, where=where) for node in nodes(2)]
            (error,) = failures([failed(0, 1, 2222, outcome, "why")], two, 5.0)
            assert "(why)" in str(error)
            assert ". Try: " in str(error)
            assert "first column of" in error.mend


def test_many_ports_and_many_nodes_do_not_fill_the_screen() -> None:
    results = [failed(i, 9, 2222 + k, TIMED_OUT) for i in range(9) for k in range(64)]
    (error,) = failures(results, nodes(10), 5.0)
    assert "ports 2222, 2223, 2224, 2225, 2226, 2227 ... (64 of them)" in error.reason
    assert error.node == "node0, node1, node2, node3, node4, node5, node6, node7, node8"
