"""Frozen dataclasses <-> JSON lines, checked against the annotations. Standard library alone.

A record that is a message carries its name in "type"; other dataclasses are plain objects inside.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any


class MessageError(ValueError):
    """A line that is no message; the text is short and printable, whatever the line was."""


class Codec:
    """Writes and reads the messages that it is given by their names."""

    def __init__(self, by_name: Mapping[str, type]) -> None:
        self.by_name = dict(by_name)
        self._names = {kind: name for name, kind in by_name.items()}
        self._hints: dict[type, dict[str, Any]] = {}

    def encode(self, message: Any) -> bytes:
        """One message as a line, with its newline. NaN and infinities become null."""
        plain = self._plain(message)
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n"

    def decode(self, line: bytes) -> Any:
        """The message that a line holds.

        Raises MessageError when it holds none, or one whose fields are not of their types.
        """
        try:
            value = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise MessageError(f"not a message: {_excerpt(line)}") from error
        return self._message(value)

    def hints(self, kind: type) -> dict[str, Any]:
        """The types of a record's fields."""
        if kind not in self._hints:
            self._hints[kind] = typing.get_type_hints(kind)
        return self._hints[kind]

    def _plain(self, value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {
                f.name: self._plain(getattr(value, f.name)) for f in dataclasses.fields(value)
            }
            name = self._names.get(type(value))
            return {"type": name, **fields} if name else fields
        if isinstance(value, (tuple, list)):
            return [self._plain(item) for item in value]
        if isinstance(value, dict):
            return {key: self._plain(item) for key, item in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    def _message(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise MessageError("not a message: no JSON object")
        name = value.get("type")
        kind = self.by_name.get(name) if isinstance(name, str) else None
        if kind is None:
            raise MessageError(f"unknown message {_shown(name)}")
        fields = {key: item for key, item in value.items() if key != "type"}
        return self._record(kind, fields, str(name))

    def _record(self, kind: type, value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise MessageError(f"{where}: not an object")
        fields = {f.name: f for f in dataclasses.fields(kind)}
        missing = [
            name
            for name, f in fields.items()
            if name not in value
            and f.default_factory is dataclasses.MISSING
            and f.default is dataclasses.MISSING
        ]
        unknown = [name for name in value if name not in fields]
        if missing or unknown:
            raise MessageError(f"{where}: missing {missing}, unknown {unknown[:5]!a}"[:300])
        hints = self.hints(kind)
        return kind(
            **{
                name: self._typed(hints[name], item, f"{where}.{name}")
                for name, item in value.items()
            }
        )

    def _typed(self, hint: Any, value: Any, where: str) -> Any:
        """`value` as `hint` says, or MessageError."""
        if dataclasses.is_dataclass(hint):
            kind = typing.cast(type, hint)
            return self._message(value) if hint in self._names else self._record(kind, value, where)
        origin = typing.get_origin(hint)
        if origin in (types.UnionType, typing.Union):
            return self._union(typing.get_args(hint), value, where)
        if origin is tuple and isinstance(value, list):
            item_hint = typing.get_args(hint)[0]
            return tuple([self._typed(item_hint, item, where) for item in value])
        if origin is dict and isinstance(value, dict):
            item_hint = typing.get_args(hint)[1]
            return {key: self._typed(item_hint, item, where) for key, item in value.items()}
        return _plain_value(hint, value, where)

    def _union(self, hints: tuple[Any, ...], value: Any, where: str) -> Any:
        if isinstance(value, dict):
            records = [hint for hint in hints if dataclasses.is_dataclass(hint)]
            if len(records) == 1:  # a record that may be missing
                return self._typed(records[0], value, where)
            message = self._message(value)
            if type(message) in hints:
                return message
            raise MessageError(f"{where}: {type(message).__name__} has no place here")
        # An exact match comes first: True is no number, and 1 stays an int where both will do.
        for hint in sorted(hints, key=lambda hint: type(value) is not hint):
            try:
                return self._typed(hint, value, where)
            except MessageError:
                continue
        raise MessageError(f"{where}: {_shown(value)} is of none of its types"[:300])


def _plain_value(hint: Any, value: Any, where: str) -> Any:
    """A text, number, truth value or null of exactly the type that is due."""
    if hint is float and type(value) is int and abs(value) < 1 << 63:
        return float(value)
    if hint is float and type(value) is float and not math.isfinite(value):
        raise MessageError(f"{where}: too large a number")
    if hint is int and type(value) is int and abs(value) < 1 << 63:
        return value
    if hint in (str, float, bool, type(None)) and type(value) is hint:
        return value
    raise MessageError(f"{where}: {_shown(value)} is not of type {hint}"[:300])


def _refuse_constant(name: str) -> None:
    raise MessageError(f"{name} is not a number of this protocol")


def _shown(value: Any) -> str:
    """A value that may be anything and of any size, for a message."""
    if isinstance(value, str):
        return ascii(value[:80])
    # The text of a huge integer costs time to make, and that of deep lists has no end.
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e30):
        return repr(value)
    return "a value"


def _excerpt(data: bytes) -> str:
    """The beginning of `data`, printable on any terminal."""
    return ascii(data[:80].decode("utf-8", "replace"))[:200]
