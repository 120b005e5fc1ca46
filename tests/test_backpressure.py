"""Nodes that say more than is taken, or take nothing: nobody else waits, and memory is bounded."""

from __future__ import annotations

import itertools
import queue
import threading
import time
import tracemalloc
from collections.abc import Callable

import pytest
from scripted import Played, ScriptedTransport
from test_run import NODES, end, good, play, steps
from test_strategies import Quiet

from launcher import failures
from launcher import run as run_module
from launcher.errors import ConnectionLost, NodesFailed, TaskFailed
from launcher.inbox import Event, Inbox
from launcher.line_buffer import LineBuffer
from launcher.nodes import Node
from launcher.outbox import Outbox
from launcher.parallel import for_each
from launcher.plan import greeting
from launcher.session import NodeOptions, Session
from launcher.tasks import Options
from launcher.transports.base import Connection
from launcher.transports.local import LocalTransport
from perftest import protocol
from perftest.protocol import (
    Finish,
    Finished,
    FromTask,
    Go,
    Greet,
    Heartbeat,
    Log,
    Phase,
    Ready,
    RunEnded,
    Start,
    Stop,
)

MIB = 1 << 20


def bring(inbox: Inbox, node: int, size: int, count: int) -> threading.Thread:
    """A thread that puts `count` events of `size` bytes each, as a reader does."""

    def work() -> None:
        for number in range(count):
            inbox.put(Event(node, number), inbox.reserve(node, size))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def taken(inbox: Inbox, seconds: float = 0.2) -> list[tuple[int, object]]:
    """All that comes until nothing does for a while."""
    found = []
    while True:
        try:
            event = inbox.get(seconds)
        except queue.Empty:
            return found
        found.append((event.node, event.what))


def test_a_node_that_says_too_much_waits_alone_and_all_of_it_arrives_in_order() -> None:
    inbox = Inbox(2)
    flood = bring(inbox, 0, MIB, 40)
    flood.join(0.3)
    assert flood.is_alive(), "40 MiB are more than its share"
    quiet = bring(inbox, 1, 100, 5)
    quiet.join(5)
    assert not quiet.is_alive(), "the other node waits for nobody"
    found = taken(inbox)
    assert [what for node, what in found if node == 0] == list(range(40))
    assert [what for node, what in found if node == 1] == list(range(5))
    flood.join(5)
    assert not flood.is_alive()


def test_large_messages_of_many_nodes_are_held_a_few_at_a_time() -> None:
    inbox = Inbox(1000)
    threads = [bring(inbox, node, 4 * MIB - 1000, 1) for node in range(20)]
    deadline = time.monotonic() + 5
    while sum(not thread.is_alive() for thread in threads) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    for thread in threads:
        thread.join(0.01)
    assert sum(thread.is_alive() for thread in threads) == 16, "16 MiB hold four of 4 MiB"
    assert len(taken(inbox)) == 20


def test_a_message_larger_than_all_the_room_still_passes() -> None:
    inbox = Inbox(1)
    bring(inbox, 0, 100 * MIB, 2)
    assert len(taken(inbox)) == 2


def test_what_is_refused_after_its_room_was_reserved_gives_the_room_back() -> None:
    inbox = Inbox(2)
    for _ in range(100):
        inbox.let_go(0, inbox.reserve(0, 6 * MIB))


def test_an_inbox_that_is_closed_lets_everybody_go_and_keeps_nothing() -> None:
    inbox = Inbox(1)
    flood = bring(inbox, 0, MIB, 100)
    flood.join(0.2)
    assert flood.is_alive()
    inbox.close()
    flood.join(5)
    assert not flood.is_alive()
    assert taken(inbox, 0.0) == []


def test_waiting_until_a_time_ends_then_even_where_events_never_do() -> None:
    inbox = Inbox(1)
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            inbox.put(Event(0, "x"), inbox.reserve(0, 10))

    threading.Thread(target=flood, daemon=True).start()
    began = time.monotonic()
    assert sum(1 for _ in inbox.until(began + 0.3)) > 10
    assert time.monotonic() - began < 2
    stop.set()
    inbox.close()


def test_what_is_put_into_an_outbox_is_sent_in_order_and_nobody_waits_for_it() -> None:
    sent: list[bytes] = []
    may_send = threading.Event()
    outbox = Outbox("node0")

    def send(data: bytes) -> None:
        may_send.wait(5)
        sent.append(data)

    assert outbox.put(b"before it is open, which nobody needs")
    outbox.open(send, b"first")
    for number in range(50):
        assert outbox.put(b"%d" % number)
    assert not outbox.is_empty
    may_send.set()
    deadline = time.monotonic() + 5
    while not outbox.is_empty and time.monotonic() < deadline:
        time.sleep(0.001)
    assert b"".join(sent) == b"first" + b"".join(b"%d" % number for number in range(50))


def wait_for(event: threading.Event) -> None:
    event.wait(5)


def test_an_outbox_knows_how_long_the_node_takes_nothing_and_when_it_is_too_much() -> None:
    now = [0.0]
    over = threading.Event()
    outbox = Outbox("node0", clock=lambda: now[0])
    outbox.open(lambda _: wait_for(over), b"x" * 100)
    now[0] = 7.0
    assert outbox.stuck_seconds == 7.0
    assert outbox.put(b"y" * (31 * MIB))
    assert not outbox.put(b"z" * (2 * MIB)), "33 MiB for a node that does not read"
    over.set()


