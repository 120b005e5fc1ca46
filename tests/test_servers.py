"""What is kept of servers' words, and what every link carries: worked out by hand."""

from __future__ import annotations

import pytest
from test_plan import hello, plan

from launcher.servers import Link, Servers, machine_load, traffic
from perftest.protocol import ServerHolds, ServerLoad, ServersHold

HOLDS = (ServerHolds(2, 1, 600), ServerHolds(3, 1, 400))


def test_every_worker_by_itself_fetches_all_parameters_and_sends_all_gradients() -> None:
    made = plan([hello(0), hello(1)], gpus_per_node=2, aggregation="none")
    # Node 0 holds 600: both workers of node 1 fetch them, and its own send it gradients of 400.
    assert traffic(made, HOLDS) == (
        Link(0, 0, 2 * 2 * 600),
        Link(0, 1, 2 * 600 + 2 * 400),
        Link(1, 0, 2 * 400 + 2 * 600),
        Link(1, 1, 2 * 2 * 400),
    )


def test_a_node_that_adds_up_fetches_and_sends_once_and_16_bits_are_half() -> None:
    made = plan([hello(0), hello(1)], gpus_per_node=2, gradient_dtype="bf16")
    carried = {(link.source, link.target): link.bytes for link in traffic(made, HOLDS)}
    assert carried[0, 1] == 600 + 400 // 2
    assert carried[1, 0] == 400 + 600 // 2
    # Both workers and their own server; and what the other has there, between the two.
    assert carried[0, 0] == 2 * (600 + 600 // 2) + 2 * 400


@pytest.mark.parametrize(
    ("message", "role", "index"),
    [
        (ServersHold(HOLDS[:1]), "worker", 0),
        (ServersHold(HOLDS), "worker", 1),
        (ServersHold(HOLDS), "ps", 0),
        (ServersHold((HOLDS[0], ServerHolds(1, 0, -1))), "worker", 0),
        (ServersHold((HOLDS[0], ServerHolds(1, 0, 1 << 60))), "worker", 0),
        (ServerLoad(1.0, 1.0), "worker", 0),
        (ServerLoad(-1.0, 1.0), "ps", 0),
        (ServerLoad(1.0, 0.0), "ps", 0),
        (ServerLoad(1e300, 1.0), "ps", 0),
    ],
)
def test_what_no_honest_task_says_is_refused(message: object, role: str, index: int) -> None:
    made = plan([hello(0), hello(1)])
    servers = Servers()
    assert servers.take(message, role, index, made, True) != ""  # type: ignore[arg-type]
    assert servers == Servers()


def test_only_the_load_of_measured_steps_counts_and_a_machine_has_all_that_runs_there() -> None:
    made = plan([hello(0), hello(1)])
    servers = Servers()
    assert servers.take(ServerLoad(9.0, 1.0), "ps", 1, made, False) == ""
    for index, cpu in ((0, 0.2), (1, 0.4), (1, 0.8)):
        assert servers.take(ServerLoad(cpu, 1.0), "ps", index, made, True) == ""
    assert servers.busy(1) == pytest.approx(0.6)
    load = machine_load(made, servers, 1, {0: 0.5, 1: 0.7})
    shared = made.hellos[0].machine == made.hellos[1].machine
    assert load.servers == pytest.approx(0.8 if shared else 0.6)
    assert load.workers == pytest.approx(1.2 if shared else 0.7)
    assert load.server == pytest.approx(0.6)
    assert load.processors == 4
