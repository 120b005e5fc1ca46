"""How parameters come to a worker, and how gradients go to the servers: the graph of both.

Synchronous updates are TensorFlow's accumulators and a queue of tokens on the servers, as its
SyncReplicasOptimizer uses them (Chen et al., "Revisiting distributed synchronous SGD",
arXiv:1604.00981). Here they are used directly, so that the moments between can be told apart, and
so that the workers of a node can be one in the eyes of the servers:

    one worker of each node, the adder, pulls the parameters and hands them to the others through
    queues in its own process; they hand it their gradients through accumulators there; it sends
    the node's mean to the servers, waits for the update, and gives the others its number.

A queue of parameters holds exactly one value for each of the others and step, and they take one
each: nobody can run ahead, because the next step's come when this step's update is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from perftest.protocol import Job
from perftest.shared import Layout, Shape, host_of
from perftest.updates import Updates

v1 = tf.compat.v1

_WIRE = {"fp32": tf.float32, "fp16": tf.float16, "bf16": tf.bfloat16}
# Newer than any update: what a worker hands to its node's adder is never too old.
_ALWAYS = 2**62


@dataclass(frozen=True)
class Sent:
    """Operations that follow on a worker's gradients, and the number of updates made, known once
    these gradients have played their part.

    gathered: the node's gradients are all there; none where a worker sends its own.
    delivered: all that this worker sends has been taken.
    """

    gathered: Sequence[Any]
    delivered: Any
    updates: Any


class Exchange:
    """One worker's part. Made in the graph that trains; `update` is worker 0's to run."""

    def __init__(self, job: Job, layout: Layout, worker: int) -> None:
        self._job = job
        self._pieces = layout.pieces
        self._updates = Updates(job, layout)
        self._global_step = self._updates.global_step
        self.scale = self._updates.scale
        self._host = host_of(worker)
        self._adder = job.adders[worker] if job.adders else worker
        self._is_adder = self._adder == worker
        self._others = Counter(job.adders)[worker] - 1 if job.adders else 0
        self._wire = _WIRE[job.gradient_dtype]
        self.update: Any = None
        if job.synchronous and self._is_adder:
            self._local_step = layout.local_step.variable()
            self._tokens = _tokens("tokens", self._global_step.device)
            self._sums = [_sum(piece, piece.device, "all") for piece in self._pieces]
            self._define_update()
        if self._others or not self._is_adder:
            self._make_talk()

    def _make_talk(self) -> None:
        """What lives on the adder's processor, between it and the other workers of its node."""
        place = host_of(self._adder)
        self._node_tokens = _tokens("node/tokens", place)
        self._node_sums = [_sum(piece, place, "node") for piece in self._pieces]
        with v1.device(place):
            self._handed = [
                v1.FIFOQueue(-1, piece.dtype, [piece.shape], shared_name=f"node/{piece.name}")
                for piece in self._pieces
            ]

    def pull(self) -> list[Any]:
        """The values of all pieces of the parameters."""
        if not self._is_adder:
            return [queue.dequeue() for queue in self._handed]
        values = [variable.read_value() for variable in self._updates.parameters]
        if not self._others:
            return values
        with v1.device(self._host):  # where all that use them take them from: they travel once
            values = [tf.identity(value) for value in values]
            self._handing = [
                queue.enqueue(value)
                for queue, value in zip(self._handed, values, strict=True)
                for _ in range(self._others)
            ]
        return values

    def push(self, gradients: Sequence[Any]) -> Sent:
        """Send the gradients of all pieces, and wait for the update."""
        if not self._job.synchronous:
            return self._push_alone(gradients)
        if not self._is_adder:
            delivered = self._hand_over(gradients)
            with v1.control_dependencies([delivered]):
                return Sent((), delivered, self._node_tokens.dequeue())
        gathered: list[Any] = []
        if self._others:
            gathered = gradients = self._add_up(gradients)
        gradients = self._weighed(gradients)
        delivered = self._deliver(gradients)
        with v1.control_dependencies([delivered]):
            token = self._tokens.dequeue()
        noted = [self._local_step.assign(token, read_value=False)]
        with v1.device(self._host):
            if self._others:
                tokens = tf.fill([self._others], token)
                noted += [self._node_tokens.enqueue_many((tokens,)), *self._handing]
            with v1.control_dependencies(noted):
                return Sent(gathered, delivered, tf.identity(token))

    def _push_alone(self, gradients: Sequence[Any]) -> Sent:
        applied = self._updates.apply(self._over_the_wire(gradients))
        with v1.control_dependencies([applied]):
            return Sent((), applied, self._global_step.read_value())

    def _hand_over(self, gradients: Sequence[Any]) -> Any:
        """Give the adder of this node our gradients."""
        pairs = zip(self._node_sums, gradients, strict=True)
        return tf.group(*(total.apply_grad(gradient, _ALWAYS) for total, gradient in pairs))

    def _add_up(self, gradients: Sequence[Any]) -> list[Any]:
        """The mean gradients of the whole node."""
        pairs = zip(self._node_sums, gradients, strict=True)
        own = [total.apply_grad(gradient, _ALWAYS) for total, gradient in pairs]
        self._handing += own
        return [total.take_grad(self._others + 1) for total in self._node_sums]

    def _weighed(self, means: Sequence[Any]) -> Sequence[Any]:
        """The means of nodes, weighed so that the servers' mean of them is that of all workers."""
        adders = self._job.adders
        factor = (self._others + 1) * len(set(adders)) / len(adders) if adders else 1.0
        if factor == 1:
            return means
        found = []
        for mean in means:
            with v1.device(mean.device):
                found.append(mean * tf.constant(factor, mean.dtype))
        return found

    def _deliver(self, gradients: Sequence[Any]) -> Any:
        """Give the servers gradients, each for a piece that it holds."""
        sent = self._over_the_wire(gradients)
        step = self._local_step.read_value()
        pairs = zip(self._sums, sent, strict=True)
        return tf.group(*(total.apply_grad(gradient, step) for total, gradient in pairs))

    def _over_the_wire(self, gradients: Sequence[Any]) -> list[Any]:
        """The same gradients on the servers; on the way there they have the type of the wire."""
        found = []
        for piece, gradient in zip(self._pieces, gradients, strict=True):
            if self._wire == tf.float32:
                found.append(gradient)
                continue
            with v1.device(gradient.device):
                small = tf.cast(gradient, self._wire)
            with v1.device(piece.device):
                found.append(tf.cast(small, piece.dtype))
        return found

    def _define_update(self) -> None:
        """One update with everybody's gradients, and a token for each that waits for it."""
        senders = len(set(self._job.adders)) if self._job.adders else self._job.aggregate
        waiting = senders if self._job.adders else len(self._job.cluster.worker)
        applied = self._updates.apply([total.take_grad(senders) for total in self._sums])
        with v1.control_dependencies([applied]), v1.device(self._global_step.device):
            tokens = tf.fill([waiting], self._global_step.read_value())
            self.update = self._tokens.enqueue_many((tokens,))


def _tokens(name: str, device: str) -> Any:
    with v1.device(device):
        return v1.FIFOQueue(-1, tf.int64, [()], shared_name=name)


def _sum(piece: Shape, device: str, whose: str) -> Any:
    """An accumulator: it gives the mean of so many gradients once they are there."""
    with v1.device(device):
        return v1.ConditionalAccumulator(
            piece.dtype, shape=piece.shape, shared_name=f"sum/{whose}/{piece.name}"
        )