def test_a_lost_connection_empties_the_outbox() -> None:
    outbox = Outbox("node0")

    def send(data: bytes) -> None:
        raise ConnectionLost("node0", "gone")

    outbox.open(send, b"first")
    deadline = time.monotonic() + 5
    while not outbox.is_empty and time.monotonic() < deadline:
        time.sleep(0.001)
    assert outbox.is_empty
    assert outbox.put(b"y" * (33 * MIB)), "it is dropped, for the reader says why"


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_lines_come_out_whole_however_the_stream_is_cut(size: int) -> None:
    stream = b"\nnoise\nMARK\none\n\ntwo\nthe rest"
    buffer = LineBuffer()
    greeted, found = False, []
    for start in range(0, len(stream), size):
        buffer.add(stream[start : start + size])
        greeted = greeted or buffer.skip_past(b"\nMARK\n")
        found += list(buffer.lines()) if greeted else []
    assert found == [b"one", b"", b"two"]
    assert len(buffer) == len(b"the rest")


def test_a_long_line_in_small_pieces_costs_no_more_than_its_bytes() -> None:
    buffer = LineBuffer()
    began = time.process_time()
    for _ in range(100_000):
        buffer.add(b"x" * 40)
        assert not list(buffer.lines())
    assert time.process_time() - began < 3, "copying it for each piece would take minutes"


def test_all_items_are_done_at_once_and_nobody_waits_longer_than_told() -> None:
    done: list[int] = []
    for_each(range(100), done.append, 8, 5.0)
    assert sorted(done) == list(range(100))
    began = time.monotonic()
    for_each([10.0] * 20, time.sleep, 20, 0.1)
    assert time.monotonic() - began < 2


FLOODS: dict[str, Callable[[str], bytes]] = {
    "phases": lambda run: protocol.encode(FromTask(run, "worker", 1, Phase("x" * 400, 1.0))),
    "ready": lambda run: protocol.encode(FromTask(run, "worker", 1, Ready())),
    "logs": lambda run: protocol.encode(Log(run, "worker", 1, "x" * MIB, 0)),
    "the ends of runs": lambda run: protocol.encode(RunEnded("another", ("x" * 1000,) * 1000)),
    "heartbeats": lambda run: protocol.encode(Heartbeat()),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flooding_node_is_given_up_and_the_memory_is_bounded(
    flood: Callable[[str], bytes],
) -> None:
    flooded = threading.Event()

    def flooding(node: Played) -> None:
        node.greet()
        start = node.hear(Start)
        assert isinstance(start, Start)
        node.flood(flood(start.run_id) * 20)
        flooded.set()

    def beside(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 0, steps(0, 1, False)))
        node.say(FromTask("r", "worker", 0, Ready()))
        end(node)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "_ENDING_SECONDS", 0.3)
        patch.setattr(failures, "_PATIENCE_SECONDS", dict.fromkeys(range(3), 0.1))
        patch.setattr("launcher.session._CLOSING_SECONDS", 0.3)
        patch.setattr("launcher.stall._LONG_FACTOR", 1)
        tracemalloc.start()
        began = time.monotonic()
        try:
            with pytest.raises(TaskFailed, match="worker 1 has not got on"):
                play(ScriptedTransport(beside, node1=flooding), stall_seconds=1.0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert time.monotonic() - began < 15
    assert peak < 150 * MIB
    assert flooded.wait(5), "the connection was let go of"


def test_a_run_goes_on_beside_a_node_that_talks_all_the_time() -> None:
    def talking(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 1, steps(0, 1, False)))
        node.say(FromTask("r", "worker", 1, Ready()))
        node.hear(Go)
        junk = protocol.encode(FromTask("another", "worker", 1, Phase("x" * 1000, 1.0)))
        for _ in range(20_000):
            node.write(junk)
        node.say(FromTask("r", "worker", 1, steps(1, 2, True)))
        node.say(FromTask("r", "worker", 1, Finished(10, None, "CPU")))
        node.hear(Finish)
        node.say(RunEnded("r", ()))
        node.hear(Stop)
        node.leave(0)

    outcome = play(ScriptedTransport(good, node1=talking))
    assert len(outcome.finished) == 2
    assert outcome.problems == []


class Deaf(ScriptedTransport):
    """node1 is a real process that reads nothing; the others are played."""

    def open(self, node: Node, script: str) -> Connection:
        if node.alias != "node1":
            return super().open(node, script)
        return LocalTransport().open(node, "exec sleep 4")


def test_a_node_that_reads_nothing_is_given_up_and_the_others_are_still_heard_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(protocol, "HEARTBEAT_LIMIT_SECONDS", 1.0)
    beats: list[float] = []

    def listening(node: Played) -> None:
        node.greet()
        while isinstance(node.hear(Heartbeat, Stop), Heartbeat):
            beats.append(time.monotonic())
            node.say(Heartbeat())
        node.leave(0)

    def huge(node: Node) -> Greet:
        """More than a pipe holds."""
        greet = greeting(Options("deepmnist"), node, "s")
        return Greet(greet.version, "s" * MIB if node.alias == "node1" else "s", greet.ports)

    began = time.monotonic()
    with (
        Session(NODES, Deaf(listening), NodeOptions("", "python3"), "s") as session,
        pytest.raises((ConnectionLost, NodesFailed), match=r"node1.*has taken no input for 1 s"),
    ):
        session.open(huge, Quiet())
    assert time.monotonic() - began < 4
    gaps = [after - before for before, after in itertools.pairwise(beats)]
    assert len(beats) >= 10
    assert max(gaps) < 1.0, "nobody waits for the one that does not read"
