"""`@record(frozen=True)`: a frozen dataclass that is made in a tenth of the time.

Needs the standard library alone. `dataclasses` writes and compiles six functions for each class,
before Python 3.13 in 0.4 ms. An agent starts on every node of a test and has some sixty classes of
messages, so that this was a fifth of its start. Here all classes share one of each function.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["record"]

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen: bool):
        """As `dataclasses.dataclass(frozen=True)`; there is no other kind."""
        assert frozen  # noqa: S101 - for a reader, and for type checkers

        def decorate(cls: type) -> type:
            dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
            for name, function in _SHARED.items():
                setattr(cls, name, function)
            return cls

        return decorate


def _init(self: Any, *given: Any, **named: Any) -> None:
    names = self.__match_args__
    values = dict(zip(names, given))  # noqa: B905 - may be fewer
    if len(given) > len(names) or values.keys() & named.keys():
        raise TypeError(f"too many arguments for {type(self).__name__}")
    values.update(named)
    if len(values) < len(names):
        _add_defaults(self, values)
    if values.keys() != self.__dataclass_fields__.keys():
        raise TypeError(f"arguments that {type(self).__name__} does not have")
    self.__dict__.update(values)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _add_defaults(self: Any, values: dict[str, Any]) -> None:
    for field in dataclasses.fields(self):
        if field.name in values:
            continue
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        else:
            raise TypeError(f"{type(self).__name__} needs {field.name!r}")


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([self.__dict__[name] for name in self.__match_args__])


def _repr(self: Any) -> str:
    values = zip(self.__match_args__, _values(self), strict=True)
    return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in values)})"


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_SHARED = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _set,
    "__delattr__": _delete,
}
