"""Questions that an agent has answered by a process of its own, so that it never waits itself.

Needs the standard library alone. A process gets one message on its standard input and answers with
one on its standard output; it is killed when its time is up, or with its agent.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from perftest import interpreter, protocol
from perftest.protocol import CountParameters, ErrandFailed, Inspect, MessageError
from perftest.streams import Lines
from perftest.supervisor import dies_with

# By the type of a question: its name, the module that answers it, and how many seconds it may take.
_ERRANDS: dict[type, tuple[str, str, float]] = {
    Inspect: ("inspect", "perftest.inspection", 20.0),
    CountParameters: ("count_parameters", "perftest.counting", 90.0),
}
QUESTIONS = tuple(_ERRANDS)


class Errand:
    """One question and the process that answers it. Raises OSError when it cannot be started."""

    def __init__(self, question: object, now: float) -> None:
        self.name, module, seconds = _ERRANDS[type(question)]
        self.deadline = now + seconds
        self.seconds = seconds
        self.process = subprocess.Popen(
            interpreter.command(module),
            executable=sys.executable,
            env=interpreter.with_path(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dies_with(os.getpid()),
        )
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe, as asked for
        assert self.process.stdout is not None  # noqa: S101
        with contextlib.suppress(OSError):  # one that is gone already is told by its end
            self.process.stdin.write(protocol.encode(question))
            self.process.stdin.close()
        self.lines = Lines(self.process.stdout.fileno())

    def end(self) -> int:
        """Kill whatever is left of it. Returns its exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdout is not None  # noqa: S101 - as above
        self.process.stdout.close()
        return self.process.wait()


class Errands:
    """The errands of one agent, read by its selector; `put` sends an answer to the launcher."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        put: Callable[[object], None],
        clock: Callable[[], float],
    ) -> None:
        self._selector = selector
        self._put = put
        self._clock = clock
        self._running: list[Errand] = []

    def start(self, question: object) -> None:
        """Have a question answered."""
        try:
            errand = Errand(question, self._clock())
        except OSError as error:
            self._put(ErrandFailed(_ERRANDS[type(question)][0], f"no process: {error.strerror}"))
            return
        self._running.append(errand)
        read = partial(self._read, errand)
        self._selector.register(errand.lines.descriptor, selectors.EVENT_READ, read)

    def _read(self, errand: Errand) -> None:
        """Take what an errand has answered."""
        try:
            for line in errand.lines.read():
                answer = protocol.decode(line)
                self._forget(errand)
                self._put(answer)
                return
        except MessageError as error:
            self._forget(errand)
            self._put(ErrandFailed(errand.name, str(error)))
            return
        if errand.lines.ended:
            status = self._forget(errand)
            self._put(ErrandFailed(errand.name, f"the process ended with status {status}"))

    def end_late(self) -> None:
        """End those whose time is up."""
        for errand in [each for each in self._running if each.deadline < self._clock()]:
            self._forget(errand)
            self._put(ErrandFailed(errand.name, f"no answer within {errand.seconds:.0f} s"))

    def close(self) -> None:
        """End all."""
        for errand in list(self._running):
            self._forget(errand)

    def _forget(self, errand: Errand) -> int:
        self._running.remove(errand)
        self._selector.unregister(errand.lines.descriptor)
        return errand.end()


def serve(answer: Callable[[Any], object]) -> int:
    """What such a process does: reads its question, answers it, and ends."""
    output = os.dup(1)
    os.dup2(2, 1)  # whatever prints by accident must not get into the answer
    question = protocol.decode(sys.stdin.buffer.readline())
    try:
        said = answer(question)
    except Exception as error:  # of whatever is odd on this node: the launcher tells it
        reason = f"{type(error).__name__}: {error}"[:300]
        said = ErrandFailed(_ERRANDS[type(question)][0], reason)
    data = protocol.encode(said)
    while data:
        data = data[os.write(output, data) :]
    return 0
