"""A real agent process for tests, with tasks that are told in the test what to do.

The tasks of these tests are not TensorFlow, because no TensorFlow process ignores a signal or
floods its log on demand; test_runtest.py has the real ones.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from perftest import protocol
from perftest.protocol import Cluster, Greet, Hello, Job, Place, PortRequest, Start

ROOT = Path(__file__).parent.parent

JOB = Job(
    model="deepmnist",
    strategy="parameter_server",
    batch_size=32,
    warmup_steps=1,
    measured_steps=2,
    synchronous=True,
    aggregate=1,
    precision="fp32",
    learning_rate=0.01,
    seed=1,
    cluster=Cluster(ps=("127.0.0.1:2222",), worker=("127.0.0.1:2230",)),
)

TASK_HEAD = """
import os, signal, subprocess, sys, time
from perftest import protocol
messages = int(os.environ["PERFTEST_MESSAGES"])
def say(message):
    data = protocol.encode(message)
    while data:
        data = data[os.write(messages, data):]
assignment = protocol.decode(sys.stdin.buffer.readline())
"""


class AgentProcess:
    """An agent in a directory of its own whose tasks run `task` after TASK_HEAD.

    `task` None: they are the real ones.
    """

    def __init__(self, directory: Path, task: str | None = "", agent: str = "") -> None:
        self.directory = directory / "payload"
        directory.mkdir(exist_ok=True)
        shutil.copytree(ROOT / "perftest", self.directory / "perftest")
        if task is None:
            shutil.copytree(ROOT / "models", self.directory / "models")
        else:
            (self.directory / "perftest" / "task.py").write_text(TASK_HEAD + task)
        (self.directory / ".perftest-session").touch()
        start = agent or "import sys; from perftest import agent; sys.exit(agent.main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._buffer = b""
        self.banner = b""

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def send(self, message: object) -> None:
        self.write(protocol.encode(message))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def greet(self, *ports: PortRequest) -> Hello:
        self.send(Greet(protocol.VERSION, "session", ports))
        return self.next(Hello)

    def start(self, run_id: str = "r1", workers: int = 1) -> None:
        places = tuple(Place("worker", i, (), None) for i in range(workers))
        self.send(Start(run_id, JOB, places))

    def next(self, kind: type[Any], seconds: float = 10.0) -> Any:
        """The next message of this kind; others before it are dropped."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = self._message(deadline)
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} within {seconds} s")

    def messages_until(self, kind: type[Any], seconds: float = 10.0) -> list[Any]:
        """All messages up to and with the next one of this kind."""
        deadline = time.monotonic() + seconds
        found: list[Any] = []
        while time.monotonic() < deadline:
            found.append(self._message(deadline))
            if isinstance(found[-1], kind):
                return found
        raise AssertionError(f"no {kind.__name__} within {seconds} s, but {found}")

    def _message(self, deadline: float) -> Any:
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line == protocol.MARKER.encode() or not line:
                    self.banner += line
                    continue
                return protocol.decode(line)
            self._buffer += self._read(deadline)

    def _read(self, deadline: float) -> bytes:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise AssertionError("the agent said nothing in time")
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            raise AssertionError("the agent closed its output")
        return data


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    """Those of the processes that are still alive when the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return []
        time.sleep(0.02)
    return [pid for pid in pids if alive(pid)]
