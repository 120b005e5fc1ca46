"""Every worker has all parameters, and adds up its gradients with everybody's.

Built on `tf.distribute.MultiWorkerMirroredStrategy`: its collective operations (a ring over gRPC,
or NCCL between GPUs) sum up packs of gradients laid end to end, so that small ones do not travel
alone, and the first packs travel while the rest is computed. The parameters are plain variables of
each process. They begin alike, because the seed determines them, and stay so, because all apply the
same sum.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from perftest import training
from perftest.inputs import Input
from perftest.measure import StepResult
from perftest.profiling import profile
from perftest.protocol import WORKER, Assignment, Finished, Job
from perftest.reaching import wait_until_listening
from perftest.strategies.single import Single
from perftest.task import AgentLink
from perftest.worker import check_device, device_name, measure_input, train

# Two workers train ResNet-50 1.03 to 1.10 times as fast as with all gradients in one pack.
_PACK_BYTES = 16_000_000


def run(assignment: Assignment, link: AgentLink) -> None:
    """Train on this process's one device, in step with all other workers."""
    job, place = assignment.job, assignment.place
    if place.role != WORKER:
        raise ValueError("the all_reduce strategy has no parameter servers")
    if job.training is not None:
        raise ValueError("the all_reduce strategy measures, and does not train in epochs")
    check_device(job, place)
    # Collective operations can only be set up before anything else runs.
    link.phase("meeting the other workers")
    options = communication_of(job)
    if place.index:
        wait_until_listening(job.cluster.worker[:1])
    strategy = _strategy(job, place.index, options)

    def engine(model: Any, batches: Input, device: str) -> AllReduce:
        return AllReduce(job, model, batches, device, strategy, options)

    measure_in_step(assignment, link, engine)


def measure_in_step(
    assignment: Assignment,
    link: AgentLink,
    make_engine: Callable[[Any, Input, str], Lockstep],
) -> None:
    """Build, measure and tell, once the workers have met; does not return."""
    job, place = assignment.job, assignment.place
    link.phase("building the model")
    device = device_name(place)
    with tf.device(device):
        model = training.build_model(job)
    batches = Input(job, place, model)
    if job.data.input_only:
        measure_input(job, link, batches)
        return
    engine = make_engine(model, batches, device)
    if batches.fixed is None:
        batches.start(device)
    train(job, link, engine.step)
    parameters = sum(p.shape.num_elements() for p in engine.parameters)
    norm = engine.norm() if place.index == 0 else None
    done = Finished(parameters, norm, device, engine.skipped())
    profile(job, link, engine.step)
    link.finished(done)
    # Until the agent ends this process: whoever leaves first would fail the others' last step.
    link.wait_for_the_end()


def communication_of(job: Job) -> Any:
    """How TensorFlow is to add up: an operation for each pack, which begins when its gradients are
    there.
    """
    kinds = tf.distribute.experimental.CommunicationImplementation
    kind = {"auto": kinds.AUTO, "ring": kinds.RING, "nccl": kinds.NCCL}[job.communication]
    return tf.distribute.experimental.CommunicationOptions(_PACK_BYTES, implementation=kind)


def _strategy(job: Job, index: int, options: Any) -> Any:
    """TensorFlow's strategy for this cluster. Returns when all workers have met."""
    cluster = {"worker": list(job.cluster.worker)}
    config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(config)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


class Lockstep(Single):
    """The training of one of several processes that keep the same parameters."""

    _computed_at: Any

    def step(self) -> StepResult:
        """Train on the next batch, with all others on theirs."""
        started = time.time()
        loss, computed_at = self._update()
        value = float(loss)
        self._steps += 1
        own = float(computed_at) - started
        # Two readings of a clock that may be set: what cannot be is not known.
        return StepResult(value, self._steps, own if own > 0 else math.nan)

    def _note_computed(self, gradients: list[Any]) -> None:
        """Take the time when all are there, and before the last of them travels."""
        with tf.device("/device:CPU:0"), tf.control_dependencies(gradients):
            self._computed_at = tf.timestamp()


class AllReduce(Lockstep):
    """By the collective operations of TensorFlow."""

    def __init__(
        self, job: Job, model: Any, batches: Input, device: str, strategy: Any, options: Any
    ) -> None:
        self._strategy = strategy
        self._options = options
        super().__init__(job, model, batches, device)

    def _replica(self, images: Any, labels: Any, weights: Any) -> Any:
        loss = self._strategy.run(self._train, args=(images, labels, weights))
        return loss, self._computed_at

    def _combined(self, gradients: list[Any]) -> list[Any]:
        self._note_computed(gradients)
        context = tf.distribute.get_replica_context()
        return list(
            context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients, options=self._options)
        )
