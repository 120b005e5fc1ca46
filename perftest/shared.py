"""The variables that the tasks of a training with parameter servers share, by their names.

A session's graph makes them anew; a variable of the same name on the same device is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf

from perftest import optimizers
from perftest.inputs import Input
from perftest.loss_scale import LossScale, if_finite
from perftest.protocol import Job, Place
from perftest.worker import device_name

v1 = tf.compat.v1

_FIRST_SERVER = "/job:ps/task:0/device:CPU:0"


@dataclass(frozen=True)
class Shape:
    """One variable: its name is what the graphs share."""

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


@dataclass(frozen=True)
class Layout:
    """Every variable of a training, and where it lives.

    On the servers: parameters, and slots, name -> one for each parameter, beside it; and on the
    first of them global_step, the updates made since the run began; updates_before, those of the
    training that it goes on from; released, the step up to which worker 0 lets the others train;
    left, how many workers have made their last step; ready, whether all this is set.
    Where float16 needs a loss scale, there too: scale, the three variables of loss_scale.py.
    On the worker: state, and images and labels where every step trains on the same.
    """

    parameters: list[Shape]
    slots: dict[str, list[Shape]]
    state: list[Shape]
    fixed: tuple[Shape, ...]
    local_step: Shape
    scale: tuple[Shape, ...] = ()
    global_step: Shape = Shape("global_step", (), tf.int64, _FIRST_SERVER)
    updates_before: Shape = Shape("updates_before", (), tf.int64, _FIRST_SERVER)
    released: Shape = Shape("released", (), tf.int64, _FIRST_SERVER)
    left: Shape = Shape("left", (), tf.int64, _FIRST_SERVER)
    ready: Shape = Shape("ready", (), tf.bool, _FIRST_SERVER)


def layout(job: Job, place: Place, model: Any, batches: Input) -> Layout:
    """Decide where the variables of this worker's training live."""
    device, host = devices(place)
    values = [variable.value for variable in model.trainable_variables]
    sizes = [v.shape.num_elements() * v.dtype.size for v in values]
    servers = assign_to_servers(sizes, len(job.cluster.ps))
    parameters = [
        Shape(f"parameter/{i}", tuple(v.shape), v.dtype, f"/job:ps/task:{s}/device:CPU:0")
        for i, (v, s) in enumerate(zip(values, servers, strict=True))
    ]
    slots = {
        name: [
            Shape(f"slot/{name}/{i}", p.shape, p.dtype, p.device) for i, p in enumerate(parameters)
        ]
        for name in optimizers.load(job.optimizer, job.learning_rate).slots
    }
    state = [
        Shape(f"state/{i}", tuple(v.value.shape), v.value.dtype, device)
        for i, v in enumerate(model.non_trainable_variables)
    ]
    fixed: tuple[Shape, ...] = ()
    if batches.fixed is not None:
        images, labels = batches.fixed
        fixed = (
            Shape("images", images.shape, tf.float32, device),
            Shape("labels", labels.shape, tf.int64, device),
        )
    # SyncReplicasOptimizer makes this one by itself in the graph that trains.
    local_step = Shape("sync_rep_local_step", (), tf.int64, host)
    return Layout(parameters, slots, state, fixed, local_step, layout_of_scale(job))


def layout_of_scale(job: Job) -> tuple[Shape, ...]:
    """The variables of the loss scale, where the precision needs one."""
    if job.precision != "fp16":
        return ()
    return (
        Shape("loss_scale", (), tf.float32, _FIRST_SERVER),
        Shape("loss_scale_good", (), tf.int64, _FIRST_SERVER),
        Shape("loss_scale_skipped", (), tf.int64, _FIRST_SERVER),
    )


def devices(place: Place) -> tuple[str, str]:
    """TensorFlow's names of a worker's device and of its processor, in the cluster."""
    task = f"/job:worker/task:{place.index}"
    return f"{task}{device_name(place)}", f"{task}/device:CPU:0"


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


def shapes_of(shapes: list[Shape]) -> list[Any]:
    """The variables of these shapes in the current graph."""
    return [shape.variable() for shape in shapes]


def scale_of(layout: Layout) -> LossScale | None:
    """The loss scale in the current graph, where there is one."""
    return LossScale(*shapes_of(list(layout.scale))) if layout.scale else None


class Updates:
    """What SyncReplicasOptimizer asks of the optimizer that it wraps, and no more."""

    def __init__(
        self, job: Job, layout: Layout, parameters: list[Any], scale: LossScale | None = None
    ) -> None:
        self._rule = optimizers.load(job.optimizer, job.learning_rate)
        slots = [shapes_of(layout.slots[name]) for name in self._rule.slots]
        self._slots = {
            parameter.name: [each[i] for each in slots] for i, parameter in enumerate(parameters)
        }
        self._before = layout.updates_before.variable()
        self._scale = scale

    def apply_gradients(self, pairs: Any, global_step: Any, name: str | None = None) -> Any:
        """The operation that updates all parameters, each on its server, and then the step."""
        pairs = list(pairs)
        with v1.device(global_step.device):
            updates = self._before.read_value() + global_step.read_value()
        if self._scale is None:
            made = [self._apply(gradient, parameter, updates) for gradient, parameter in pairs]
        else:
            made = self._apply_if_finite(self._scale, pairs, updates)
        with v1.device(global_step.device), v1.control_dependencies(made):
            return global_step.assign_add(1).op

    def _apply(self, gradient: Any, parameter: Any, updates: Any) -> Any:
        with v1.device(parameter.device):
            return self._rule.apply(parameter, self._slots[parameter.name], gradient, updates)

    def _apply_if_finite(self, scale: LossScale, pairs: list[Any], updates: Any) -> list[Any]:
        """As above, and nothing is updated for gradients that float16 could not hold."""
        finite = []
        for gradient, parameter in pairs:
            with v1.device(parameter.device):
                finite.append(tf.reduce_all(tf.math.is_finite(gradient)))
        with v1.device(_FIRST_SERVER):
            is_finite = tf.reduce_all(finite)
        made = []
        for gradient, parameter in pairs:
            apply = partial(self._apply, gradient, parameter, updates)
            with v1.device(parameter.device):
                made.append(if_finite(is_finite, apply))
        with v1.device(_FIRST_SERVER):
            return [scale.update(is_finite, made)]
