"""The small graph of a training with parameter servers: everything but the training step.

It makes the variables, sets their initial values, reads and restores them, and carries the signs
that the workers give each other. Runs on it are cheap, as runs on the graph that trains are not.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import tensorflow as tf

from perftest import loss_scale, optimizers, training
from perftest.checkpoints import Values
from perftest.inputs import Input
from perftest.protocol import Job
from perftest.shared import Layout, cut, joined

v1 = tf.compat.v1

_POLL_SECONDS = 0.02


class SmallGraph:
    """Made inside the graph; `bind` gives it its session."""

    def __init__(self, job: Job, worker: int, model: Any, layout: Layout, batches: Input) -> None:
        self._layout = layout
        self._worker = worker
        self._seeds = [training.state_key(v) for v in model.non_trainable_variables]
        parameters = self._make_parameters(model)
        slots = self._make_slots(job)
        self._norm = norm_of(parameters)
        self._updates_before, self._released, self._left, self._global_step, self._ready = (
            shape.variable()
            for shape in (
                layout.updates_before,
                layout.released,
                layout.left,
                layout.global_step,
                layout.ready,
            )
        )
        self._is_ready = v1.is_variable_initialized(self._ready)
        counters = (self._updates_before, self._released, self._left, self._global_step)
        self._set_global = [
            *(v.initializer for v in (*parameters, *counters)),
            *(v.initializer for each in slots.values() for v in each),
            *(v.initializer for v in self._make_scale()),
        ]
        self._set_local: list[Any] = []
        self._feeds: dict[Any, Any] = {}
        state = self._make_state(model)
        self._make_fixed(batches)
        self._set_local.append(layout.local_step.variable().initializer)
        # Of parameters and slots the pieces, as the servers have them.
        self._variables = Values(parameters, slots, state)
        self._number = v1.placeholder(tf.int64, ())
        self._say_ready = self._ready.assign(True).op
        if job.training is not None:
            self._define_talk(model)

    def bind(self, session: Any) -> None:
        """Run in this session from now on."""
        self._session = session

    # Making the variables.

    def _make_parameters(self, model: Any) -> list[Any]:
        values = [variable.value.initial_value for variable in model.trainable_variables]
        pairs = zip(self._layout.pieces, cut(values, self._layout.parameters), strict=True)
        return [shape.variable(value) for shape, value in pairs]

    def _make_slots(self, job: Job) -> dict[str, list[Any]]:
        initial = optimizers.load(job.optimizer, job.learning_rate).slots
        return {
            name: [
                shape.variable(v1.constant_initializer(initial[name])(shape.shape, shape.dtype))
                for shapes in parameters
                for shape in shapes
            ]
            for name, parameters in self._layout.slots.items()
        }

    def _make_scale(self) -> list[Any]:
        """The variables of the loss scale, where there is one."""
        firsts = (loss_scale.INITIAL, 0, 0)
        made = [
            shape.variable(v1.constant_initializer(first)((), shape.dtype))
            for shape, first in zip(self._layout.scale, firsts, strict=False)
        ]
        self._skipped = made[-1] if made else None
        return made

    def _make_state(self, model: Any) -> list[Any]:
        made = []
        pairs = zip(self._layout.state, model.non_trainable_variables, strict=True)
        for shape, variable in pairs:
            initial = variable.value.initial_value
            if training.state_key(variable):
                initial = training.worker_seed(initial, self._worker)
            made.append(shape.variable(initial))
        self._set_local += [variable.initializer for variable in made]
        return made

    def _make_fixed(self, batches: Input) -> None:
        for shape, value in zip(self._layout.fixed, batches.fixed or (), strict=True):
            feed = v1.placeholder(shape.dtype, shape.shape)
            self._feeds[feed] = value
            self._set_local.append(shape.variable(feed).initializer)

    def _define_talk(self, model: Any) -> None:
        """Operations of real training: restore, and the signs that the workers give each other."""
        self._placeholders, self._restore = [], []
        for variable in self._flat(self._variables):
            feed = v1.placeholder(variable.dtype, variable.shape)
            self._placeholders.append(feed)
            self._restore.append(variable.assign(feed).op)
        self._advance = [
            variable.assign(training.advanced_seed(variable.read_value(), self._number)).op
            for variable, is_seed in zip(self._variables.state, self._seeds, strict=True)
            if is_seed
        ]
        learnt = self._variables
        updates = self._updates_before.read_value() + self._global_step.read_value()
        self._read = [learnt.parameters, learnt.slots, learnt.state, updates]
        self._set_updates = self._updates_before.assign(self._number).op
        self._release = self._released.assign(self._number).op
        self._leave = self._left.assign_add(self._number).op

    def _flat(self, values: Values) -> list[Any]:
        """What is restored: all but the seeds of random generators."""
        state = [v for v, is_seed in zip(values.state, self._seeds, strict=True) if not is_seed]
        slots = [v for name in self._layout.slots for v in values.slots[name]]
        return [*values.parameters, *slots, *state]

    # Running them.

    def set_own(self) -> None:
        """Set what is this worker's alone."""
        self._session.run(self._set_local, self._feeds)

    def set_shared(self) -> None:
        """Set what is on the servers: worker 0 alone."""
        self._session.run(self._set_global)

    def restore(self, values: Values) -> None:
        """Put the values of a checkpoint in place: worker 0 alone."""
        wholes = self._layout.parameters
        pieces = Values(
            cut(values.parameters, wholes),
            {name: cut(slots, wholes) for name, slots in values.slots.items()},
            values.state,
        )
        feeds = dict(zip(self._placeholders, self._flat(pieces), strict=True))
        self._session.run(self._restore, feeds)
        self._session.run(self._set_updates, {self._number: values.updates})

    def advance_seeds(self, steps: int) -> None:
        """As if this worker had made so many steps already."""
        if self._advance:
            self._session.run(self._advance, {self._number: steps})

    def say_ready(self) -> None:
        """All shared variables are set: worker 0 alone."""
        self._session.run(self._say_ready)

    def wait_until_ready(self) -> None:
        """Wait until worker 0 has said so."""
        while not self._session.run(self._is_ready):
            time.sleep(_POLL_SECONDS)

    def values(self) -> Values:
        """What a checkpoint holds, as it is now."""
        pieces, slots, state, updates = self._session.run(self._read)
        wholes = self._layout.parameters
        return Values(
            joined(pieces, wholes, np.concatenate),
            {name: joined(own, wholes, np.concatenate) for name, own in slots.items()},
            state,
            int(updates),
        )

    def norm(self) -> float:
        """L2 norm of all parameters together."""
        return float(self._session.run(self._norm))

    def skipped(self) -> int:
        """How many updates were not made, for gradients that float16 could not hold."""
        return 0 if self._skipped is None else int(self._session.run(self._skipped))

    def release(self, step: int) -> None:
        """Let the others train on from this step: worker 0 alone."""
        self._session.run(self._release, {self._number: step})

    def released(self) -> int:
        """The step up to which the workers may train."""
        return int(self._session.run(self._released))

    def leave(self) -> None:
        """This worker has made its last step."""
        self._session.run(self._leave, {self._number: 1})

    def left(self) -> int:
        """How many workers have."""
        return int(self._session.run(self._left))


def norm_of(parameters: list[Any]) -> Any:
    """L2 norm of all parameters together; each server sums up its own."""
    squares = []
    for parameter in parameters:
        with v1.device(parameter.device):
            squares.append(tf.reduce_sum(tf.square(parameter.read_value())))
    return tf.sqrt(tf.add_n(squares))
