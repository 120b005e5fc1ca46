"""TensorFlow's server in a task of a training with parameter servers. Needs no Keras."""

from __future__ import annotations

from typing import Any, NoReturn

import tensorflow as tf

from perftest.protocol import Assignment
from perftest.task import AgentLink

v1 = tf.compat.v1


def serve(assignment: Assignment, link: AgentLink) -> NoReturn:
    """Hold parameters until the agent ends this process."""
    start_server(assignment)
    link.phase("serving parameters")
    link.wait_for_the_end()


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
