"""Strategies: where the parameters live and how gradients meet. One file each, named as the option.

A strategy's `run(assignment, link)` trains with the pure step of training.py, tells `link` its
phases and step times, and returns when the worker has finished (or raises: the task has failed).
A parameter server does not return.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from perftest.protocol import Assignment
from perftest.task import AgentLink

Run = Callable[[Assignment, AgentLink], None]


def names() -> list[str]:
    """All strategies, by their file names."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Run:
    """The strategy's `run`. Raises ValueError for a name that is none."""
    if name not in names():
        raise ValueError(f"no strategy {name!r}; there are {', '.join(names())}")
    run: Run = importlib.import_module(f"{__name__}.{name}").run
    return run
