"""The agent: one process per node that starts the run's tasks, passes on what they say, ends them.

Runs as `python -m perftest.agent` in the payload directory, with the launcher at the other end of
its standard input and output. Needs the standard library alone. Its life hangs on its input: end
of file, or no line for 30 seconds, means stop; and the lives of its tasks hang on it.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from perftest import facts, protocol
from perftest.bell import Bell
from perftest.errands import QUESTIONS, Errands
from perftest.leftovers import Cleaner, remove_session, sign_of_life
from perftest.ports import Ports
from perftest.probe_later import ProbesLater
from perftest.protocol import (
    AgentFailed,
    ClockQuery,
    ClockReading,
    EndProbe,
    Exited,
    Finish,
    FromTask,
    Go,
    Greet,
    Heartbeat,
    Listen,
    MessageError,
    Paused,
    Probe,
    RunEnded,
    Start,
    Stop,
)
from perftest.streams import Lines, Outgoing
from perftest.supervisor import TaskProcess, read_log, tail_of

_TERM_SECONDS = 5.0
_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.25
_LOOK_SECONDS = 1.0
# Past this much unsent output, tasks are not read any more: the launcher is slow, not the disk.
_MAX_UNSENT_BYTES = 32 << 20


class Agent:
    """The tasks of this node, and the two streams to the launcher."""

    def __init__(
        self, stdin: int, stdout: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._input = Lines(stdin)
        self._output = Outgoing(stdout)
        self._clock = clock
        self._heard = self._told = self._looked = clock()
        self._tasks: list[TaskProcess] = []
        self._ports = Ports()
        self._directory = Path.cwd()
        self._cleaner = Cleaner(self._directory)
        self._stopping = ""
        self._selector = selectors.DefaultSelector()
        self._selector.register(stdin, selectors.EVENT_READ, self._read_launcher)
        self._errands = Errands(self._selector, self._output.put, clock)
        bell = Bell()
        self._selector.register(bell.descriptor, selectors.EVENT_READ, bell.silence)
        self._probes = ProbesLater(self._selector, self._output.put, bell.ring, clock)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._stop(signal.Signals(number).name))

    def run(self) -> int:
        """Serve until told to stop; the exit status is 0 for an orderly end."""
        try:
            while not self._stopping:
                self._turn(_POLL_SECONDS)
                self._beat()
        finally:
            self._errands.close()
            self._probes.close()
            problems = self._end_tasks()
            self._drain()
        for problem in problems:
            sys.stderr.write(f"perftest-agent: {problem}\n")
        return 0 if self._stopping == "asked" and not problems else 1

    # One turn of the loop: what came in, what tasks said, who ended.

    def _turn(self, timeout: float) -> None:
        if self._output.broken:
            self._stop("the launcher is gone")
        self._watch_output()
        for key, _ in self._selector.select(timeout):
            if self._selector.get_map().get(key.fd) is key:  # and not closed by one before it
                key.data()
        self._probes.look()
        if self._stopping:
            return  # who ended us may have ended the tasks, too: their ends are no news
        self._reap()
        self._errands.end_late()

    def _beat(self) -> None:
        """Let the launcher hear that this agent lives, and see that the launcher does."""
        now = self._clock()
        if now - self._heard > protocol.HEARTBEAT_LIMIT_SECONDS:
            self._stop("no heartbeat from the launcher")
        if now - self._told > protocol.HEARTBEAT_SECONDS:
            self._told = now
            self._output.put(Heartbeat())
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._look_for_stopped()

    def _look_for_stopped(self) -> None:
        """Say of a stopped task that it is: nothing else would, and the others wait for it."""
        for task in self._tasks:
            if (stopped := task.is_stopped()) != task.told_stopped:
                task.told_stopped = stopped
                place = task.place
                self._output.put(Paused(task.run_id, place.role, place.index, task.pid, stopped))

    def _watch_output(self) -> None:
        registered = self._output.descriptor in self._selector.get_map()
        if len(self._output) and not registered:
            descriptor = self._output.descriptor
            self._selector.register(descriptor, selectors.EVENT_WRITE, self._output.flush)
        elif registered and not len(self._output):
            self._selector.unregister(self._output.descriptor)

    def _read_launcher(self) -> None:
        try:
            lines = self._input.read()
            messages = [protocol.decode(line) for line in lines]
        except MessageError as error:
            self._output.put(AgentFailed(f"what the launcher sent is no message: {error}"))
            self._stop("garbage from the launcher")
            return
        if messages:
            self._heard = self._clock()
            sign_of_life(self._directory)
        for message in messages:
            self._obey(message)
        if self._input.ended:
            self._selector.unregister(self._input.descriptor)
            self._stop("end of input")

    def _obey(self, message: object) -> None:
        if isinstance(message, (Greet, Start)):
            self._probes.close()  # what they ask for needs the ports
        if isinstance(message, Greet):
            self._output.put(facts.gather(message, self._directory, self._ports))
        elif isinstance(message, Start):
            self._start(message)
        elif isinstance(message, Go):
            for task in self._tasks:
                task.send(message)
        elif isinstance(message, Finish):
            self._finish(message.run_id)
        elif isinstance(message, Stop):
            self._stop("asked")
        elif not isinstance(message, Heartbeat):
            self._answer(message)

    def _answer(self, message: object) -> None:
        """Do what concerns no run: questions about this node and its network."""
        if isinstance(message, (Listen, Probe, EndProbe)):
            self._probes.obey(message)
        elif isinstance(message, ClockQuery):
            self._output.put(ClockReading(message.asked, time.time()))
        elif isinstance(message, QUESTIONS):
            self._errands.start(message)
        elif (answer := self._cleaner.answer(message)) is not None:
            self._output.put(answer)
        else:
            self._output.put(AgentFailed(f"an agent cannot obey {type(message).__name__}"))

    def _stop(self, why: str) -> None:
        self._stopping = self._stopping or why

    # Tasks.

    def _start(self, start: Start) -> None:
        folder = self._directory / "runs" / facts.safe_name(start.run_id)
        try:
            folder.mkdir(mode=0o700, parents=True)
            for place in start.places:
                task = TaskProcess(start.run_id, start.job, place, folder)
                self._tasks.append(task)
                read = partial(self._read_task, task)
                self._selector.register(task.messages, selectors.EVENT_READ, read)
        except OSError as error:
            self._output.put(AgentFailed(f"cannot start the tasks in {folder}: {error}"))

    def _read_task(self, task: TaskProcess, ended: bool = False) -> None:
        if len(self._output) > _MAX_UNSENT_BYTES and not ended:
            time.sleep(0.01)  # the task waits in its pipe until the launcher has caught up
            return
        try:
            lines = task.lines.read()
            messages = [protocol.decode(line) for line in lines]
        except MessageError as error:
            messages = [protocol.Failed(f"the task sent what is no message: {error}")]
            task.lines.ended = True
        for message in messages:
            self._output.put(FromTask(task.run_id, task.place.role, task.place.index, message))
        if task.lines.ended:
            self._selector.unregister(task.messages)

    def _reap(self) -> None:
        for task in self._tasks:
            if task.reported or not task.ended():
                continue
            while not task.lines.ended and not task.lines.empty:
                self._read_task(task, ended=True)  # its last words come before news of its end
            task.reported = True
            code = task.exit_code
            self._output.put(
                Exited(
                    run_id=task.run_id,
                    role=task.place.role,
                    index=task.place.index,
                    exit_code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    log_tail=tail_of(task.log_path),
                )
            )

    def _finish(self, run_id: str) -> None:
        problems = self._end_tasks(run_id)
        for task in [task for task in self._tasks if task.run_id == run_id]:
            for piece in read_log(task.log_path):
                self._output.put(protocol.Log(run_id, task.place.role, task.place.index, *piece))
            self._forget(task)
        shutil.rmtree(self._directory / "runs" / facts.safe_name(run_id), ignore_errors=True)
        self._output.put(RunEnded(run_id, tuple(problems)))

    def _forget(self, task: TaskProcess) -> None:
        if task.messages in self._selector.get_map():
            self._selector.unregister(task.messages)
        task.close()
        self._tasks.remove(task)

    def _end_tasks(self, run_id: str | None = None) -> list[str]:
        """End the tasks (of one run, or all): end of input, TERM, KILL, each with its time.

        Workers that have finished leave by themselves at the end of their input; a parameter
        server never does, and one that is in the middle of something is not asked to finish it.
        """
        tasks = [task for task in self._tasks if run_id in (None, task.run_id)]
        for task in tasks:
            task.terminate()
        self._wait_for(tasks, _TERM_SECONDS)
        for task in tasks:
            task.kill()
        self._wait_for(tasks, _KILL_SECONDS)
        return [
            f"{task.place.role} {task.place.index}: process {task.pid} could not be killed"
            for task in tasks
            if not task.ended()
        ]

    def _wait_for(self, tasks: list[TaskProcess], seconds: float) -> None:
        deadline = self._clock() + seconds
        while not all(task.group_gone() for task in tasks) and self._clock() < deadline:
            self._output.flush()
            time.sleep(0.01)

    def _drain(self) -> None:
        """Give the launcher a bounded time to take what is still unsent."""
        deadline = self._clock() + _TERM_SECONDS
        while len(self._output) and not self._output.broken and self._clock() < deadline:
            self._output.flush()
            time.sleep(0.01)


def main() -> int:
    """Talk to the launcher at descriptors 0 and 1 until it is done."""
    output = os.dup(1)
    os.dup2(2, 1)  # whatever prints by accident must not get among the messages
    os.write(output, b"\n" + protocol.MARKER.encode() + b"\n")
    directory = Path.cwd()
    agent = Agent(stdin=0, stdout=output)
    try:
        return agent.run()
    finally:
        remove_session(directory)


if __name__ == "__main__":
    sys.exit(main())
