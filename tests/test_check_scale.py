"""A check of very many nodes: who tries whom, and what judging and telling it costs."""

from __future__ import annotations

import io
import time
from collections import Counter
from dataclasses import replace

import pytest
from check_examples import COUNT, inspection, state
from rich.console import Console

from launcher.check import _others, _turns
from launcher.check_json import check_json
from launcher.check_report import print_check
from launcher.check_verdict import judge
from launcher.checked import OK, Checked, Link
from launcher.nodes import Node
from launcher.tasks import Options
from perftest.protocol import ResolvedName


def test_few_nodes_try_all_others_and_many_those_that_follow() -> None:
    assert _others(range(3), 1) == [2, 0]
    tried = Counter(other for place in range(1000) for other in _others(range(1000), place))
    assert set(tried.values()) == {128}
    assert 1 in _others(range(1000), 0)


@pytest.mark.parametrize("nodes", [2, 3, 4, 7])
def test_each_link_of_the_ring_is_measured_once_and_no_node_twice_at_a_time(nodes: int) -> None:
    turns = _turns(range(nodes))
    assert sorted(pair for turn in turns for pair in turn) == [
        (i, (i + 1) % nodes) for i in range(nodes)
    ]
    for turn in turns:
        ends = [end for pair in turn for end in pair]
        assert len(ends) == len(set(ends))


def test_a_thousand_nodes_are_judged_and_told_in_seconds() -> None:
    count, others = 1000, 40
    addresses = [f"10.0.{i // 200}.{i % 200 + 1}" for i in range(count)]
    states = []
    for i, address in enumerate(addresses):
        good = state(i, 1)
        assert good.hello is not None
        answers = tuple(
            ResolvedName(name, (name,), "")
            for name in [addresses[(i + step) % count] for step in range(others + 1)]
        )
        states.append(
            replace(
                good,
                node=Node(address, f"n{i}"),
                hello=replace(good.hello, addresses=(address,)),
                inspection=inspection(i, 1, resolved=answers),
            )
        )
    links = tuple(
        Link(i, (i + step) % count, 2222, True, 0.001, 1e9 if step == 1 else None)
        for i in range(count)
        for step in range(1, others + 1)
    )
    facts = Checked(Options("resnet50"), tuple(states), links, COUNT, "n0")
    before = time.process_time()
    verdict = judge(facts)
    assert verdict.mark == OK
    print_check(Console(file=io.StringIO(), width=80), verdict)
    assert '"would_fail": false' in check_json(verdict)
    assert time.process_time() - before < 15.0
