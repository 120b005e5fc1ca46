"""What a task says of itself."""

from __future__ import annotations

from perftest.protocol.training import (
    Evaluated,
    Progress,
    RocCurve,
    Saved,
    Staged,
    TrainingStarts,
)
from perftest.record import record


@record(frozen=True)
class Phase:
    """What the task is about to do, `elapsed_seconds` after its process started."""

    name: str
    elapsed_seconds: float


@record(frozen=True)
class Ready:
    """Warm-up is done but for its last step; the worker waits for Go."""


@record(frozen=True)
class StepTimes:
    """Some steps in a row. Lists run in step with each other, from step `first_step` on.

    seconds: time of each step by the worker's monotonic clock.  losses: of the worker's own batch,
    before the update.  global_steps: number of updates made when the step ended.
    The parts of a step, None where one is not known, and the whole list empty where a strategy has
    no such part (docs/measurement.md defines them): compute_seconds, the worker's own computing;
    pull_seconds, until it had all parameters; push_seconds, its gradients on their way;
    wait_seconds, for others.
    cpu_seconds: processor time that the worker's process took meanwhile.
    """

    first_step: int
    measured: bool
    seconds: tuple[float, ...]
    compute_seconds: tuple[float | None, ...]
    losses: tuple[float | None, ...]
    global_steps: tuple[int, ...]
    pull_seconds: tuple[float | None, ...] = ()
    push_seconds: tuple[float | None, ...] = ()
    wait_seconds: tuple[float | None, ...] = ()
    cpu_seconds: tuple[float | None, ...] = ()


@record(frozen=True)
class ServerHolds:
    """What one parameter server holds: variables or parts of them, and their bytes.

    pieces: how many of the variables are elsewhere, too.
    """

    variables: int
    pieces: int
    bytes: int


@record(frozen=True)
class ServersHold:
    """From worker 0: what each server holds, in the order of their indices, without slots."""

    servers: tuple[ServerHolds, ...]


@record(frozen=True)
class ServerLoad:
    """From a parameter server: it took `cpu_seconds` of processors in the last `seconds`."""

    cpu_seconds: float
    seconds: float


@record(frozen=True)
class Finished:
    """The worker has done its steps.

    parameters: number of trainable parameters.  parameter_norm: L2 norm of all of them after the
    last step, from worker 0 alone; a fingerprint of the training.  device: what it computed on.
    skipped_updates: not made since the run began, for gradients that float16 could not hold; with
    parameter servers, from worker 0 alone.
    """

    parameters: int
    parameter_norm: float | None
    device: str
    skipped_updates: int = 0


@record(frozen=True)
class Failed:
    """The task gave up. `error` is one line; the log has the rest."""

    error: str


# A trace that is larger is not sent home; and how much of it one message has.
MOST_TRACE_BYTES = 64 << 20
TRACE_PIECE_BYTES = 96 << 10


@record(frozen=True)
class TracePiece:
    """A piece of a worker's trace (an XSpace of TensorFlow's profiler), in order, as base64.

    All pieces but the last have TRACE_PIECE_BYTES.  problem: why there is no trace, in a last piece
    that is empty.
    """

    data: str
    last: bool
    problem: str = ""


TaskMessage = (
    Phase
    | Ready
    | StepTimes
    | Finished
    | Failed
    | TracePiece
    | ServersHold
    | ServerLoad
    | Staged
    | TrainingStarts
    | Progress
    | Evaluated
    | Saved
    | RocCurve
)
