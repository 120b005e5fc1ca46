"""The messages between launcher, agent and task: frozen dataclasses <-> JSON lines.

Needs the standard library alone, because it runs on the operator's machine and on every node.

    launcher -> agent     Greet · Start · Go · Finish · Heartbeat · Stop
    agent    -> launcher  Hello · FromTask · Exited · Log · RunEnded · AgentFailed · Heartbeat
    agent    -> task      Assignment, then Go            (the task's standard input)
    task     -> agent     Phase · Ready · StepTimes · Finished · Failed     (a private descriptor)

A line is `{"type": "step_times", ...}`. What is decoded is checked against the annotations, so
that nothing of the wrong type gets past this file, whoever sent it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perftest import records
from perftest.records import MessageError as MessageError

VERSION = 1

# The agent's first line. A login shell may print before it; nothing before it is read as messages.
MARKER = f"perftest-agent-protocol {VERSION}"

# A longer line is refused, so that a broken node cannot fill the launcher's memory.
MAX_LINE_BYTES = 16 << 20

HEARTBEAT_SECONDS = 5.0
HEARTBEAT_LIMIT_SECONDS = 30.0

PARAMETER_SERVER = "ps"
WORKER = "worker"


# --- facts of a node -------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG slice of one. `memory_mib` is in MiB."""

    uuid: str
    name: str
    memory_mib: int
    driver: str


@dataclass(frozen=True)
class Versions:
    """Versions of what is installed on a node; an empty string is "not installed"."""

    python: str
    tensorflow: str
    keras: str
    h5py: str


# --- launcher -> agent -----------------------------------------------------------------------


@dataclass(frozen=True)
class PortRequest:
    """`count` TCP ports are wanted, the lowest that are free from `first` on."""

    first: int
    count: int


@dataclass(frozen=True)
class Greet:
    """Ask for Hello, and for ports that no other runtest on the node will take meanwhile."""

    version: int
    session: str
    ports: tuple[PortRequest, ...]


@dataclass(frozen=True)
class Cluster:
    """`host:port` of every parameter server and worker, in the order of their indices."""

    ps: tuple[str, ...]
    worker: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What all tasks of a run have in common.

    batch_size: images per worker and step.  aggregate: how many workers' gradients make an update
    (the number of workers less the backup workers).  steps are counted per worker.
    """

    model: str
    strategy: str
    batch_size: int
    warmup_steps: int
    measured_steps: int
    synchronous: bool
    aggregate: int
    precision: str
    learning_rate: float
    seed: int
    cluster: Cluster
    model_options: dict[str, float | int | bool | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """One task of a run: its role, index, and what of the node it may use.

    cpus: the processors it is pinned to (empty: all).  gpu: UUID of its GPU (None: it sees none).
    """

    role: str
    index: int
    cpus: tuple[int, ...]
    gpu: str | None


@dataclass(frozen=True)
class Start:
    """Start these tasks of a run on this node."""

    run_id: str
    job: Job
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Go:
    """All workers are ready: go on to the measured steps."""

    run_id: str


@dataclass(frozen=True)
class Finish:
    """End the run's tasks, send their logs, say RunEnded."""

    run_id: str


@dataclass(frozen=True)
class Heartbeat:
    """Whoever sends it is alive. Launcher and agent both send it."""


@dataclass(frozen=True)
class Stop:
    """End everything, clean up, leave."""


# --- agent -> launcher -----------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """What the node says of itself.

    machine: same for all agents of one machine (boot id).  network: same for all agents that share
    one set of ports.  cpus: processors that the agent may use,
    threads of one core next to each other.  free_ports: kept for this session.
    """

    version: int
    host: str
    user: str
    directory: str
    executable: str
    versions: Versions
    gpus: tuple[Gpu, ...]
    gpu_problem: str
    cpus: tuple[int, ...]
    cpu_model: str
    memory_bytes: int
    disk_free_bytes: int
    addresses: tuple[str, ...]
    machine: str
    network: str
    free_ports: tuple[int, ...]


@dataclass(frozen=True)
class FromTask:
    """A message of one task, passed on by its agent."""

    run_id: str
    role: str
    index: int
    message: TaskMessage


@dataclass(frozen=True)
class Exited:
    """A task's process ended. Of exit_code and signal, one is None."""

    run_id: str
    role: str
    index: int
    exit_code: int | None
    signal: int | None
    log_tail: tuple[str, ...]


@dataclass(frozen=True)
class Log:
    """A piece of a task's log, in order. `omitted_bytes` were left out just before it."""

    run_id: str
    role: str
    index: int
    text: str
    omitted_bytes: int


@dataclass(frozen=True)
class RunEnded:
    """All tasks of the run are gone, except those that `problems` names."""

    run_id: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class AgentFailed:
    """The agent itself could not do what it was asked."""

    error: str


# --- task -> agent ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """What the task is about to do, `elapsed_seconds` after its process started."""

    name: str
    elapsed_seconds: float


@dataclass(frozen=True)
class Ready:
    """Warm-up is done but for its last step; the worker waits for Go."""


@dataclass(frozen=True)
class StepTimes:
    """Some steps in a row. Lists run in step with each other, from step `first_step` on.

    seconds: time of each step by the worker's monotonic clock.  compute_seconds: until the worker's
    own gradients were there, or None where that is not known.  losses: of the worker's own batch,
    before the update.  global_steps: number of updates made when the step ended.
    """

    first_step: int
    measured: bool
    seconds: tuple[float, ...]
    compute_seconds: tuple[float | None, ...]
    losses: tuple[float | None, ...]
    global_steps: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """The worker has done its steps.

    parameters: number of trainable parameters.  parameter_norm: L2 norm of all of them after the
    last step, from worker 0 alone; a fingerprint of the training.  device: what it computed on.
    """

    parameters: int
    parameter_norm: float | None
    device: str


@dataclass(frozen=True)
class Failed:
    """The task gave up. `error` is one line; the log has the rest."""

    error: str


TaskMessage = Phase | Ready | StepTimes | Finished | Failed


@dataclass(frozen=True)
class Assignment:
    """A task's first line of input: the job, its place in it, and the run's name."""

    run_id: str
    job: Job
    place: Place


# --- lines -----------------------------------------------------------------------------------


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


_CODEC = records.Codec(
    {
        _snake(message.__name__): message
        for message in (
            *(Greet, Start, Go, Finish, Heartbeat, Stop),
            *(Hello, FromTask, Exited, Log, RunEnded, AgentFailed),
            *(Phase, Ready, StepTimes, Finished, Failed, Assignment),
        )
    }
)


def encode(message: Any) -> bytes:
    """One message as a line, with its newline. NaN and infinities become null."""
    return _CODEC.encode(message)


def decode(line: bytes) -> Any:
    """The message that a line holds.

    Raises MessageError when it holds none, or one whose fields are not of their types.
    """
    if len(line) > MAX_LINE_BYTES:
        raise MessageError(f"a line of more than {MAX_LINE_BYTES >> 20} MiB")
    return _CODEC.decode(line)
