"""When the parts of a step are done: readings of the clock inside the graph that trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1

_NAMES = ("pulled", "computed", "gathered", "delivered")


class Moments:
    """Made in the graph; the clock is read on `host`.

    A control edge from one machine to another arrives before the tensor does, one from a GPU
    before it has computed, and TensorFlow's optimiser makes control edges of what nobody uses. So
    a value counts as there when one of its elements has been put into a variable of the host.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._found: dict[str, Any] = {}

    def note(self, name: str, tensors: Sequence[Any]) -> None:
        """The moment when all these are there, on the device of the caller; none: not known."""
        if not tensors:
            return
        # As few operations as can be: each waits for a thread that has time for it.
        elements = [_element(tensor) for tensor in tensors]
        seen = elements[0] if len(elements) == 1 else tf.add_n(elements)
        with v1.device(self._host):
            place = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=(), shared_name=f"seen/{name}")
            self.follow(name, tf.raw_ops.AssignVariableOp(resource=place, value=seen))

    def follow(self, name: str, operation: Any) -> None:
        """The moment when this operation is done."""
        with v1.device(self._host), v1.control_dependencies([operation]):
            self._found[name] = tf.timestamp()

    def all(self) -> Any:
        """What a step fetches: (4,), float64, seconds since 1970, NaN for those not known."""
        with v1.device(self._host):
            nothing = tf.constant(math.nan, tf.float64)
            return tf.stack([self._found.get(name, nothing) for name in _NAMES])


def _element(tensor: Any) -> Any:
    value = tf.reshape(tensor, [-1])[0] if tensor.shape.rank else tensor
    return value if value.dtype == tf.float32 else tf.cast(value, tf.float32)


def parts(started: float, moments: Sequence[float], ended: float) -> dict[str, float]:
    """The parts of a step as `StepTimes` has them, in seconds.

    A busy process may read its clock late, but never later than what can only follow. All are
    readings of a wall clock, which may be set: what cannot be is not known (NaN).
    """
    pulled, computed, gathered, delivered = (float(moment) for moment in moments)
    delivered = min(delivered, ended)
    gathered = min(computed if math.isnan(gathered) else gathered, delivered)
    computed = min(computed, gathered)
    pulled = min(pulled, computed)
    found = {
        "pull_seconds": pulled - started,
        "compute_seconds": computed - pulled,
        "push_seconds": delivered - gathered,
        "wait_seconds": gathered - computed + ended - delivered,
    }
    return {name: value if value >= 0 else math.nan for name, value in found.items()}
