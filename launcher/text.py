"""Text from elsewhere, made fit to print: no terminal obeys what a node, a file or a server said.

Whatever is printed goes through here: by way of `terminal.console`, or of `plain` where it is a
line for scripts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def printable(text: str, limit: int = 500) -> str:
    """`text` on one line, without control characters, at most `limit` characters long."""
    line = "".join(c if c.isprintable() else " " for c in text[: 2 * limit])
    return line if len(line) <= limit else line[: limit - 3] + "..."


def counted(number: int, word: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def plain(text: str) -> str:
    """`text` in its lines, of any length, with a blank for every other control character."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def cleaned(value: T) -> T:
    """A frozen record (or tuple, or text) with every text in it made printable."""
    plain: Any = value
    if isinstance(value, str):
        plain = printable(value)
    elif isinstance(value, tuple):
        plain = tuple(cleaned(item) for item in value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: cleaned(getattr(value, f.name)) for f in dataclasses.fields(value)}
        plain = dataclasses.replace(value, **fields)
    result: T = plain
    return result
