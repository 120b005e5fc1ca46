"""TensorFlow's server in a task of a training with parameter servers. Needs no Keras."""

from __future__ import annotations

import time
from typing import Any, NoReturn

import tensorflow as tf

from perftest.protocol import Assignment, ServerLoad
from perftest.task import AgentLink

v1 = tf.compat.v1

_REPORT_SECONDS = 0.5


def serve(assignment: Assignment, link: AgentLink) -> NoReturn:
    """Hold parameters until the agent ends this process."""
    start_server(assignment)
    link.phase("serving parameters")
    _tell_load(link)


def _tell_load(link: AgentLink) -> NoReturn:
    """Say again and again what processor time went by, for as long as this process lives."""
    at, used = time.monotonic(), time.process_time()
    while True:
        time.sleep(_REPORT_SECONDS)
        before, used_before = at, used
        at, used = time.monotonic(), time.process_time()
        link.tell(ServerLoad(used - used_before, at - before))


def start_server(assignment: Assignment) -> Any:
    """Raises RuntimeError when the port has been taken since it was found free."""
    cluster = assignment.job.cluster
    place = assignment.place
    config = v1.ConfigProto()
    config.gpu_options.allow_growth = True
    try:
        return tf.distribute.Server(
            {"ps": list(cluster.ps), "worker": list(cluster.worker)},
            job_name=place.role,
            task_index=place.index,
            protocol="grpc",
            config=config,
        )
    except tf.errors.UnknownError as error:
        address = getattr(cluster, place.role)[place.index]
        raise RuntimeError(
            f"TensorFlow cannot listen at {address}: another program has taken the port since it "
            "was found free (run again, or --port-base with another first port)"
        ) from error
