"""One process, no cluster: the baseline that scaling efficiency is measured against."""

from __future__ import annotations

import tensorflow as tf

from perftest import training
from perftest.measure import StepResult
from perftest.protocol import WORKER, Assignment, Finished
from perftest.task import AgentLink
from perftest.worker import check_device, device_name, train


def run(assignment: Assignment, link: AgentLink) -> None:
    """Train on this process's one device. The parameters are its own variables."""
    job = assignment.job
    if assignment.place.role != WORKER:
        raise ValueError("the single strategy has no parameter servers")
    check_device(assignment.place)
    link.phase("building the model")
    with tf.device(device_name(assignment.place)):
        model = training.build_model(job)
        images, labels = (tf.constant(a) for a in training.make_batch(job, model, worker=0))
    parameters = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]

    @tf.function(autograph=False)
    def update() -> tf.Tensor:
        result = training.step(model, [p.read_value() for p in parameters], state, images, labels)
        for parameter, gradient in zip(parameters, result.gradients, strict=True):
            tf.raw_ops.ResourceApplyGradientDescent(
                var=parameter.handle,
                alpha=tf.cast(job.learning_rate, parameter.dtype),
                delta=gradient,
            )
        for variable, value in zip(state, result.state, strict=True):
            variable.assign(value)
        return result.loss

    steps = 0

    def step() -> StepResult:
        nonlocal steps
        # The function returns when all its updates are made, and the loss comes with it.
        loss = float(update())
        steps += 1
        return StepResult(loss, steps)

    train(job, link, step)
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(p)) for p in parameters]))
    link.finished(
        Finished(
            parameters=sum(p.shape.num_elements() for p in parameters),
            parameter_norm=float(norm),
            device=device_name(assignment.place),
        )
    )
