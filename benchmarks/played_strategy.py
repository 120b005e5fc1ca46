"""A strategy without TensorFlow, for soak.py: a worker that starts in no time and learns a line.

soak.py puts it into a copy of the program as `perftest/strategies/played.py`; all that is around it
is the real thing.
"""

from __future__ import annotations

import math
import random

from perftest.measure import StepResult, measure
from perftest.protocol import Assignment, Finished
from perftest.task import AgentLink

_PARAMETERS = 200


def run(assignment: Assignment, link: AgentLink) -> None:
    """Fit a vector to another by gradient descent; the losses follow from seed and worker alone."""
    job, place = assignment.job, assignment.place
    numbers = random.Random(job.seed * 1000 + place.index)  # noqa: S311 - no secret
    wanted = [numbers.gauss(0, 1) for _ in range(_PARAMETERS)]
    parameters = [0.0] * _PARAMETERS
    made = 0

    def step() -> StepResult:
        nonlocal made
        made += 1
        errors = [p - w for p, w in zip(parameters, wanted, strict=True)]
        for i, error in enumerate(errors):
            parameters[i] -= job.learning_rate * error
        return StepResult(sum(error * error for error in errors), made)

    link.phase("warming up")
    measure(step, job.warmup_steps, 0, False, link.steps)
    link.ready()
    link.wait_for_go()
    link.phase("measuring")
    measure(step, job.measured_steps, job.warmup_steps, True, link.steps)
    norm = math.sqrt(sum(p * p for p in parameters))
    link.finished(Finished(_PARAMETERS, None if place.index else norm, "/device:CPU:0"))
