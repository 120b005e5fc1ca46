"""Parameters on parameter servers, gradients from the workers: synchronous, or each as it comes.

Built on `tf.distribute.Server` and a `tf.compat.v1` graph, because SyncReplicasOptimizer is the
only engine that TensorFlow has for synchronous parameter servers
(Chen et al., "Revisiting distributed synchronous SGD", arXiv:1604.00981).

Two graphs share the variables by name. The small one makes them and sets their initial values; the
large one trains. TensorFlow optimises and ships a whole graph again for every distinct set of
fetches, so that the large one is run with one set only (and one more by worker 0, which applies
the updates); anything else runs on the small one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from perftest import training
from perftest.measure import StepResult
from perftest.protocol import PARAMETER_SERVER, Assignment, Finished, Job
from perftest.task import AgentLink
from perftest.worker import check_device, device_name, train

v1 = tf.compat.v1

_POLL_SECONDS = 0.02


def run(assignment: Assignment, link: AgentLink) -> None:
    """Serve parameters until the end, or train as a worker."""
    server = _start_server(assignment)
    if assignment.place.role == PARAMETER_SERVER:
        link.phase("serving parameters")
        link.wait_for_the_end()
    check_device(assignment.place)
    _Worker(assignment, link, server.target).run()


def assign_to_servers(sizes: Sequence[int], servers: int) -> list[int]:
    """The server of each variable: the largest first, each to the server that holds least so far.

    sizes: bytes of each variable. Returns an index below `servers` for each, in the same order.
    """
    held = [0] * servers
    chosen = [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        server = min(range(servers), key=lambda s: (held[s], s))
        chosen[i] = server
        held[server] += sizes[i]
    return chosen


def _start_server(assignment: Assignment) -> Any:
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


@dataclass(frozen=True)
class _Shape:
    """One variable that is made anew in each graph: its name is what the graphs share."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    device: str

    def variable(self, initial: Any = None) -> Any:
        """The variable in the current graph."""
        with v1.device(self.device):
            return v1.get_variable(
                self.name,
                shape=None if initial is not None else self.shape,
                dtype=None if initial is not None else self.dtype,
                initializer=initial if initial is not None else v1.zeros_initializer(),
                trainable=False,
                use_resource=True,
            )


