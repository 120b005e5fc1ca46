"""The pure training step: parameters, state, batch -> loss, gradients, new state.

Built on Keras 3 `stateless_call`, so that a model is written once and a strategy alone decides
where its parameters live and how gradients meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import models
from perftest import precision
from perftest.data import synthetic
from perftest.protocol import Job


@dataclass(frozen=True)
class Step:
    """The result of the pure step.

    loss: scalar, float32, (weighted) mean over the batch.
    gradients: one for each parameter, of its shape.
    state: new values of the state, in its order.
    """

    loss: Any
    gradients: list[Any]
    state: list[Any]


def step(
    model: Any,
    parameters: Sequence[Any],
    state: Sequence[Any],
    images: Any,
    labels: Any,
    weights: Any = None,
    scale: Any = None,
    channels_first: bool = False,
) -> Step:
    """One forward and backward pass.

    parameters, state: values of the model's trainable and other variables, in the model's order.
    images: (batch, height, width, channels), or (batch, channels, height, width) if
    `channels_first`; floating point.  labels: (batch,), int64.
    weights: (batch,), float32, or None where every image counts the same.
    The loss is the softmax cross entropy of the model's logits, computed in float32:
    Σ weight · entropy / Σ weight over the batch, and 0 where no image has any weight.
    scale: scalar, float32, by which the loss is larger on its way back (loss_scale.py), or None.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(parameters)
        if channels_first:
            images = channels_last(images)
        logits, new_state = model.stateless_call(parameters, state, images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
        loss = _mean(losses, weights)
        target = loss if scale is None else loss * scale
    gradients = tape.gradient(target, parameters)
    if scale is not None:
        gradients = [gradient * (1 / scale) for gradient in gradients]
    return Step(loss, gradients, list(new_state))


def channels_last(images: Any) -> Any:
    """(batch, channels, height, width) to (batch, height, width, channels)."""
    return tf.transpose(images, (0, 2, 3, 1))


def step_of(job: Job, model: Any, channels_first: bool) -> Callable[..., Step]:
    """The pure step of this model on such images, compiled as a whole where the job says so."""
    pure = partial(step, model, channels_first=channels_first)
    if not job.xla:
        return pure

    @tf.function(autograph=False, jit_compile=True)
    def compiled(*arguments: Any) -> tuple[Any, list[Any], list[Any]]:
        result = pure(*arguments)
        return result.loss, result.gradients, result.state

    return lambda *arguments: Step(*compiled(*arguments))


def decayed(gradients: Sequence[Any], parameters: Sequence[Any], weight_decay: float) -> list[Any]:
    """The gradients of loss + weight_decay · ½ Σ w², the sum running over all kernels.

    Kernels are the parameters of two or more axes: no bias, and nothing of a normalisation.
    """
    if not weight_decay:
        return list(gradients)
    return [
        gradient + tf.cast(weight_decay, gradient.dtype) * parameter
        if len(parameter.shape) > 1
        else gradient
        for gradient, parameter in zip(gradients, parameters, strict=True)
    ]


def _mean(losses: Any, weights: Any) -> Any:
    if weights is None:
        return tf.reduce_mean(losses)
    weights = tf.cast(weights, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(weights * losses), tf.reduce_sum(weights))


def build_model(job: Job) -> Any:
    """The job's network with the initial values that its seed determines, on any strategy alike."""
    # A user's ~/.keras/keras.json may say otherwise.
    keras.config.set_image_data_format("channels_last")
    precision.prepare(job.precision)
    keras.utils.set_random_seed(job.seed)
    options: dict[str, Any] = dict(job.model_options)
    if job.image_shape:
        options["image_shape"] = job.image_shape
    return models.load(job.model, **options)


def make_batch(job: Job, model: Any, worker: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of images and labels that this worker trains on."""
    image_shape = tuple(int(size) for size in model.input_shape[1:])
    classes = int(model.output_shape[-1])
    return synthetic.batch(image_shape, classes, job.batch_size, job.seed, worker)


def state_key(variable: Any) -> bool:
    """Whether a variable of the state is the seed of a random generator (a dropout's mask)."""
    return bool(variable.dtype == "uint32")


def worker_seed(value: Any, worker: int) -> Any:
    """The seed of a random generator on one worker, so that no two drop out the same units."""
    return value + tf.cast(worker, value.dtype)


def advanced_seed(value: Any, steps: Any) -> Any:
    """The seed of a random generator after so many steps more. (2,), uint32: the key, a counter.

    Each training step draws once from each generator of a network, so that a training that is
    taken up again drops out what it would have dropped out without the interruption.
    """
    return value + tf.stack([tf.zeros((), value.dtype), tf.cast(steps, value.dtype)])
