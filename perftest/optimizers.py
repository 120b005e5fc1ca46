"""How gradients become an update: one rule for each name, the same on every strategy.

Every rule is one of TensorFlow's fused operations, run where the parameter lives, with the values
(slots) that it keeps of each parameter beside it. The formulas are those of `tf.keras.optimizers`
with Keras' default constants. g is the gradient, η the learning rate, μ the momentum, t the number
of the update, from 1:

    sgd        w −= η g
    momentum   a = μ a + g;  w −= η a
    adam       m = β₁ m + (1−β₁) g;  v = β₂ v + (1−β₂) g²;  w −= η √(1−β₂ᵗ)/(1−β₁ᵗ) m/(√v + ε)
    rmsprop    s = ρ s + (1−ρ) g²;  a = μ a + η g/√(s + ε);  w −= a
    adagrad    s = s + g²;  w −= η g/(√s + ε)
    adadelta   s = ρ s + (1−ρ) g²;  d = √(u + ε)/√(s + ε) g;  u = ρ u + (1−ρ) d²;  w −= η d

The momentum's `a` is not multiplied by the learning rate here, but is in Keras: with a constant
learning rate, which is all that there is, the parameters are the same.
Sources: Kingma and Ba 2014, arXiv:1412.6980; Tieleman and Hinton 2012; Duchi et al. 2011; Zeiler
2012, arXiv:1212.5701.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from perftest.protocol import Optimizer

_EPSILON = 1e-7
_BETA_1, _BETA_2 = 0.9, 0.999
_RMSPROP_RHO = 0.9
_ADADELTA_RHO = 0.95

# parameter, its slots' handles, its gradient, number of updates made so far -> the operation
Apply = Callable[[Any, Sequence[Any], Any, Any], Any]


@dataclass(frozen=True)
class Rule:
    """An optimizer. slots: name -> initial value of each that a parameter has, of its shape.

    `apply(parameter, slots, gradient, updates)` changes the parameter (a resource variable) and its
    slots (likewise, in the order of `slots`), and returns the operation. updates: how many have
    been made before this one, a scalar.
    """

    slots: Mapping[str, float]
    apply: Apply


def load(optimizer: Optimizer, learning_rate: float) -> Rule:
    """The rule of this name. Raises ValueError for a name that is none."""
    if optimizer.name not in _RULES:
        raise ValueError(f"no optimizer {optimizer.name!r}; there are {', '.join(_RULES)}")
    return _RULES[optimizer.name](optimizer, learning_rate)


def names() -> list[str]:
    """All optimizers, in the order of the table above."""
    return list(_RULES)


def _sgd(optimizer: Optimizer, learning_rate: float) -> Rule:
    def apply(parameter: Any, slots: Sequence[Any], gradient: Any, updates: Any) -> Any:
        return tf.raw_ops.ResourceApplyGradientDescent(
            var=parameter.handle, alpha=_like(parameter, learning_rate), delta=gradient
        )

    return Rule({}, apply)


def _momentum(optimizer: Optimizer, learning_rate: float) -> Rule:
    def apply(parameter: Any, slots: Sequence[Any], gradient: Any, updates: Any) -> Any:
        return tf.raw_ops.ResourceApplyMomentum(
            var=parameter.handle,
            accum=slots[0].handle,
            lr=_like(parameter, learning_rate),
            grad=gradient,
            momentum=_like(parameter, optimizer.momentum),
        )

    return Rule({"momentum": 0.0}, apply)


def _adam(optimizer: Optimizer, learning_rate: float) -> Rule:
    def apply(parameter: Any, slots: Sequence[Any], gradient: Any, updates: Any) -> Any:
        count = tf.cast(updates, parameter.dtype) + 1
        return tf.raw_ops.ResourceApplyAdam(
            var=parameter.handle,
            m=slots[0].handle,
            v=slots[1].handle,
            beta1_power=tf.pow(_like(parameter, _BETA_1), count),
            beta2_power=tf.pow(_like(parameter, _BETA_2), count),
            lr=_like(parameter, learning_rate),
            beta1=_like(parameter, _BETA_1),
            beta2=_like(parameter, _BETA_2),
            epsilon=_like(parameter, _EPSILON),
            grad=gradient,
        )

    return Rule({"m": 0.0, "v": 0.0}, apply)


def _rmsprop(optimizer: Optimizer, learning_rate: float) -> Rule:
    def apply(parameter: Any, slots: Sequence[Any], gradient: Any, updates: Any) -> Any:
        return tf.raw_ops.ResourceApplyRMSProp(
            var=parameter.handle,
            ms=slots[0].handle,
            mom=slots[1].handle,
            lr=_like(parameter, learning_rate),
            rho=_like(parameter, _RMSPROP_RHO),
            momentum=_like(parameter, optimizer.momentum),
            epsilon=_like(parameter, _EPSILON),
            grad=gradient,
        )

    return Rule({"square": 0.0, "momentum": 0.0}, apply)


def _adagrad(optimizer: Optimizer, learning_rate: float) -> Rule:
    def apply(parameter: Any, slots: Sequence[Any], gradient: Any, updates: Any) -> Any:
        return tf.raw_ops.ResourceApplyAdagradV2(
            var=parameter.handle,
            accum=slots[0].handle,
            lr=_like(parameter, learning_rate),
            epsilon=_like(parameter, _EPSILON),
            grad=gradient,
        )

    return Rule({"square": 0.1}, apply)


def _adadelta(optimizer: Optimizer, learning_rate: float) -> Rule:
    def apply(parameter: Any, slots: Sequence[Any], gradient: Any, updates: Any) -> Any:
        return tf.raw_ops.ResourceApplyAdadelta(
            var=parameter.handle,
            accum=slots[0].handle,
            accum_update=slots[1].handle,
            lr=_like(parameter, learning_rate),
            rho=_like(parameter, _ADADELTA_RHO),
            epsilon=_like(parameter, _EPSILON),
            grad=gradient,
        )

    return Rule({"square": 0.0, "update": 0.0}, apply)


def _like(parameter: Any, value: float) -> Any:
    return tf.constant(value, parameter.dtype)


_RULES: dict[str, Callable[[Optimizer, float], Rule]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "adam": _adam,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "adadelta": _adadelta,
}
