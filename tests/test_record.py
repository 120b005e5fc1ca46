"""Records: like frozen dataclasses in all that anybody does with them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from perftest.record import record


@record(frozen=True)
class Point:
    """A record with every kind of field."""

    x: int
    y: float = 0.5
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


@dataclasses.dataclass(frozen=True)
class Other:
    """The same fields, made by the standard library."""

    x: int
    y: float = 0.5
    names: list[str] = field(default_factory=list)


def test_it_is_made_with_its_arguments_and_defaults() -> None:
    assert dataclasses.astuple(Point(1)) == (1, 0.5, [])
    assert dataclasses.astuple(Point(1, 2.0, ["a"])) == (1, 2.0, ["a"])
    assert dataclasses.astuple(Point(1, names=["a"], y=3.0)) == (1, 3.0, ["a"])
    assert Point(1).names is not Point(1).names


@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((1, 2.0, [], 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2}), ((), {"y": 1.0})],
)
def test_wrong_arguments_are_refused_as_by_a_dataclass(
    given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    for kind in (Point, Other):
        with pytest.raises(TypeError):
            kind(*given, **named)


def test_what_it_checks_of_itself_is_checked() -> None:
    with pytest.raises(ValueError, match="negative"):
        Point(-1)
    with pytest.raises(ValueError, match="negative"):
        dataclasses.replace(Point(1), x=-1)


def test_it_is_shown_as_a_dataclass_is() -> None:
    assert repr(Point(1, 2.0, ["a"])) == repr(Other(1, 2.0, ["a"])).replace("Other", "Point")


def test_equal_values_are_equal_and_have_the_same_hash_and_no_other_type_is() -> None:
    first: Any = Point(1, 2.0, ())  # type: ignore[arg-type]
    assert first == Point(1, 2.0, ())  # type: ignore[arg-type]
    assert hash(first) == hash(Point(1, 2.0, ()))  # type: ignore[arg-type]
    assert first != Point(1, 3.0, ())  # type: ignore[arg-type]
    assert first != Other(1, 2.0, ())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        hash(Point(1))  # its list has none


def test_nothing_of_it_can_be_changed() -> None:
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2
    with pytest.raises(FrozenInstanceError):
        point.new = 2
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point == Point(1)


def test_it_is_copied_pickled_replaced_and_taken_apart() -> None:
    point = Point(1, 2.0, ["a"])
    assert copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point  # noqa: S301 - our own
    assert dataclasses.replace(point, x=5) == Point(5, 2.0, ["a"])
    assert dataclasses.asdict(point) == {"x": 1, "y": 2.0, "names": ["a"]}
    assert [f.name for f in dataclasses.fields(Point)] == ["x", "y", "names"]
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2.0)
