"""TensorFlow, imported without what a task has no use for.

TensorFlow imports Keras at its end, and Keras looks for scikit-learn and pandas, to work with them
where they are installed. Of 4.1 s of processor time for `import tensorflow`, on a machine that has
all of them, these two take 1.3 s and Keras 0.7 s more: each task of a run would pay for it before
its first step. Both go on without what cannot be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

FOR_A_WORKER = ("sklearn", "pandas")
# It runs what workers put into its graph, and makes no model.
FOR_A_SERVER = (*FOR_A_WORKER, "keras")


@contextmanager
def without(unwanted: Iterable[str]) -> Iterator[None]:
    """For so long, what is unwanted and not imported yet cannot be imported."""
    blocked = [each for each in unwanted if each not in sys.modules]
    for each in blocked:
        sys.modules[each] = None  # type: ignore[assignment]  # import then raises ImportError
    try:
        yield
    finally:
        for each in blocked:
            sys.modules.pop(each, None)
