"""What processes that exchange nothing make together. A part of limits.py."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import peer_networks
from precision import engine

from launcher.binding import ranges
from perftest.topology import find_processors


def measure(count: int, model: str, batch: int, steps: int) -> None:
    """Print the images/sec of so many processes, each on its own share of the processors."""
    parts = shares(find_processors(os.sched_getaffinity(0)).cpus, count)
    ends = [start(part, model, batch, steps) for part in parts]
    for end in ends:
        answer(end)
    # All are ready: none has begun before.
    for end in ends:
        end.send(None)
    speeds, seconds = together([answer(end) for end in ends], batch)
    where = "; ".join(ranges(part) for part in parts)
    print(f"{model}: {count} at once, batch {batch} each, on processors {where}, no exchange")
    each = " + ".join(f"{speed:.2f}" for speed in speeds)
    print(f"{sum(speeds):.2f} images/sec together ({each}) in the {seconds:.2f} s that all ran")


def shares(cpus: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Equal ones, as workers get them; several get the same where there are not enough."""
    each = max(1, len(cpus) // count)
    firsts = [number * each % len(cpus) for number in range(count)]
    return [tuple(cpus[first : first + each]) for first in firsts]


def start(cpus: Collection[int], model: str, batch: int, steps: int) -> Connection:
    """A process that makes steps on these processors alone, and our end of its pipe."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=work, args=(its, model, batch, steps), daemon=True)
    allowed = os.sched_getaffinity(0)
    # It inherits them, and so has them before TensorFlow makes a thread for each it sees.
    os.sched_setaffinity(0, cpus)
    try:
        process.start()
    finally:
        os.sched_setaffinity(0, allowed)
    its.close()
    return ours


def work(end: Connection, model: str, batch: int, steps: int) -> None:
    """In such a process: say that all is built, wait for the word, send the times of all steps."""
    peer_networks.make_known()
    trained = engine(model, batch, "fp32")
    end.send(None)
    end.recv()
    times = [time.monotonic()]
    for _ in range(steps):
        trained.step()
        times.append(time.monotonic())
    end.send(times)


def answer(end: Connection) -> Any:
    """What a process says next. Exits if it says nothing more; its own words are on the screen."""
    try:
        return end.recv()
    except EOFError:
        raise SystemExit("one of the processes failed") from None


def together(times: Sequence[Sequence[float]], batch: int) -> tuple[list[float], float]:
    """Images/sec of each process, and the seconds, of the window in which all made steps.

    times: of each process its start and the end of every step, by one clock. Of a step that lies
    in the window in part, that part counts.
    """
    first, last = max(each[0] for each in times), min(each[-1] for each in times)
    steps = [np.diff(np.interp((first, last), each, range(len(each))))[0] for each in times]
    return [float(made) * batch / (last - first) for made in steps], last - first
