"""In which precision a worker computes: of the arithmetic alone, because variables are float32.

fp32  float32, and nothing less: GPUs that could multiply in TF32 are told not to
tf32  float32 whose products on a GPU keep 10 bits of the fraction
fp16  float16 where Keras' policy mixed_float16 has it, with a loss scale (loss_scale.py)
bf16  bfloat16 likewise (mixed_bfloat16); its range is float32's, and it needs no scale
"""

from __future__ import annotations

import keras
import tensorflow as tf

from perftest.protocol import Place

_POLICIES = {
    "fp32": "float32",
    "tf32": "float32",
    "fp16": "mixed_float16",
    "bf16": "mixed_bfloat16",
}
# The first GPUs with TF32: Ampere.
_LEAST_CAPABILITY = (8, 0)


def prepare(precision: str) -> None:
    """Have every layer that is built from now on compute so. Raises ValueError for no precision."""
    if precision not in _POLICIES:
        raise ValueError(f"no precision {precision!r}; there are {', '.join(_POLICIES)}")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(_POLICIES[precision])
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")


def check_gpu(precision: str, place: Place) -> None:
    """Raises RuntimeError for a GPU that would compute in another precision, and not say so."""
    if precision != "tf32" or place.gpu is None:
        return
    gpu = tf.config.list_physical_devices("GPU")[0]
    details = tf.config.experimental.get_device_details(gpu)
    capability = details.get("compute_capability")
    if capability is not None and tuple(capability) < _LEAST_CAPABILITY:
        name = details.get("device_name", place.gpu)
        raise RuntimeError(
            f"{name} has no TF32 (compute capability {capability[0]}.{capability[1]}, "
            "it begins with 8.0); --precision fp32 is what it computes"
        )
