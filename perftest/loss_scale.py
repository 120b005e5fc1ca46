"""The loss scale of float16: large enough that small gradients are not lost, found on the way.

The loss is multiplied by the scale before its gradient is taken, and the gradients divided by it.
A gradient that is no number shows that the scale was too large: that update is not made, and the
scale is halved. After 2,000 updates without one it is doubled. The first scale is 32,768.
Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2, with the constants of Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

INITIAL = 2.0**15
GROWTH_STEPS = 2000
# Beyond the largest, loss × scale could leave float32; below the smallest, it is no scale's fault.
_LARGEST, _SMALLEST = 2.0**24, 1.0


class LossScale:
    """The scale of a training, in three scalar variables: wherever the strategy has put them.

    scale: float32.  good: int64, updates made since it last changed.  skipped: int64, updates that
    were not made since the run began.
    """

    def __init__(self, scale: Any, good: Any, skipped: Any) -> None:
        self.scale = scale
        self.good = good
        self.skipped = skipped

    def update(self, is_finite: Any, made: Sequence[Any] = ()) -> Any:
        """Learn from an update that was made, or (`is_finite` false) was not; the operation.

        made: operations to wait for.
        """
        with tf.control_dependencies(made):
            scale, good, skipped = (
                variable.read_value() for variable in (self.scale, self.good, self.skipped)
            )
        new_scale, new_good = following(scale, good, is_finite)
        return tf.group(
            self.scale.assign(new_scale),
            self.good.assign(new_good),
            self.skipped.assign(skipped + tf.cast(tf.logical_not(is_finite), skipped.dtype)),
        )


def on(device: str, precision: str) -> LossScale | None:
    """A scale in variables of this process, for the precision that needs one."""
    if precision != "fp16":
        return None
    with tf.device(device):
        return LossScale(
            tf.Variable(INITIAL), tf.Variable(0, dtype=tf.int64), tf.Variable(0, dtype=tf.int64)
        )


def following(scale: Any, good: Any, is_finite: Any) -> tuple[Any, Any]:
    """Scale and count of good updates, after one whose gradients were finite or not."""
    grows = good + 1 >= GROWTH_STEPS
    larger = tf.where(grows, tf.minimum(scale * 2, _LARGEST), scale)
    smaller = tf.maximum(scale / 2, _SMALLEST)
    counted = tf.where(grows, tf.zeros_like(good), good + 1)
    return tf.where(is_finite, larger, smaller), tf.where(is_finite, counted, tf.zeros_like(good))


def all_finite(gradients: Sequence[Any]) -> Any:
    """Whether every number of every gradient is one: a scalar, boolean."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients])


def if_finite(is_finite: Any, make: Callable[[], Any]) -> Any:
    """What makes the updates of `make`, an operation or several, where `is_finite` holds."""

    def made() -> Any:
        with tf.control_dependencies(tf.nest.flatten(make())):
            return tf.constant(True)

    return tf.cond(is_finite, made, lambda: tf.constant(False))


def kept_if(is_finite: Any, new: Sequence[Any], old: Sequence[Any]) -> list[Any]:
    """The new values where `is_finite` holds, and else the old ones."""
    return [tf.where(is_finite, *pair) for pair in zip(new, old, strict=True)]
