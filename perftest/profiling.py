"""A TensorBoard trace of a few steps that come after the measured ones, sent home in pieces."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from perftest.measure import StepResult
from perftest.protocol import MOST_TRACE_BYTES, TRACE_PIECE_BYTES, Job, TracePiece
from perftest.task import AgentLink


def profile(job: Job, link: AgentLink, step: Callable[[], StepResult]) -> None:
    """Trace the steps that the job asks for, and send the trace; often there are none.

    Nothing of this is measured. The steps are made whatever becomes of the trace, because the
    other workers make theirs with them; what goes wrong with it is told and ends no run.
    """
    if not job.profile_steps:
        return
    link.phase("profiling")
    # In the directory of the session, which goes with it whatever happens.
    folder = Path(tempfile.mkdtemp(prefix="trace-", dir=Path.cwd()))
    try:
        problem = _traced(folder, job.profile_steps, step)
        link.phase("sending the trace")
        _send(folder, problem, link)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _traced(folder: Path, steps: int, step: Callable[[], StepResult]) -> str:
    """Make the steps and trace them into the folder; why that cannot be done, if so."""
    import tensorflow as tf

    profiler = tf.profiler.experimental
    if problem := _why_not(lambda: profiler.start(str(folder))):
        for _ in range(steps):
            step()
        return problem
    try:
        for number in range(steps):
            with profiler.Trace("step", step_num=number, _r=1):
                step()
    finally:
        problem = _why_not(profiler.stop)
    return problem


def _why_not(do: Callable[[], object]) -> str:
    """What a call raises, in a line, or nothing."""
    try:
        do()
    except Exception as error:  # TensorFlow's and the system's, of many kinds
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
    return ""


def _send(folder: Path, problem: str, link: AgentLink) -> None:
    found = sorted(folder.rglob("*.xplane.pb"))
    size = found[0].stat().st_size if found else 0
    if not problem and not size:
        problem = "the profiler has written no trace"
    if not problem and size > MOST_TRACE_BYTES:
        problem = f"it has {size >> 20} MiB, and at most {MOST_TRACE_BYTES >> 20} are sent"
    if problem:
        link.tell(TracePiece("", True, problem))
        return
    with found[0].open("rb") as file:
        for start in range(0, size, TRACE_PIECE_BYTES):
            data = base64.b64encode(file.read(TRACE_PIECE_BYTES)).decode()
            link.tell(TracePiece(data, start + TRACE_PIECE_BYTES >= size))
