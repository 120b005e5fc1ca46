"""The same for many things at once, with threads that nobody has to wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def for_each(
    items: Iterable[T], do: Callable[[T], object], threads: int, seconds: float = 0.0
) -> None:
    """Call `do` with every item, `threads` at once, and wait at most `seconds` for the end.

    What is not done by then goes on in daemon threads. `do` must raise nothing.
    """
    waiting = list(items)
    waiting.reverse()
    number = min(threads, len(waiting))

    def work() -> None:
        while waiting:
            try:
                item = waiting.pop()
            except IndexError:  # another thread was faster
                return
            do(item)

    started = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in started:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in started:
        thread.join(max(0.0, deadline - time.monotonic()))
