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
    | Staged
    | TrainingStarts
    | Progress
    | Evaluated
    | Saved
    | RocCurve
)
