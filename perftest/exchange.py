"""How parameters come to a worker, and how gradients go to the servers: the graph of both.

Synchronous updates are TensorFlow's accumulators and queues of tokens on the servers, much as its
SyncReplicasOptimizer uses them (Chen et al., "Revisiting distributed synchronous SGD",
arXiv:1604.00981). Here they are used directly, so that the moments between can be told apart, and
so that what travels to a server elsewhere can be the sum of a node's workers:

    one worker of each node, the adder, pulls the parameters of servers elsewhere and hands them to
    the others through queues in its own process; they hand it their gradients of these through
    accumulators there; it sends on their mean, and gives the others the number of the update.
    With servers on their own node all workers deal themselves: that goes through no link.

A queue of parameters holds exactly one value for each of the others and step, and they take one
each: nobody can run ahead, because the next step's come when this step's update is made.
"""

from __future__ import annotations

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
        self._wire = _WIRE[job.gradient_dtype]
        self._adder = job.adders[worker] if job.adders else worker
        own = [each for each, adder in enumerate(job.adders) if adder == self._adder]
        self._others = [each for each in own if each != self._adder]
        self._is_adder = self._adder == worker
        # The pieces that go through the adder.
        self._through = [bool(self._others) and not self._is_near(p) for p in self._pieces]
        self.update: Any = None
        self._noted: list[Any] = []
        if job.synchronous:
            self._local_step = layout.local_step.variable()
            self._tokens = self._tokens_of_update()
            self._sums = [_sum(piece, piece.device, "all") for piece in self._pieces]
            self._define_update()
        if self._others:
            self._make_talk()
            self._own_tokens: Any = self._node_tokens.get(worker)

    def _is_near(self, piece: Shape) -> bool:
        return self._job.server_adders[piece.server] == self._adder

    def _make_talk(self) -> None:
        """What lives on the adder's processor, between it and the other workers of its node."""
        place = host_of(self._adder)
        self._node_tokens = {w: _tokens(f"node/tokens/{w}", place) for w in self._others}
        self._node_sums = [_sum(piece, place, "node") for piece in self._pieces]
        with v1.device(place):
            self._handed = [
                v1.FIFOQueue(-1, piece.dtype, [piece.shape], shared_name=f"node/{piece.name}")
                for piece in self._pieces
            ]

    def pull(self) -> list[Any]:
        """The values of all pieces of the parameters."""
        return [
            self._handed_on(i) if self._through[i] else variable.read_value()
            for i, variable in enumerate(self._updates.parameters)
        ]

    def _handed_on(self, i: int) -> Any:
        """A piece that one worker of the node pulls for all."""
        if not self._is_adder:
            return self._handed[i].dequeue()
        with v1.device(self._host):  # where all that use it take it from: it travels once
            value = tf.identity(self._updates.parameters[i].read_value())
            self._noted += [self._handed[i].enqueue(value) for _ in self._others]
        return value

    def push(self, gradients: Sequence[Any]) -> Sent:
        """Send the gradients of all pieces, and wait for the update."""
        if not self._job.synchronous:
            return self._push_alone(gradients)
        step = self._local_step.read_value()
        gathered: list[Any] = []
        given = []
        for i, gradient in enumerate(gradients):
            workers = 1
            if self._through[i]:
                handed = self._node_sums[i].apply_grad(gradient, _ALWAYS)
                if not self._is_adder:
                    given.append(handed)
                    continue
                self._noted.append(handed)
                workers += len(self._others)
                gradient = self._node_sums[i].take_grad(workers)
                gathered.append(gradient)
            sent = self._over_the_wire(self._weighed(gradient, i, workers), i)
            given.append(self._sums[i].apply_grad(sent, step))
        delivered = tf.group(*given)
        tokens = self._tokens[self._adder] if self._is_adder else self._own_tokens
        with v1.control_dependencies([delivered]):
            token = tokens.dequeue()
        noted = [*self._noted, self._local_step.assign(token, read_value=False)]
        if self._is_adder and self._others:
            noted += [queue.enqueue(token) for queue in self._node_tokens.values()]
        with v1.device(self._host), v1.control_dependencies(noted):
            return Sent(gathered, delivered, tf.identity(token))

    def _push_alone(self, gradients: Sequence[Any]) -> Sent:
        sent = [self._over_the_wire(gradient, i) for i, gradient in enumerate(gradients)]
        applied = self._updates.apply(sent)
        with v1.control_dependencies([applied]):
            return Sent((), applied, self._global_step.read_value())

    def _senders(self, piece: Shape) -> int:
        """How many gradients of a piece make an update."""
        adders = self._job.adders
        if not adders:
            return self._job.aggregate
        near = adders.count(self._job.server_adders[piece.server])
        return len(set(adders)) + max(0, near - 1)

    def _weighed(self, mean: Any, i: int, workers: int) -> Any:
        """The mean of some workers' gradients, weighed so that the server's mean of all that it is
        sent is that of all workers.
        """
        all_workers = len(self._job.adders)
        factor = workers * self._senders(self._pieces[i]) / all_workers if all_workers else 1.0
        if factor == 1:
            return mean
        with v1.device(mean.device):
            return mean * tf.constant(factor, mean.dtype)

    def _over_the_wire(self, gradient: Any, i: int) -> Any:
        """The same gradient on its server; on the way there it has the type of the wire."""
        if self._wire == tf.float32:
            return gradient
        with v1.device(gradient.device):
            small = tf.cast(gradient, self._wire)
        with v1.device(self._pieces[i].device):
            return tf.cast(small, self._pieces[i].dtype)

    def _define_update(self) -> None:
        """One update with everybody's gradients, and a token for each that waits for it."""
        means = [
            total.take_grad(self._senders(piece))
            for total, piece in zip(self._sums, self._pieces, strict=True)
        ]
        applied = self._updates.apply(means)
        with v1.control_dependencies([applied]), v1.device(self._global_step.device):
            number = self._global_step.read_value()
            # One each: the same queue stands here as often as workers wait for it.
            self.update = tf.group(*(queue.enqueue(number) for queue in self._tokens.values()))

    def _tokens_of_update(self) -> dict[int, Any]:
        """Where each of those who wait for an update hears of it.

        Where every gradient is needed each has a queue of its own: from one that all share, a
        worker whose neighbour is slow to ask (its link was down for a moment) would take that one's
        token as well, and give two gradients to an update. Backup workers share: what one that is
        late has missed is no longer of use to it.
        """
        job = self._job
        waiting = sorted(set(job.adders)) or range(len(job.cluster.worker))
        device = self._global_step.device
        if job.aggregate < len(job.cluster.worker):
            return dict.fromkeys(waiting, _tokens("tokens", device))
        return {worker: _tokens(f"tokens/{worker}", device) for worker in waiting}


def _tokens(name: str, device: str) -> Any:
    with v1.device(device):
        return v1.FIFOQueue(-1, tf.int64, [()], shared_name=name)


def _sum(piece: Shape, device: str, whose: str) -> Any:
    """An accumulator: it gives the mean of so many gradients once they are there."""
    with v1.device(device):
        return v1.ConditionalAccumulator(
            piece.dtype, shape=piece.shape, shared_name=f"sum/{whose}/{piece.name}"
        )
