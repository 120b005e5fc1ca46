"""How many bytes of parameters a network has, found by building it on a node.

Runs in a process of its own (`python -m perftest.counting`), because building takes TensorFlow.
"""

from __future__ import annotations

import math
import os
import sys

from perftest import errands
from perftest.protocol import CountParameters, ParameterCount

_BYTES = 4  # of a parameter: variables are float32 whatever the layers compute in


def count(question: CountParameters) -> ParameterCount:
    """Build the network on the processor and look at its trainable variables."""
    os.environ.update(
        CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3"
    )
    try:
        import models

        model = models.load(question.model)
        sizes = tuple(_BYTES * math.prod(each.shape) for each in model.trainable_variables)
    except Exception as error:  # whatever a network or TensorFlow may raise, `check` tells it
        said = str(error).strip().splitlines()
        problem = f"{type(error).__name__}: {said[0] if said else ''}"[:300]
        return ParameterCount(question.model, (), problem)
    return ParameterCount(question.model, sizes, "")


if __name__ == "__main__":
    sys.exit(errands.serve(count))
