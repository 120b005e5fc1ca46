"""One process, no cluster: the baseline that scaling efficiency is measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from perftest import loss_scale, optimizers, training
from perftest.checkpoints import Values
from perftest.course import Course, steps_per_epoch
from perftest.inputs import Input
from perftest.keeper import Keeper, evaluate, values_like
from perftest.measure import StepResult
from perftest.profiling import profile
from perftest.protocol import WORKER, Assignment, Finished, Job
from perftest.task import AgentLink
from perftest.worker import check_device, device_name, measure_input, train


def run(assignment: Assignment, link: AgentLink) -> None:
    """Train on this process's one device."""
    job, place = assignment.job, assignment.place
    if place.role != WORKER:
        raise ValueError("the single strategy has no parameter servers")
    check_device(job, place)
    if job.training is not None and job.training.evaluate:
        evaluate(job, place, link)
        return
    link.phase("building the model")
    device = device_name(place)
    with tf.device(device):
        model = training.build_model(job)
    link.phase("reading the data")
    batches = Input(job, place, model)
    if job.data.input_only:
        measure_input(job, link, batches)
        return
    engine = Single(job, model, batches, device)
    if job.training is not None:
        keeper = Keeper(job, place, link, batches.source, lambda: model)
        first_epoch = engine.resume(keeper, steps_per_epoch(job, batches))
        batches.start(device, first_epoch)
        Course(job, link, engine, batches, keeper).run(first_epoch)
    else:
        if batches.fixed is None:
            batches.start(device)
        train(job, link, engine.step)
    done = Finished(
        parameters=sum(p.shape.num_elements() for p in engine.parameters),
        parameter_norm=engine.norm(),
        device=device,
        skipped_updates=engine.skipped(),
    )
    profile(job, link, engine.step)
    link.finished(done)


_LARGE_BYTES = 16 << 20


class Single:
    """The training of one process. The parameters are its own variables."""

    def __init__(self, job: Job, model: Any, batches: Input, device: str) -> None:
        self.model = model
        self.parameters = [variable.value for variable in model.trainable_variables]
        self.state = [variable.value for variable in model.non_trainable_variables]
        self._job = job
        self._batches = batches
        self._device = device
        self._rule = optimizers.load(job.optimizer, job.learning_rate)
        with tf.device(device):
            self.slots = {
                name: [
                    tf.Variable(tf.fill(p.shape, tf.cast(value, p.dtype))) for p in self.parameters
                ]
                for name, value in self._rule.slots.items()
            }
            self._updates = tf.Variable(0, dtype=tf.int64)
        self.scale = loss_scale.on(device, job.precision)
        self._pure_step = training.step_of(job, model, batches.source.channels_first)
        self._steps = 0
        self._left = 0
        self._update = self._make_update()

    def step(self) -> StepResult:
        """Train on the next batch."""
        # The function returns when all its updates are made, and the loss comes with it.
        loss = float(self._update())
        self._steps += 1
        return StepResult(loss, self._steps)

    def norm(self) -> float:
        """L2 norm of all parameters together."""
        return float(tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(p)) for p in self.parameters])))

    def skipped(self) -> int:
        """How many updates were not made, for gradients that float16 could not hold."""
        return 0 if self.scale is None else int(self.scale.skipped)

    def resume(self, keeper: Keeper, steps_per_epoch: int) -> int:
        """Take up the checkpoint that there is to go on from; the epoch to begin with."""
        checkpoint = keeper.resume(values_like(self.model))
        keeper.starts(steps_per_epoch, checkpoint)
        if checkpoint is None:
            return 0
        values, epoch = checkpoint.values, checkpoint.about.epoch
        pairs = [*zip(self.parameters, values.parameters, strict=True)]
        for name, variables in self.slots.items():
            pairs += zip(variables, values.slots[name], strict=True)
        pairs += [
            (variable.value, value)
            for variable, value in zip(
                self.model.non_trainable_variables, values.state, strict=True
            )
            if not training.state_key(variable)
        ]
        for variable, value in pairs:
            variable.assign(value)
        for variable in self.model.non_trainable_variables:
            if training.state_key(variable):
                seed = training.advanced_seed(variable.value, epoch * steps_per_epoch)
                variable.value.assign(seed)
        self._updates.assign(values.updates)
        return epoch

    def values(self) -> Values:
        """All that has been learnt."""
        return Values(
            parameters=[parameter.numpy() for parameter in self.parameters],
            slots={name: [v.numpy() for v in variables] for name, variables in self.slots.items()},
            state=[variable.numpy() for variable in self.state],
            updates=int(self._updates),
        )

    # There is nobody else.

    def release(self, step: int) -> None:
        """Nobody waits."""

    def released(self) -> int:
        """Not asked."""
        return 0

    def leave(self) -> None:
        """The last step is made."""
        self._left = 1

    def left(self) -> int:
        """This one."""
        return self._left

    def _make_update(self) -> Callable[[], Any]:
        if self._batches.fixed is not None:
            with tf.device(self._device):
                images, labels = (tf.constant(each) for each in self._batches.fixed)
            fixed: Callable[[], Any] = tf.function(autograph=False)(
                lambda: self._replica(images, labels, None)
            )
            return fixed
        fed = tf.function(
            self._replica, autograph=False, input_signature=self._batches.batch_shapes
        )

        def update() -> Any:
            batch = self._batches.next()
            return fed(batch.images, batch.labels, batch.train_weights)

        return update

    def _replica(self, images: Any, labels: Any, weights: Any) -> Any:
        """One step, in the graph of a function."""
        return self._train(images, labels, weights)

    def _combined(self, gradients: list[Any]) -> list[Any]:
        """What all processes' gradients come to."""
        return gradients

    def _train(self, images: Any, labels: Any, weights: Any) -> Any:
        """The loss, and as its effect one update of parameters, slots and state."""
        values = [parameter.read_value() for parameter in self.parameters]
        scale = None if self.scale is None else self.scale.scale.read_value()
        state = [variable.read_value() for variable in self.state]
        result = self._pure_step(values, state, images, labels, weights, scale)
        gradients = training.decayed(
            self._combined(result.gradients), values, self._job.optimizer.weight_decay
        )
        if self.scale is None:
            self._apply(gradients, result.state)
        else:
            is_finite = loss_scale.all_finite(gradients)
            loss_scale.if_finite(is_finite, lambda: self._apply(gradients, result.state))
            self.scale.update(is_finite)
        return result.loss

    def _apply(self, gradients: list[Any], state: list[Any]) -> list[Any]:
        """The operations of one update of parameters, slots and state."""
        updates = self._updates.read_value()
        slots = zip(*self.slots.values(), strict=True) if self.slots else [()] * len(gradients)
        made = []
        for i, (parameter, own) in enumerate(zip(self.parameters, slots, strict=True)):
            with tf.control_dependencies(_last_use(parameter, gradients[:i])):
                made.append(self._rule.apply(parameter, own, gradients[i], updates))
        made.append(self._updates.assign_add(1, read_value=False))
        pairs = zip(self.state, state, strict=True)
        made += [variable.assign(value, read_value=False) for variable, value in pairs]
        return made


def _last_use(parameter: Any, earlier: list[Any]) -> list[Any]:
    """What a large parameter's update waits for: the gradient of the one before it in the network,
    which needs what was propagated back through this one.

    An update of a variable whose value somebody is still to read makes a copy of all of it:
    AlexNet, whose first fully connected layer has 151 MB, took 580 MiB more memory for it.
    """
    size = parameter.shape.num_elements() * parameter.dtype.size
    return earlier[-1:] if size >= _LARGE_BYTES else []
