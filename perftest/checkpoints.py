"""What a training has learnt, to be kept and taken up again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Values:
    """All that a training has learnt: of each variable its value, in the model's order.

    slots: what the optimizer keeps, name -> of each parameter.  state: what is not trained.
    """

    parameters: list[Any]
    slots: dict[str, list[Any]]
    state: list[Any]
