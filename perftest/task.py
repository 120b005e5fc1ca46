"""One TensorFlow process, a parameter server or a worker. Runs as `python -m perftest.task`.

Its first line of input is its Assignment. What it has to say goes to a private descriptor, because
TensorFlow's C++ code prints to standard output as it likes; that is the task's log.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import BinaryIO, NoReturn

from perftest import protocol
from perftest.protocol import (
    PARAMETER_SERVER,
    WORKER,
    Assignment,
    Failed,
    Finished,
    Go,
    Phase,
    Ready,
    StepTimes,
)
from perftest.quick_import import FOR_A_SERVER, FOR_A_WORKER, without
from perftest.supervisor import MESSAGES_VARIABLE


@dataclass
class AgentLink:
    """The task's side of the talk with its agent."""

    commands: BinaryIO
    messages: int
    started: float = field(default_factory=time.monotonic)
    _go: threading.Event = field(default_factory=threading.Event)

    def listen(self) -> None:
        """Follow the agent's commands from now on; at their end, this process ends."""
        threading.Thread(target=self._listen, name="agent", daemon=True).start()

    def _listen(self) -> None:
        for line in self.commands:
            if isinstance(protocol.decode(line), Go):
                self._go.set()
        # TensorFlow's queue runners and servers keep a process alive that returns from main.
        os._exit(0)

    def phase(self, name: str) -> None:
        """Say what comes next, in a word or two."""
        self._say(Phase(name, time.monotonic() - self.started))

    def ready(self) -> None:
        """Say that warm-up is done but for its last step."""
        self._say(Ready())

    def may_go(self) -> bool:
        """Whether all workers have said that they are ready."""
        return self._go.is_set()

    def wait_for_go(self) -> None:
        """Wait until they have."""
        self._go.wait()

    def steps(self, times: StepTimes) -> None:
        """Pass on the times of some steps."""
        self._say(times)

    def tell(self, message: object) -> None:
        """Say anything of real training: Progress, Evaluated, Saved ..."""
        self._say(message)

    def finished(self, message: Finished) -> None:
        """Say that all steps are done."""
        self._say(message)

    def failed(self, error: str) -> None:
        """Say why the task gives up."""
        self._say(Failed(error))

    def wait_for_the_end(self) -> NoReturn:
        """Stay until the agent ends this process."""
        while True:
            time.sleep(3600)

    def _say(self, message: object) -> None:
        data = protocol.encode(message)
        while data:
            data = data[os.write(self.messages, data) :]


def main() -> None:
    """Do what the assignment says; never returns in the ordinary way."""
    messages = int(os.environ.pop(MESSAGES_VARIABLE))
    os.set_inheritable(messages, False)
    link = AgentLink(commands=sys.stdin.buffer, messages=messages)
    try:
        assignment = protocol.decode(sys.stdin.buffer.readline())
        if not isinstance(assignment, Assignment):
            raise TypeError(f"the first line was {type(assignment).__name__}, not an assignment")
        link.listen()
        if assignment.place.cpus:
            # Before TensorFlow starts, because it makes its threads for the processors it sees.
            os.sched_setaffinity(0, assignment.place.cpus)
        assignment = _staged(assignment, link)
        link.phase("importing TensorFlow")
        _work(assignment, link)
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        link.failed(describe(error))
        os._exit(1)
    link.wait_for_the_end()


def _work(assignment: Assignment, link: AgentLink) -> None:
    """Import what the task needs, and do it."""
    if assignment.place.role == PARAMETER_SERVER:
        with without(FOR_A_SERVER):
            from perftest import serving

        serving.serve(assignment, link)
    with without(FOR_A_WORKER):
        from perftest import strategies

        run = strategies.load(assignment.job.strategy)
    run(assignment, link)


def _staged(assignment: Assignment, link: AgentLink) -> Assignment:
    """The same with the data on the node's fast disk, if a worker is to read it from there."""
    job = assignment.job
    if not job.data.stage or assignment.place.role != WORKER:
        return assignment
    from perftest.data.staging import prepare  # it brings NumPy along

    return replace(assignment, job=replace(job, data=prepare(job.data, link)))


def describe(error: BaseException) -> str:
    """An exception as one printable line."""
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__  # NumPy wraps a page of advice around it
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line))]
    name = type(error).__name__
    is_ours = type(error).__module__.partition(".")[0] in ("perftest", "models")  # says it in words
    text = (lines[0] if is_ours else f"{name}: {lines[0]}") if lines else name
    # What is wrong with data may come through TensorFlow, with its own words in front.
    text = text.rpartition(" DataError: ")[2]
    return "".join(c if c.isprintable() else " " for c in text)[:500]


if __name__ == "__main__":
    main()
