"""No training at all: each worker reads and prepares its batches, as fast as they come.

What it measures is the ceiling that the input sets. It is what --input-only asks for, and no
choice of --strategy.
"""

from __future__ import annotations

from perftest import training
from perftest.inputs import Input
from perftest.protocol import WORKER, Assignment
from perftest.task import AgentLink
from perftest.worker import check_device, measure_input


def run(assignment: Assignment, link: AgentLink) -> None:
    """Take batches, one a step. The model says their size alone."""
    job, place = assignment.job, assignment.place
    if place.role != WORKER:
        raise ValueError("reading alone has no parameter servers")
    check_device(job, place)
    link.phase("building the model")
    measure_input(job, link, Input(job, place, training.build_model(job)))
