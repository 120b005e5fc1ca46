"""What other users of a node can see of a run: of its processes and of its files."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from agents import wait_until_gone
from command import Running
from hosts import NamespaceHosts

from launcher import payload
from perftest import protocol
from perftest.protocol import Greet, Stop

GREETING = protocol.encode(Greet(protocol.VERSION, "s", ())) + protocol.encode(Stop())
TELLING = "telling"
# Every program that the script may start, but for the shell itself.
TOOLS = ("chmod", "head", "id", "ls", "mkdir", "rm", "tar")
RECORDER = r"""#!/bin/sh
printf '%s\n' "$0 $*" >>"$RECORD"
exec {tool} "$@"
"""


class CommandLines:
    """Looks at all command lines of a host, again and again, until the block ends."""

    def __init__(self, hosts: NamespaceHosts, index: int) -> None:
        self.seen: set[tuple[str, ...]] = set()
        self.rounds = 0
        self._hosts, self._index = hosts, index
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> CommandLines:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.rounds += 1
            self.seen |= {process.argv for process in self._hosts.processes(self._index)}


def private_python(folder: Path) -> Path:
    """A virtual environment of the same packages, at a path that tells."""
    python = folder / f"{TELLING}-env" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", python.parent.parent)
    (python.parent.parent / "lib").symlink_to(Path(sys.prefix) / "lib")
    return python


@pytest.mark.network
@pytest.mark.tensorflow
def test_command_lines_and_files_of_a_run_tell_nothing(
    hosts: NamespaceHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the options, directories, interpreter and environment stands in any command line
    from login to end, and nobody else may open a directory or log of the run.
    """
    monkeypatch.setenv(f"{TELLING.upper()}_TOKEN", f"{TELLING}-value")
    remote = f"/tmp/{TELLING}-dir/{TELLING} inner"
    python = private_python(hosts.folder / "private")
    options = ["-m", "deepmnist", "-b", 7, "--seed", 271828, "--learning-rate", "0.0314159"]
    options += ["--steps", 1_000_000, "--port-base", 23451, "--logs", tmp_path / f"{TELLING}-logs"]
    where = ["-h", hosts.nodes_file(0), "--ssh-config", hosts.ssh_config, "-r", remote]
    with (
        CommandLines(hosts, 0) as lines,
        Running(*options, *where, "--python", python, cwd=tmp_path) as running,
    ):
        running.wait_for("measuring")
        pids = {process.argv: process.pid for process in hosts.processes(0)}
        modes = modes_below(hosts.path(0, f"/tmp/{TELLING}-dir"))
        executables = {
            os.readlink(f"/proc/{pid}/exe") for argv, pid in pids.items() if "-m" in argv
        }
        running.send(signal.SIGTERM)
        assert running.end(20.0) == 130, running.said
    assert lines.rounds > 20
    for words in (TELLING, "271828", "0.0314", "23451", "deepmnist", str(tmp_path), "private"):
        assert not [argv for argv in lines.seen if words in " ".join(argv)], words
    ours = {argv for argv in lines.seen if "-m" in argv}
    assert ours == {("python3", "-m", "perftest.agent"), ("python3", "-m", "perftest.task")}
    assert executables == {os.path.realpath(sys.executable)}
    assert_private(modes)
    assert any(path.endswith("worker-0.log") for path in modes)


def modes_below(folder: Path) -> dict[str, int]:
    """The mode of everything below a folder that is in use."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        try:
            found[str(path)] = path.lstat().st_mode
        except FileNotFoundError:
            continue
    return found


def assert_private(modes: dict[str, int]) -> None:
    for path, mode in modes.items():
        wanted = 0o700 if stat.S_ISDIR(mode) else 0o600
        assert stat.S_IMODE(mode) == wanted, f"{path}: {mode:o}"


@pytest.mark.parametrize(
    ("inner", "status"),
    [("", 0), (f"/{TELLING}/inner", 0), ("/file/inner", 81)],
    ids=["directory there", "directory missing", "directory that cannot be made"],
)
def test_no_program_that_the_script_starts_gets_a_word_of_the_user(
    tmp_path: Path, inner: str, status: int
) -> None:
    """Not even for the moment that `mkdir` takes: each program is recorded with its arguments."""
    tools, record = tmp_path / "tools", tmp_path / "record"
    tools.mkdir()
    for tool in TOOLS:
        path = tools / tool
        path.write_text(RECORDER.replace("{tool}", str(shutil.which(tool))))
        path.chmod(0o755)
    target = tmp_path / f"{TELLING}-real"
    target.mkdir()
    remote = tmp_path / f"{TELLING}-link"
    (target / "file").touch()
    remote.symlink_to(target)
    first = payload.preamble(f"{remote}{inner}", "s1", sys.executable, payload.make_payload())
    done = subprocess.run(
        ["sh", "-c", payload.script()],
        input=first + GREETING,
        capture_output=True,
        timeout=30,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "RECORD": str(record)},
    )
    assert done.returncode == status, done.stderr
    started = record.read_text().replace(str(tools), "").splitlines()
    seen = {line.split()[0].strip("/") for line in started}
    assert seen >= ({"id"} if status else {"ls", "mkdir", "chmod", "tar", "rm"})
    assert not [line for line in started if TELLING in line or str(tmp_path) in line]


def test_a_task_s_environment_can_be_read_by_its_user_alone(tmp_path: Path) -> None:
    shell = subprocess.Popen(
        ["sh", "-c", payload.script()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    first = payload.preamble(str(tmp_path), "s1", sys.executable, payload.make_payload())
    shell.stdin.write(first)
    shell.stdin.flush()
    assert shell.stdout.read(2) == b"\np"
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
    for pid in (str(shell.pid), *children):
        try:
            facts = Path(f"/proc/{pid}/environ").stat()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            assert pid != str(shell.pid)  # what the script calls, as `id`, ends as it likes
            continue
        assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o400, os.getuid())
        assert b"PERFTEST_SESSION=s1\0" in environment
    shell.stdin.close()
    shell.wait(10)
    shell.stdout.close()
    assert wait_until_gone([int(pid) for pid in children], 2.0) == []
