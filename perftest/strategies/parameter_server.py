"""Parameters on parameter servers, gradients from the workers: synchronous, or each as it comes.

Built on `tf.distribute.Server` and a `tf.compat.v1` graph, because the accumulators and queues of
SyncReplicasOptimizer are all that TensorFlow has for synchronous parameter servers; exchange.py
uses them.

Two graphs share the variables by name. The small one makes them and sets their initial values; the
large one trains. TensorFlow optimises and ships a whole graph again for every distinct set of
fetches, so that the large one is run with one set only (and one more by worker 0, which applies
the updates); anything else runs on the small one.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from perftest import shared, training
from perftest.checkpoints import Values
from perftest.course import Course, steps_per_epoch
from perftest.exchange import Exchange
from perftest.inputs import Input, on_host
from perftest.keeper import Keeper, evaluate, values_like
from perftest.loss_scale import all_finite, kept_if
from perftest.measure import StepResult
from perftest.moments import Moments, parts
from perftest.profiling import profile
from perftest.protocol import Assignment, Finished, Job, ServersHold
from perftest.reaching import wait_until_listening
from perftest.serving import start_server
from perftest.shared import cut, joined, shapes_of
from perftest.small_graph import SmallGraph
from perftest.task import AgentLink
from perftest.worker import check_device, device_name, measure_input, train

v1 = tf.compat.v1


def run(assignment: Assignment, link: AgentLink) -> None:
    """Train as a worker; perftest/serving.py is the part of the servers."""
    job, place = assignment.job, assignment.place
    check_device(job, place)
    if job.training is not None and job.training.evaluate:
        evaluate(job, place, link)
        return
    server = start_server(assignment)
    _Worker(assignment, link, server.target).run()


class _Worker:
    """A worker: builds the two graphs, waits for the parameters, trains."""

    def __init__(self, assignment: Assignment, link: AgentLink, target: str) -> None:
        self.job: Job = assignment.job
        self.link = link
        self.index = assignment.place.index
        self.is_chief = self.index == 0
        self._target = target
        self._place = assignment.place
        self._device, self._host = shared.devices(assignment.place)

    def run(self) -> None:
        """Train; return when this worker's steps are done."""
        self.link.phase("building the model")
        small, large = tf.Graph(), tf.Graph()
        with small.as_default(), v1.device(self._host):
            self._model = training.build_model(self.job)
        self.link.phase("reading the data")
        self._batches = Input(self.job, self._place, self._model)
        if self.job.data.input_only:
            measure_input(self.job, self.link, self._batches)
            return
        self._layout = shared.layout(self.job, self._place, self._model, self._batches)
        if self.is_chief:
            held = shared.held(self._layout, len(self.job.cluster.ps))
            self.link.tell(ServersHold(held))
        with small.as_default():
            self._small = SmallGraph(self.job, self.index, self._model, self._layout, self._batches)
        with large.as_default():
            fetches, feeds = self._define_step()
        self.link.phase("waiting for the parameter servers")
        wait_until_listening(self.job.cluster.ps)
        self._small.bind(self._session(small, optimise=False))
        self.link.phase("initialising")
        keeper = self._keeper()
        first_epoch = self._initialise(keeper)
        trainer = self._session(large, optimise=True)
        with large.as_default():
            self._start_updates(trainer)
        self._train_step = self._step(trainer, fetches, feeds)
        if self.job.training is None:
            self._measure(self._train_step)
        else:
            self._batches.start(first_epoch=first_epoch)
            Course(self.job, self.link, self, self._batches, keeper).run(first_epoch)
            self._say_finished()

    def _keeper(self) -> Keeper | None:
        """Worker 0 looks after real training."""
        if self.job.training is None or not self.is_chief:
            return None
        return Keeper(
            self.job,
            self._place,
            self.link,
            self._batches.source,
            lambda: training.build_model(self.job),
        )

    def _measure(self, step: Callable[[], StepResult]) -> None:
        if self._batches.fixed is None:
            self._batches.start()
        lockstep = self.job.synchronous and self.job.aggregate == len(self.job.cluster.worker)
        train(self.job, self.link, step, lockstep)
        self._say_finished()
        while not lockstep:  # until the agent ends this process
            step()

    def _say_finished(self) -> None:
        count = sum(math.prod(shape.shape) for shape in self._layout.pieces)
        norm = self._small.norm() if self.is_chief else None
        skipped = self._small.skipped() if self.is_chief else 0
        done = Finished(count, norm, device_name(self._place), skipped)
        profile(self.job, self.link, self._train_step)
        self.link.finished(done)

    # What the loops ask of a strategy.

    def step(self) -> StepResult:
        """Train on the next batch."""
        return self._train_step()

    def values(self) -> Values:
        """All that has been learnt, as it is now."""
        return self._small.values()

    def release(self, step: int) -> None:
        """Let the others train on from this step."""
        self._small.release(step)

    def released(self) -> int:
        """The step up to which the workers may train."""
        return self._small.released()

    def leave(self) -> None:
        """This worker has made its last step."""
        self._small.leave()

    def left(self) -> int:
        """How many workers have."""
        return self._small.left()

    # The large graph: one training step.

    def _define_step(self) -> tuple[list[Any], list[Any]]:
        """What a step fetches, and what it is fed."""
        layout = self._layout
        state = shapes_of(layout.state)
        feeds, batch = self._define_batch()
        self._exchange = Exchange(self.job, layout, self.index)
        moments = Moments(self._host)
        with v1.device(self._device):
            pieces = self._exchange.pull()
            moments.note("pulled", pieces)
            values = joined(pieces, layout.parameters)
            old = [variable.read_value() for variable in state]
            scale = self._exchange.scale.scale.read_value() if self._exchange.scale else None
            pure = training.step_of(self.job, self._model, self._batches.source.channels_first)
            result = pure(values, old, *batch, scale)
            decay = self.job.optimizer.weight_decay
            gradients = training.decayed(result.gradients, values, decay)
            new = result.state
            if scale is not None:  # what float16 could not hold must not enter averages
                new = kept_if(all_finite(result.gradients), new, old)
            # The gradient of the first layer is the last to be computed.
            moments.note("computed", result.gradients[:1])
            sent = self._exchange.push(cut(gradients, layout.parameters))
        moments.note("gathered", sent.gathered)
        moments.follow("delivered", sent.delivered)
        kept = [v.assign(value).op for v, value in zip(state, new, strict=True)]
        with v1.device(self._host), v1.control_dependencies(kept):
            updates = tf.identity(sent.updates)
        return [result.loss, updates, moments.all()], feeds

    def _define_batch(self) -> tuple[list[Any], list[Any]]:
        """What is fed, and the batch that is made of it."""
        if self._batches.fixed is not None:
            with v1.device(self._device):
                return [], [v.read_value() for v in shapes_of(list(self._layout.fixed))] + [None]
        with v1.device(self._host):
            feeds = [v1.placeholder(each.dtype, each.shape) for each in self._batches.batch_shapes]
        return feeds, feeds

    # Sessions.

    def _session(self, graph: Any, optimise: bool) -> Any:
        ours = {self.index, *self.job.adders[self.index : self.index + 1]}
        config = v1.ConfigProto(
            # What has no kernel for a GPU (the odd integer) may go to its host.
            allow_soft_placement=True,
            # A worker's session need not wait for workers that have no part in it.
            device_filters=["/job:ps", *(f"/job:worker/task:{i}" for i in sorted(ours))],
        )
        config.gpu_options.allow_growth = True
        config.graph_options.rewrite_options.disable_meta_optimizer = not optimise
        return v1.Session(self._target, graph=graph, config=config)

    def _initialise(self, keeper: Keeper | None) -> int:
        """Set all variables, or wait until they are set; the epoch to begin with."""
        small = self._small
        small.set_own()
        if self.is_chief:
            small.set_shared()
            if keeper is not None:
                self._resume(keeper)
            small.say_ready()
        small.wait_until_ready()
        if self.job.training is None:
            return 0
        steps = small.released()
        if steps:
            small.advance_seeds(steps)
        return steps // steps_per_epoch(self.job, self._batches)

    def _resume(self, keeper: Keeper) -> None:
        steps = steps_per_epoch(self.job, self._batches)
        checkpoint = keeper.resume(values_like(self._model))
        keeper.starts(steps, checkpoint)
        if checkpoint is not None:
            self._small.restore(checkpoint.values)
            # What tells the others where they are.
            self._small.release(checkpoint.about.epoch * steps)

    def _start_updates(self, session: Any) -> None:
        """Worker 0 applies the synchronous updates, in a thread of its own."""
        if self.is_chief and self._exchange.update is not None:
            update = session.make_callable(self._exchange.update)
            threading.Thread(target=_repeat, args=(update,), name="updates", daemon=True).start()

    def _step(self, session: Any, fetches: list[Any], feeds: list[Any]) -> Callable[[], StepResult]:
        run_once = session.make_callable(fetches, feeds)

        def batch() -> list[Any]:
            if not feeds:
                return []
            batch = self._batches.next()
            return [on_host(each) for each in (batch.images, batch.labels, batch.train_weights)]

        def step() -> StepResult:
            fed = batch()
            started = time.time()
            loss, updates, moments = run_once(*fed)
            return StepResult(float(loss), int(updates), **parts(started, moments, time.time()))

        return step


def _repeat(update: Callable[[], Any]) -> None:
    """Make one update after the other until the servers are gone, which the steps tell better."""
    try:
        while True:
            update()
    except tf.errors.OpError as error:
        print(f"no more updates: {error}", file=sys.stderr, flush=True)
