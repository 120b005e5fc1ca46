"""One task as its agent holds it: a process in a session of its own, its log, its two pipes.

Needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from perftest import interpreter, protocol
from perftest.processes import RUN_VARIABLE
from perftest.protocol import Assignment, Job, Place
from perftest.streams import Lines

_PR_SET_PDEATHSIG = 1
_ASSIGNMENT_BYTES = 1 << 20
_TAIL_LINES = 20
_TAIL_BYTES = 16 << 10
# Of a log that is larger, its beginning and its end are sent home.
_LOG_HEAD_BYTES = 1 << 20
_LOG_TAIL_BYTES = 4 << 20
_LOG_PIECE_BYTES = 64 << 10

# gRPC sends its traffic through these proxies, and Keras and TensorFlow read the others as theirs.
_NOT_INHERITED = ("grpc_proxy", "http_proxy", "https_proxy", "TF_CONFIG", "KERAS_HOME")

MESSAGES_VARIABLE = "PERFTEST_MESSAGES"


class TaskProcess:
    """A started task.

    Raises OSError when it cannot be started.
    """

    def __init__(self, run_id: str, job: Job, place: Place, folder: Path) -> None:
        self.run_id = run_id
        self.place = place
        self.reported = False
        self.told_stopped = False
        self._group_gone = False
        self.log_path = folder / f"{place.role}-{place.index}.log"
        read, write = os.pipe()
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                interpreter.command("perftest.task"),
                executable=sys.executable,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write,),
                env=_environment(run_id, job, place, folder, write),
                start_new_session=True,
                preexec_fn=dies_with(os.getpid()),
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(log)
            os.close(write)
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe, as asked for
        with contextlib.suppress(OSError):  # room for the addresses of a large cluster
            fcntl.fcntl(self._process.stdin, fcntl.F_SETPIPE_SZ, _ASSIGNMENT_BYTES)
        self.lines = Lines(read)
        self.pid = self._process.pid
        self.send(Assignment(run_id, job, place))

    @property
    def messages(self) -> int:
        """The descriptor that the task's messages come from."""
        return self.lines.descriptor

    @property
    def exit_code(self) -> int:
        """Exit code, or −n for signal n; only of a task that has ended."""
        code = self._process.returncode
        if code is None:
            raise RuntimeError("the task has not ended")
        return code

    def send(self, message: object) -> None:
        """Write a message to the task's input. A task that is gone is reported by its end."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(OSError):
                stdin.write(protocol.encode(message))
                stdin.flush()

    def ended(self) -> bool:
        """Whether the process is gone (and by now reaped)."""
        return self._process.poll() is not None

    def is_stopped(self) -> bool:
        """Whether the process does not run because somebody stopped it, or traces it."""
        try:
            # Its name may have anything in it, but the state follows the last parenthesis.
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state in ("T", "t")

    def group_gone(self) -> bool:
        """Whether the process and all that it started in its group are gone.

        Once gone it stays so: the number may be another group's by now.
        """
        if not self._group_gone and self.ended():
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                self._group_gone = True
            except PermissionError:
                return False
        return self._group_gone

    def terminate(self) -> None:
        """End its input and ask its whole process group to end."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill whatever is left of its process group."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of the pipe that its messages came from."""
        os.close(self.lines.descriptor)

    def _signal(self, number: signal.Signals) -> None:
        if not self.group_gone():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
                # A stopped process acts on TERM only once it goes on.
                os.killpg(self.pid, signal.SIGCONT)


def read_log(path: Path) -> Iterator[tuple[str, int]]:
    """The log in pieces of text, each with the number of bytes that were left out before it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as log:
            skipped = max(0, size - _LOG_HEAD_BYTES - _LOG_TAIL_BYTES)
            end_of_head = size if not skipped else _LOG_HEAD_BYTES
            position, omitted = 0, 0
            while position < size:
                if skipped and position == end_of_head:
                    position += skipped
                    omitted = skipped
                    log.seek(position)
                stop = end_of_head if position < end_of_head else size
                data = log.read(min(_LOG_PIECE_BYTES, stop - position))
                if not data:
                    return
                yield data.decode("utf-8", "replace"), omitted
                position += len(data)
                omitted = 0
    except OSError as error:
        yield f"(the log could not be read: {error.strerror})\n", 0


def tail_of(path: Path) -> tuple[str, ...]:
    """The last lines of a log, as text."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ()
    return tuple(line[:500] for line in lines[-_TAIL_LINES:])


def _environment(
    run_id: str, job: Job, place: Place, folder: Path, messages: int
) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    environment.update(_threads(job))
    pairs = (each.partition("=") for each in place.environment)
    environment.update({name: value for name, _, value in pairs})
    environment["TF_ENABLE_ONEDNN_OPTS"] = "1" if job.onednn else "0"
    environment.update(
        CUDA_VISIBLE_DEVICES=place.gpu if place.gpu is not None else "-1",
        KERAS_BACKEND="tensorflow",
        PYTHONUNBUFFERED="1",
        # What TensorFlow and its compilers leave when a task is killed goes with its session.
        TMPDIR=str(folder),
    )
    environment[RUN_VARIABLE] = run_id
    environment[MESSAGES_VARIABLE] = str(messages)
    return interpreter.with_path(environment)


def _threads(job: Job) -> dict[str, str]:
    """The sizes of TensorFlow's pools, which it reads once, when it starts."""
    intra, inter = job.intra_op_threads, job.inter_op_threads
    sizes = {
        "TF_NUM_INTRAOP_THREADS": intra,
        "OMP_NUM_THREADS": intra,
        "TF_NUM_INTEROP_THREADS": inter,
    }
    return {name: str(size) for name, size in sizes.items() if size}


def dies_with(parent: int) -> Callable[[], None]:
    """What the child does before exec, so that not even `kill -9` of the agent leaves it behind."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the agent died before the line above
            os._exit(1)

    return in_child