class _Worker:
    """A worker: builds the two graphs, waits for the parameters, trains."""

    def __init__(self, assignment: Assignment, link: AgentLink, target: str) -> None:
        self.job: Job = assignment.job
        self.link = link
        self.index = assignment.place.index
        self.is_chief = self.index == 0
        self._target = target
        self._place = assignment.place
        self._device = f"/job:worker/task:{self.index}{device_name(assignment.place)}"
        self._host = f"/job:worker/task:{self.index}/device:CPU:0"

    def run(self) -> None:
        """Train; return when this worker's steps are done."""
        self.link.phase("building the model")
        small, large = tf.Graph(), tf.Graph()
        with small.as_default():
            self._define_small()
        with large.as_default():
            fetches = self._define_large()
        self.link.phase("waiting for the parameter servers")
        session = self._session(small, optimise=False)
        self.link.phase("initialising")
        self._initialise(session)
        trainer = self._session(large, optimise=True)
        with large.as_default():
            self._start_updates(trainer)
        step = self._step(trainer, fetches)
        lockstep = self.job.synchronous and self.job.aggregate == len(self.job.cluster.worker)
        train(self.job, self.link, step, lockstep)
        norm = float(session.run(self._norm)) if self.is_chief else None
        self.link.finished(Finished(self._parameter_count, norm, device_name(self._place)))
        while not lockstep:  # until the agent ends this process
            step()

    # The small graph: variables, initial values, the sign that they are set.

    def _define_small(self) -> None:
        with v1.device(self._host):
            model = training.build_model(self.job)
        self._model = model
        images, labels = training.make_batch(self.job, model, self.index)
        self._parameters = self._parameter_shapes(model)
        self._parameter_count = sum(v.shape.num_elements() for v in _values(model, True))
        self._state = [
            _Shape(f"state/{i}", tuple(v.shape), v.dtype, self._device)
            for i, v in enumerate(_values(model, False))
        ]
        self._images = _Shape("images", images.shape, tf.float32, self._device)
        self._labels = _Shape("labels", labels.shape, tf.int64, self._device)
        self._batch = {"images": images, "labels": labels}
        self._global_step = _Shape("global_step", (), tf.int64, "/job:ps/task:0/device:CPU:0")
        flag = _Shape("ready", (), tf.bool, "/job:ps/task:0/device:CPU:0").variable()
        self._is_ready = v1.is_variable_initialized(flag)
        with v1.control_dependencies([self._set_parameters(model)]):
            # Made here, and not taken from the variable: an operation that stands already would
            # not wait for the parameters.
            self._set_global = flag.assign(True).op
        self._set_local = self._set_worker_variables(model)

    def _parameter_shapes(self, model: Any) -> list[_Shape]:
        values = _values(model, True)
        sizes = [v.shape.num_elements() * v.dtype.size for v in values]
        servers = assign_to_servers(sizes, len(self.job.cluster.ps))
        return [
            _Shape(f"parameter/{i}", tuple(v.shape), v.dtype, f"/job:ps/task:{s}/device:CPU:0")
            for i, (v, s) in enumerate(zip(values, servers, strict=True))
        ]

    def _set_parameters(self, model: Any) -> Any:
        made = [
            shape.variable(value.initial_value)
            for shape, value in zip(self._parameters, _values(model, True), strict=True)
        ]
        self._norm = _norm_of(made)
        return tf.group(*(v.initializer for v in made), self._global_step.variable().initializer)

    def _set_worker_variables(self, model: Any) -> Any:
        made = []
        for shape, variable in zip(self._state, model.non_trainable_variables, strict=True):
            initial = variable.value.initial_value
            if training.state_key(variable):
                initial = training.worker_seed(initial, self.index)
            made.append(shape.variable(initial).initializer)
        self._feeds = {}
        for shape in (self._images, self._labels):
            self._feeds[shape.name] = feed = v1.placeholder(shape.dtype, shape.shape)
            made.append(shape.variable(feed).initializer)
        # SyncReplicasOptimizer makes this one by itself in the large graph.
        local_step = _Shape("sync_rep_local_step", (), tf.int64, self._host)
        return tf.group(*made, local_step.variable().initializer)

    # The large graph: one training step.

    def _define_large(self) -> list[Any]:
        parameters = [shape.variable() for shape in self._parameters]
        state = [shape.variable() for shape in self._state]
        images, labels = self._images.variable(), self._labels.variable()
        global_step = self._global_step.variable()
        with v1.device(self._device):
            values = [variable.read_value() for variable in parameters]
            result = training.step(self._model, values, state, images, labels)
        with v1.device(self._host):
            # The gradient of the first layer is the last to be computed.
            last = tf.reshape(result.gradients[0], [-1])[0]
            with v1.control_dependencies([last]):
                computed_at = tf.timestamp()
            updated = self._apply(result.gradients, parameters, global_step)
        kept = [v.assign(value).op for v, value in zip(state, result.state, strict=True)]
        with v1.device(self._host), v1.control_dependencies(kept):
            updated = tf.identity(updated)
        return [result.loss, updated, computed_at]

    def _apply(self, gradients: list[Any], parameters: list[Any], global_step: Any) -> Any:
        """The number of updates made, known once this worker's gradients have played their part."""
        optimizer = v1.train.GradientDescentOptimizer(self.job.learning_rate)
        pairs = list(zip(gradients, parameters, strict=True))
        if not self.job.synchronous:
            with v1.control_dependencies([optimizer.apply_gradients(pairs, global_step)]):
                return global_step.read_value()
        self._sync = v1.train.SyncReplicasOptimizer(
            optimizer,
            replicas_to_aggregate=self.job.aggregate,
            total_num_replicas=len(self.job.cluster.worker),
        )
        # The result is the token that stands for the update, and its value the number of updates.
        return self._sync.apply_gradients(pairs, global_step)

    # Sessions.

    def _session(self, graph: Any, optimise: bool) -> Any:
        config = v1.ConfigProto(
            # What has no kernel for a GPU (the odd integer) may go to its host.
            allow_soft_placement=True,
            # A worker's session concerns no other worker, and need not wait for one.
            device_filters=["/job:ps", f"/job:worker/task:{self.index}"],
        )
        config.gpu_options.allow_growth = True
        config.graph_options.rewrite_options.disable_meta_optimizer = not optimise
        return v1.Session(self._target, graph=graph, config=config)

    def _initialise(self, session: Any) -> None:
        feeds = {self._feeds[name]: value for name, value in self._batch.items()}
        session.run(self._set_local, feeds)
        if self.is_chief:
            session.run(self._set_global)
        while not session.run(self._is_ready):
            time.sleep(_POLL_SECONDS)

    def _start_updates(self, session: Any) -> None:
        """Worker 0 applies the synchronous updates, in a thread of its own."""
        if self.job.synchronous and self.is_chief:
            runner = self._sync.get_chief_queue_runner()
            runner.create_threads(session, daemon=True, start=True)

    def _step(self, session: Any, fetches: list[Any]) -> Callable[[], StepResult]:
        run_once = session.make_callable(fetches)

        def step() -> StepResult:
            started = time.time()
            loss, global_step, computed_at = run_once()
            own = float(computed_at) - started
            # Two readings of a clock that may be set: what cannot be is not known.
            return StepResult(float(loss), int(global_step), own if own > 0 else math.nan)

        return step


def _norm_of(parameters: list[Any]) -> Any:
    """L2 norm of all parameters together; each server sums up its own."""
    squares = []
    for parameter in parameters:
        with v1.device(parameter.device):
            squares.append(tf.reduce_sum(tf.square(parameter.read_value())))
    return tf.sqrt(tf.add_n(squares))


def _values(model: Any, trainable: bool) -> list[Any]:
    variables = model.trainable_variables if trainable else model.non_trainable_variables
    return [variable.value for variable in variables]
