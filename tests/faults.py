"""What the tests of faults have in common: how a run ended, what it said, and what it left.

A fault test runs the real command against real sshds: `run_to_end(...)` (or `command.Running` and
`ended(...)` where the test must act in the middle), `rows_intact(...)` around it, then
`said_of(...)` for its messages and `assert_nothing_left(...)` for the nodes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from command import RUNTEST, Running
from hosts import NamespaceHosts
from results_examples import row

from launcher.results.log import append_row, log_path

REMOTE = "/tmp/x"
# The smallest real run: DeepMNIST in few steps.
SMALL = ("-m", "deepmnist", "-b", 4, "--steps", 4, "--warmup", 1)
SMALL_LOG = "deepmnist_b4.csv"
_PREFIX = "runtest: "


@dataclass(frozen=True)
class Ended:
    """A command that has ended. peak_bytes: the most memory that it held, where it was watched."""

    status: int
    seconds: float
    stdout: str
    stderr: str
    peak_bytes: int = 0

    @property
    def messages(self) -> list[str]:
        """What it said of the failure, one message a line, without the name of the program."""
        lines = self.stderr.splitlines()
        return [line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]


def reach(
    hosts: NamespaceHosts, *indices: int, remote: str = REMOTE, keys: str = ""
) -> list[object]:
    """The options that reach all hosts, or those given; every interpreter there is this one.

    keys: what stands at the end of each line of the nodes file.
    """
    return [
        *("-h", hosts.nodes_file(*indices, keys=keys)),
        *("-r", remote),
        *("--ssh-config", hosts.ssh_config),
        *("--python", sys.executable),
    ]


def run_to_end(
    *argv: object, cwd: Path, within: float, environment: dict[str, str] | None = None
) -> Ended:
    """Run the command, which ends by itself within so many seconds, and watch its memory."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        process = subprocess.Popen(
            [RUNTEST, *map(str, argv)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(environment or {})},
        )
        watch = PeakWatch(process.pid)
        try:
            status = process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"still there after {within} s:\n{_text(err)}") from None
        finally:
            watch.stop()
        seconds = time.monotonic() - start
        return Ended(status, seconds, _text(out), _text(err), watch.peak_bytes)


def ended(running: Running, within: float) -> Ended:
    """How a command ended that was running, which it does within so many seconds from now."""
    start = time.monotonic()
    try:
        status = running.end(within)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"still there after {within} s:\n{running.said}") from None
    return Ended(status, time.monotonic() - start, "", running.said)


class PeakWatch:
    """Reads the high-water mark of a process's memory until it ends or `stop` is called."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            try:
                text = Path(f"/proc/{self._pid}/status").read_text()
            except OSError:
                return
            for line in text.splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) << 10)


def said_of(done: Ended, **expected: str | tuple[str, ...]) -> None:
    """The command failed, and said of each of these nodes (by alias) one message with these words.

    It said nothing else, in particular nothing of a node that is not listed; and all that it said
    is plain text.
    """
    assert done.status in (1, 2), done.stderr
    assert_plain(done)
    assert len(done.messages) == len(expected), done.stderr
    for message, (alias, words) in zip(done.messages, expected.items(), strict=True):
        assert message.startswith(f"{alias} ("), message
        assert ". Try: " in message, f"no word of what to do: {message}"
        for word in (words,) if isinstance(words, str) else words:
            assert word in message, f"{word!r} is not in: {message}"


def assert_plain(done: Ended) -> None:
    """No traceback, and nothing that a terminal would obey."""
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text, text
        assert text.replace("\n", "").isprintable(), ascii(text)


def assert_nothing_left(
    hosts: NamespaceHosts, *indices: int, within: float = 2.0, remote: str = REMOTE
) -> None:
    """On all hosts that are on (or those given) there is no process, open port or file of a run
    any more, at the latest after so many seconds.
    """
    chosen = indices or [i for i, host in enumerate(hosts.hosts) if host.init is not None]
    deadline = time.monotonic() + within
    while left := {i: found for i in chosen if (found := whats_left(hosts, i, remote))}:
        assert time.monotonic() < deadline, f"left after {within} s: {left}"
        time.sleep(0.05)


def whats_left(hosts: NamespaceHosts, index: int, remote: str = REMOTE) -> list[object]:
    """Processes, open ports and session directories on a host, but for sshd's own."""
    sessions = hosts.path(index, remote).glob("perftest-*/*")
    return [
        *hosts.processes(index),
        *hosts.listening_ports(index),
        *(str(path) for path in sessions),
    ]


@contextmanager
def rows_intact(logs: Path, added: int = 0, name: str = SMALL_LOG) -> Iterator[None]:
    """A log with the row of an earlier run; at the end it is there to the byte, and exactly
    `added` whole rows after it.
    """
    model, _, batch = name.removesuffix(".csv").rpartition("_b")
    path = log_path(logs, model, int(batch))
    append_row(path, row(run_id="earlier", model=model, batch_per_gpu=int(batch)))
    before = path.read_bytes()
    yield
    after = path.read_bytes()
    assert after.startswith(before), "the row of an earlier run is not what it was"
    lines = after[len(before) :].splitlines(keepends=True)
    assert len(lines) == added, lines
    assert all(line.endswith(b"\n") for line in lines), "half a row"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def nodes_and_config(
    hosts: NamespaceHosts,
    folder: Path,
    last: int,
    *,
    keys: dict[int, str] | None = None,
    ssh: dict[int, str] | None = None,
) -> list[object]:
    """The options that reach node0 to `node<last>`, some of them with keys of their own in the
    nodes file or with options of their own (one a line) in ssh_config.
    """
    chosen = hosts.hosts[: last + 1]
    keys, ssh = keys or {}, ssh or {}
    nodes = [f"{host.address} {host.name} {keys.get(i, '')}" for i, host in enumerate(chosen)]
    config = []
    for i, host in enumerate(chosen):
        own = ssh.get(i, "")
        config += [f"Host {host.name}", own, f"HostName {host.address}", "User root"]
        # ssh tries every IdentityFile that it is told of.
        config += [] if "IdentityFile" in own else [f"IdentityFile {hosts.key}"]
    config += ["Host *", "IdentitiesOnly yes", "IdentityAgent none", "StrictHostKeyChecking yes"]
    config += [f"UserKnownHostsFile {hosts.known_hosts}", "GlobalKnownHostsFile /dev/null"]
    (folder / "nodes").write_text("\n".join(nodes) + "\n")
    (folder / "ssh_config").write_text("\n".join(config) + "\n")
    where = ["-h", folder / "nodes", "--ssh-config", folder / "ssh_config", "-r", REMOTE]
    return [*where, "--python", sys.executable]
