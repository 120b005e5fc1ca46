"""An update of all parameters on their servers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from perftest import optimizers
from perftest.loss_scale import LossScale, if_finite
from perftest.protocol import Job
from perftest.shared import Layout, scale_of, shapes_of

v1 = tf.compat.v1


class Updates:
    """Applies gradients to the parameters, each piece on its server. scale: the loss scale, or
    None where the precision needs none.
    """

    def __init__(self, job: Job, layout: Layout) -> None:
        """In the current graph."""
        self._rule = optimizers.load(job.optimizer, job.learning_rate)
        slots = [
            shapes_of([piece for pieces in layout.slots[name] for piece in pieces])
            for name in self._rule.slots
        ]
        self.parameters = shapes_of(layout.pieces)
        self.global_step = layout.global_step.variable()
        self.scale: LossScale | None = scale_of(layout)
        self._slots = [[each[i] for each in slots] for i in range(len(self.parameters))]
        self._before = layout.updates_before.variable()

    def apply(self, gradients: Sequence[Any]) -> Any:
        """The operation that updates all parameters, and then the step."""
        step = self.global_step
        with v1.device(step.device):
            updates = self._before.read_value() + step.read_value()
        makers = [
            partial(self._apply, *of_one, updates)
            for of_one in zip(gradients, self.parameters, self._slots, strict=True)
        ]
        if self.scale is None:
            made = [make() for make in makers]
        else:
            made = [self._apply_if_finite(self.scale, gradients, makers)]
        with v1.device(step.device), v1.control_dependencies(made):
            return step.assign_add(1).op

    def _apply(self, gradient: Any, parameter: Any, slots: Sequence[Any], updates: Any) -> Any:
        with v1.device(parameter.device):
            return self._rule.apply(parameter, slots, gradient, updates)

    def _apply_if_finite(
        self, scale: LossScale, gradients: Sequence[Any], makers: Sequence[Any]
    ) -> Any:
        """As above, and nothing is updated for gradients that float16 could not hold."""
        finite = []
        for gradient, parameter in zip(gradients, self.parameters, strict=True):
            with v1.device(parameter.device):
                finite.append(tf.reduce_all(tf.math.is_finite(gradient)))
        with v1.device(self.global_step.device):
            is_finite = tf.reduce_all(finite)
        made = []
        for make, parameter in zip(makers, self.parameters, strict=True):
            with v1.device(parameter.device):
                made.append(if_finite(is_finite, make))
        with v1.device(self.global_step.device):
            return scale.update(is_finite, made)
