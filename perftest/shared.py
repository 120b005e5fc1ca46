"""The variables that the tasks of a training with parameter servers share, by their names.

A session's graph makes them anew; a variable of the same name on the same device is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from perftest import optimizers
from perftest.inputs import Input
from perftest.loss_scale import LossScale
from perftest.protocol import Job, Piece, Place, ServerHolds, place_variables
from perftest.worker import device_name

v1 = tf.compat.v1

# Pieces that are handed on are no larger: while one is handed on, the next is on its way.
_STAGE_BYTES = 16 << 20
_FIRST_SERVER = "/job:ps/task:0/device:CPU:0"


@dataclass(frozen=True)
class Shape:
    """One variable: its name is what the graphs share."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    device: str

    @property
    def server(self) -> int:
        """The index of the parameter server that it lives on."""
        return int(self.device.split("/job:ps/task:")[1].partition("/")[0])

    @property
    def bytes(self) -> int:
        """What it takes in memory, and on the wire."""
        return int(tf.TensorShape(self.shape).num_elements() * self.dtype.size)

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


# A parameter as the servers have it: whole, or cut into pieces between its rows.
Pieces = tuple[Shape, ...]


@dataclass(frozen=True)
class Layout:
    """Every variable of a training, and where it lives.

    On the servers: parameters, and slots, name -> one for each parameter, beside it; and on the
    first of them global_step, the updates made since the run began; updates_before, those of the
    training that it goes on from; released, the step up to which worker 0 lets the others train;
    left, how many workers have made their last step; ready, whether all this is set.
    Where float16 needs a loss scale, there too: scale, the three variables of loss_scale.py.
    On the worker: state, and images and labels where every step trains on the same; local_step,
    the update that its parameters are of.
    """

    parameters: list[Pieces]
    slots: dict[str, list[Pieces]]
    state: list[Shape]
    fixed: tuple[Shape, ...]
    local_step: Shape
    scale: tuple[Shape, ...] = ()
    global_step: Shape = Shape("global_step", (), tf.int64, _FIRST_SERVER)
    updates_before: Shape = Shape("updates_before", (), tf.int64, _FIRST_SERVER)
    released: Shape = Shape("released", (), tf.int64, _FIRST_SERVER)
    left: Shape = Shape("left", (), tf.int64, _FIRST_SERVER)
    ready: Shape = Shape("ready", (), tf.bool, _FIRST_SERVER)

    @property
    def pieces(self) -> list[Shape]:
        """All pieces of all parameters, in their order."""
        return [piece for pieces in self.parameters for piece in pieces]


def layout(job: Job, place: Place, model: Any, batches: Input) -> Layout:
    """Decide where the variables of this worker's training live."""
    device, host = devices(place)
    values = [variable.value for variable in model.trainable_variables]
    parameters = _parameters(values, len(job.cluster.ps), bool(job.adders))
    slots = {
        name: [
            tuple(
                Shape(p.name.replace("parameter/", f"slot/{name}/"), p.shape, p.dtype, p.device)
                for p in pieces
            )
            for pieces in parameters
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
    local_step = Shape(f"local_step/{place.index}", (), tf.int64, host)
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


def _parameters(values: Sequence[Any], servers: int, by_stages: bool) -> list[Pieces]:
    """The pieces of variables of these shapes and types, on so many servers.

    by_stages: they go over two links in a row, so that small pieces are there sooner.
    """
    rows = [v.shape[0] if len(v.shape) else 1 for v in values]
    sizes = [v.shape.num_elements() * v.dtype.size for v in values]
    measures = [(n, size // n if n else 0) for n, size in zip(rows, sizes, strict=True)]
    found = []
    placed = place_variables(measures, servers)
    for i, (value, whole) in enumerate(zip(values, placed, strict=True)):
        pieces = _in_stages(whole, measures[i][1]) if by_stages else whole
        names = [f"parameter/{i}"]
        if len(pieces) > 1:
            names = [f"parameter/{i}/piece/{k}" for k in range(len(pieces))]
        found.append(
            tuple(
                Shape(
                    name,
                    (end - begin, *value.shape[1:]) if len(value.shape) else (),
                    value.dtype,
                    f"/job:ps/task:{server}/device:CPU:0",
                )
                for name, (server, begin, end) in zip(names, pieces, strict=True)
            )
        )
    return found


def _in_stages(pieces: Sequence[Piece], row_bytes: int) -> list[Piece]:
    """The same rows in pieces of no more bytes than a stage should have."""
    rows = max(1, _STAGE_BYTES // max(1, row_bytes))
    return [
        (server, first, min(end, first + rows))
        for server, begin, end in pieces
        for first in (range(begin, end, rows) if end > begin else (begin,))
    ]


def held(layout: Layout, servers: int) -> tuple[ServerHolds, ...]:
    """What each of the servers holds of the parameters."""
    counts = [[0, 0, 0] for _ in range(servers)]
    for pieces in layout.parameters:
        places = {piece.server for piece in pieces}
        for server in places:
            counts[server][0] += 1
            counts[server][1] += len(places) > 1
        for piece in pieces:
            counts[piece.server][2] += piece.bytes
    return tuple(ServerHolds(*count) for count in counts)


def devices(place: Place) -> tuple[str, str]:
    """TensorFlow's names of a worker's device and of its processor, in the cluster."""
    return f"/job:worker/task:{place.index}{device_name(place)}", host_of(place.index)


def host_of(worker: int) -> str:
    """TensorFlow's name of a worker's processor, in the cluster."""
    return f"/job:worker/task:{worker}/device:CPU:0"


def shapes_of(shapes: Sequence[Shape]) -> list[Any]:
    """The variables of these shapes in the current graph."""
    return [shape.variable() for shape in shapes]


def scale_of(layout: Layout) -> LossScale | None:
    """The loss scale in the current graph, where there is one."""
    return LossScale(*shapes_of(list(layout.scale))) if layout.scale else None


# Pieces and wholes. Values are arrays or tensors.


def cut(values: Sequence[Any], parameters: Sequence[Pieces]) -> list[Any]:
    """The pieces of these values, one for each piece of the parameters, in their order."""
    found: list[Any] = []
    for value, pieces in zip(values, parameters, strict=True):
        if len(pieces) == 1:
            found.append(value)
            continue
        begin = 0
        for piece in pieces:
            found.append(value[begin : begin + piece.shape[0]])
            begin += piece.shape[0]
    return found


def joined(values: Sequence[Any], parameters: Sequence[Pieces], join: Any = tf.concat) -> list[Any]:
    """The whole values that these pieces make up. join: makes one of a list, along an axis."""
    rest = iter(values)
    found = []
    for pieces in parameters:
        own = [next(rest) for _ in pieces]
        found.append(own[0] if len(own) == 1 else join(own, 0))
    return found
