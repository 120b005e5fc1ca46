"""What every worker does, whatever its strategy: warm up, meet the others, measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from perftest.measure import StepResult, measure
from perftest.protocol import Finished, Job, Place
from perftest.task import AgentLink

if TYPE_CHECKING:
    from perftest.inputs import Input


def train(
    job: Job,
    link: AgentLink,
    step: Callable[[], StepResult],
    lockstep: bool = True,
    uncounted: int = 0,
) -> None:
    """Run the warm-up steps and, after all workers have met, the measured ones.

    The last warm-up step comes after the meeting, so that a synchronous step, and not the delay of
    a message, is what the measured steps begin with.

    `lockstep` says that a step of one worker is a step of all. Where it is not, others may need
    this worker's gradients (backup workers) or its load (asynchronous) while it has nothing left
    to do: it trains on, and nobody counts those steps. `uncounted` more steps are made after the
    meeting, for what piled up while everybody waited.
    """
    warmup = job.warmup_steps
    settling = min(1, warmup)
    first = min(1, warmup - settling)
    link.phase("first step")
    measure(step, first, 0, False, link.steps)
    link.phase("warming up")
    measure(step, warmup - first - settling, first, False, link.steps)
    link.ready()
    while not lockstep and not link.may_go():
        step()
    link.wait_for_go()
    for _ in range(uncounted):
        step()
    measure(step, settling, warmup - settling, False, link.steps)
    link.phase("measuring")
    measure(step, job.measured_steps, warmup, True, link.steps)


def measure_input(job: Job, link: AgentLink, batches: Input) -> None:
    """Measure how fast the batches come where nobody trains on them: a step is the next batch."""
    from perftest.data.pipeline import WINDOW_BYTES

    batches.start()
    steps = 0

    def step() -> StepResult:
        nonlocal steps
        batches.next()
        steps += 1
        return StepResult(math.nan, steps)

    # Reading goes on at the meeting, until all that is read ahead is full: it must not be measured.
    images = job.batch_size * math.prod(batches.source.image_shape)
    ahead = math.ceil(2 * WINDOW_BYTES / (4 * images)) + 8
    train(job, link, step, uncounted=ahead)
    link.finished(Finished(parameters=0, parameter_norm=None, device="/device:CPU:0"))


def device_name(place: Place) -> str:
    """TensorFlow's name of the one device that this worker computes on."""
    return "/device:GPU:0" if place.gpu is not None else "/device:CPU:0"


def check_device(job: Job, place: Place) -> None:
    """Raises RuntimeError when TensorFlow does not see the GPU that this worker was given, or that
    GPU has not the precision that is asked for.

    Without this, all would run on the processor and pass for the GPU's speed.
    """
    import tensorflow as tf

    if place.gpu is not None and not tf.config.list_physical_devices("GPU"):
        raise RuntimeError(
            f"TensorFlow {tf.__version__} does not see GPU {place.gpu}, which nvidia-smi lists: "
            "a build without CUDA, or missing CUDA libraries (pip install 'tensorflow[and-cuda]')"
        )
    from perftest import precision

    precision.check_gpu(job.precision, place)
