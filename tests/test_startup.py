"""Where the time goes from the command to the first step: parts that add up to all of it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import Any

import pytest
from waiting import eventually

from launcher.startup import PARTS, Startup, WorkerPhases
from perftest.reaching import wait_until_listening


def test_parts_follow_on_each_other_and_add_up_to_the_whole() -> None:
    startup = Startup(10.0)
    startup.end_part("start", 10.5)
    startup.end_part("connect", 12.0)
    startup.end_part("greet", 13.0)
    startup.end_part("plan", 13.25)
    startup.end_part("greet", 14.25)  # once more, before the run
    assert startup.parts == {"start": 0.5, "connect": 1.5, "greet": 2.0, "plan": 0.25}
    assert startup.seconds == 4.25
    assert set(startup.parts) <= set(PARTS)


def test_a_moment_that_is_before_the_last_one_takes_no_time() -> None:
    startup = Startup(10.0)
    startup.end_part("connect", 0.0)  # of a node that was never connected
    startup.end_part("copy", 11.0)
    assert startup.parts == {"connect": 0.0, "copy": 1.0}


def way() -> tuple[Startup, WorkerPhases, list[float]]:
    now = [100.0]
    startup = Startup(now[0])
    return startup, WorkerPhases(startup, clock=lambda: now[0]), now


def test_the_worker_whose_first_step_was_told_first_says_what_the_time_went_into() -> None:
    startup, phases, now = way()
    for at, worker, name in (
        (101.0, 0, "importing TensorFlow"),
        (101.5, 1, "importing TensorFlow"),
        (104.0, 1, "building the model"),
        (105.0, 0, "building the model"),
        (106.0, 1, "reading the data"),
        (106.5, 1, "waiting for the parameter servers"),
        (107.0, 1, "initialising"),
        (108.0, 1, "something that only this node says"),
        (109.0, 1, "first step"),
    ):
        now[0] = at
        phases.phase(worker, name)
    now[0] = 113.0
    phases.first_step(1, ago=1.0)
    phases.phase(1, "importing TensorFlow")
    phases.first_step(0, ago=0.0)

    assert startup.parts == {
        "spawn": 1.5,
        "import": 2.5,
        "build": 2.5,
        "initialise": 1.5,
        "other": 1.0,
        "first step": 3.0,
    }
    assert set(startup.parts) <= set(PARTS)


def test_a_training_has_made_its_first_step_when_it_goes_on() -> None:
    startup, phases, now = way()
    phases.phase(0, "first step")
    now[0] = 102.0
    assert not startup.is_over
    phases.phase(0, "training")
    assert startup.is_over
    assert startup.parts == {"spawn": 0.0, "first step": 2.0}


@pytest.mark.skipif(sys.platform != "linux", reason="it is known on Linux alone")
def test_the_time_of_the_command_counts_from_the_start_of_its_process() -> None:
    code = (
        "import time; time.sleep(0.3); from launcher.startup import process_began; "
        "print(process_began())"
    )
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = time.monotonic()
    began = float(done.stdout)
    # Its clock has ticks of 10 ms.
    assert before - 0.02 <= began <= after - 0.29


def test_a_worker_that_is_early_goes_on_as_soon_as_the_servers_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []

    def look(*arguments: Any, **options: Any) -> socket.socket:
        looks.append(time.monotonic())
        return connect(*arguments, **options)

    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", look)
    with socket.create_server(("127.0.0.1", 0)) as first:
        ports = [first.getsockname()[1]]
    with socket.create_server(("127.0.0.1", 0)) as second:
        ports.append(second.getsockname()[1])
    waiting = threading.Thread(
        target=wait_until_listening, args=([f"127.0.0.1:{port}" for port in ports],), daemon=True
    )
    waiting.start()
    with socket.create_server(("127.0.0.1", ports[0])) as one:
        one.settimeout(10.0)
        one.accept()[0].close()
        so_far = len(looks)
        assert eventually(lambda: len(looks) > so_far + 10, 10.0)
        assert waiting.is_alive(), "the other does not listen"
        # A busy machine makes some pauses longer, and none shorter.
        assert min(after - before for before, after in pairwise(looks[-6:])) <= 0.1
        with socket.create_server(("127.0.0.1", ports[1])) as other:
            other.settimeout(10.0)
            other.accept()[0].close()
            waiting.join(10.0)
            assert not waiting.is_alive()
