"""Whether a value of one declared type can be one of another: only what certainly can't is denied."""

from __future__ import annotations

import collections.abc
import datetime as dt
import enum
import typing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import dspy
import pydantic
import pytest

from escalade.pipelines.checking._types import Items, Record, fits, members, narrower, shown, union

T = TypeVar("T")
UserId = NewType("UserId", str)
MAYBE: Any = Optional[str]  # noqa: UP045 (as people still write it)
EITHER: Any = Union[int, str]  # noqa: UP007
MAYBE_A: Any = Optional[Literal["a"]]  # noqa: UP045


class Animal:
    """A class."""


class Dog(Animal):
    """One below it."""


class Boat:
    """Another class."""


class Car:
    """And another, with which …"""


class Amphibian(Boat, Car):
    """… this one is both."""


class Swims(Protocol):
    """Who knows who does."""

    def swim(self) -> None: ...


class Kind(enum.Enum):
    """Values are text."""

    BUG = "bug"


class Level(enum.IntEnum):
    """Values are numbers."""

    LOW = 1


class Row(TypedDict):
    """A dict."""

    n: int


class Other(TypedDict, total=False):
    """Another."""

    n: str


class Model(pydantic.BaseModel):
    """A model."""

    n: int = 0


@dataclass
class Data:
    """A dataclass."""

    n: int


SAME = [int, str, list[int], dict[str, int], Model, Data, Row, Kind, tuple[int, ...], type(None), int | None]

FITS: list[tuple[Any, Any]] = [
    (Any, int), (int, Any), (T, int), (int, T), (int, object), (object, int), ("Later", int),
    (bool, int), (int, float), (float, int), (int, complex), (Decimal, float), (Level, int),
    (Dog, Animal), (Animal, Dog), (Boat, Car), (Dog, Swims), (Swims, Dog),
    (int, int | None), (int | None, int), (MAYBE, str), (EITHER, str | bytes),
    (str, Literal["a"]), (Literal["a"], str), (Literal["a", "b"], Literal["b", "c"]), (Literal[1], float),
    (Kind, Literal["bug"]), (Level, Literal[1]),
    (list[int], list), (list, list[int]), (list[Any], list[int]), (list[int], list[float]),
    (list[int], list[int | str]),
    (list[int], collections.abc.Sequence[int]), (collections.abc.Iterable[int], list[int]), (str, typing.Sequence[str]),
    (tuple[int, str], tuple[int, str]), (tuple[int, ...], tuple[int, int]), (tuple[int, str], tuple[int | str, ...]),
    (dict[str, int], collections.abc.Mapping[str, float]), (dict, Row), (Row, dict),
    (Row, dict[str, int]), (Row, Other),
    (Other, dict[str, int]),
    (UserId, str), (str, UserId), (Annotated[int, "x"], int), (typing.Callable[[], int], collections.abc.Callable),
    (type[int], type), (dspy.Prediction, dspy.Example), (list[T], list[int]),
    (list[str], Items(str)), (tuple[int, ...], Items(int)), (set[int], Items()), (Items(int), list[int]),
    (collections.abc.AsyncIterator[int], Items(int)), (list[dict[str, int]], Items(str)), (Items(int), Items(float)),
]  # fmt: skip

DENIED: list[tuple[Any, Any]] = [
    (str, int), (int, str), (str, list[int]), (list[int], str), (str, dict), (dict[str, int], list[int]),
    (None, int), (int, None), (None, list[int]), (Boat, Animal), (Kind, str), (str, bytes), (bytes, str),
    (int | str, list[int]), (int, str | None), (Literal["a"], Literal["b"]), (Literal["a"], int), (int, Literal["a"]),
    (Kind, Literal["wish"]), (list[str], list[int]), (list[int], set[int]), (str, typing.Sequence[int]),
    (tuple[int, str], tuple[int, int]), (tuple[int], tuple[int, int]), (tuple[int, str], tuple[int, ...]),
    (dict[str, str], dict[str, int]), (dict[int, str], dict[str, str]), (list[list[str]], list[list[int]]),
    (Model, int), (Data, str), (dict, Model), (Row, list),
    (Row, dict[str, str]), (str, Path), (str, dt.date), (str, Model), (UserId, int),
    (Record({"a": int}), str), (Record({"a": int}), list[int]),
    (str, Items()), (dict[str, int], Items()), (int, Items()), (list[str], Items(int)), (tuple[int, str], Items(int)),
    (Items(str), list[int]), (Items(str), Items(int)), (Items(), int),
]  # fmt: skip

CONVERTED: list[tuple[Any, Any]] = [
    (int, str), (list[int], str), (Model, str), (str, int), (str, float), (str, bool), (str, dt.date), (str, Kind),
    (list[str], list[int]), (list[int], set[int]), (set[int], list[int]), (dict, Model), (str, Model), (Model, dict),
    (Record({"a": int, "b": str}), str), (Record({"a": int}), int), (Record({"a": list[str]}), list[str]),
    (tuple[int, ...], list[str]),
]  # fmt: skip

NEVER_CONVERTED: list[tuple[Any, Any]] = [
    (str, list[int]), (int, list[str]), (list[str], int), (dict[str, int], list[str]), (list[str], dict[str, int]),
    (None, int), (None, str), (list[list[int]], list[int]), (Record({"a": int}), list[str]), (Model, int),
]  # fmt: skip


@pytest.mark.parametrize("type_", SAME, ids=str)
def test_a_type_fits_itself(type_: Any) -> None:
    """Every type, with and without conversion."""
    assert fits(type_, type_)
    assert fits(type_, type_, converts=True)


@pytest.mark.parametrize(("given", "wanted"), FITS, ids=str)
def test_what_may_be_fits(given: Any, wanted: Any) -> None:
    """Unknown types, subclasses and their opposite, Unions, Literals, numbers among each other, what is inside."""
    assert fits(given, wanted)
    assert fits(given, wanted, converts=True)


@pytest.mark.parametrize(("given", "wanted"), DENIED, ids=str)
def test_what_can_not_be_does_not_fit(given: Any, wanted: Any) -> None:
    """No value of the one type is one of the other."""
    assert not fits(given, wanted)


@pytest.mark.parametrize(("given", "wanted"), CONVERTED, ids=str)
def test_what_may_be_converted_fits(given: Any, wanted: Any) -> None:
    """A model is shown anything as text, and pydantic reads numbers and dates out of text, and models out of dicts."""
    assert fits(given, wanted, converts=True)


@pytest.mark.parametrize(("given", "wanted"), NEVER_CONVERTED, ids=str)
def test_what_nobody_converts_does_not_fit(given: Any, wanted: Any) -> None:
    """A text is no list, a list no number, nothing is nothing."""
    assert not fits(given, wanted, converts=True)


VALUES: list[tuple[Any, Any]] = [
    (int, 1), (str, "2"), (str, "x"), (float, 1.5), (bool, True), (bytes, b"x"), (list[int], [1]), (list[str], ["1"]),
    (set[int], {1}), (tuple[int, str], (1, "a")), (dict[str, int], {"n": 1}), (Model, Model()), (Kind, Kind.BUG),
    (type(None), None), (dt.date, dt.date(2026, 1, 1)), (Decimal, Decimal(1)), (Level, Level.LOW),
]  # fmt: skip


@pytest.mark.parametrize("wanted", [*dict.fromkeys(type_ for type_, _ in VALUES), list[float], int | None], ids=str)
def test_what_pydantic_takes_is_never_denied(wanted: Any) -> None:
    """A value that pydantic converts was not refused as one of its type."""
    adapter = pydantic.TypeAdapter(wanted)
    for type_, value in VALUES:
        try:
            adapter.validate_python(value)
        except pydantic.ValidationError:
            continue
        assert fits(type_, wanted, converts=True), (type_, wanted)


def test_a_prediction_is_itself_to_a_function() -> None:
    """It is a Prediction and has fields; a model is shown its one field, or all as text."""
    one, two = Record({"a": int}), Record({"a": int, "b": str})
    assert all(fits(one, wanted) for wanted in (dspy.Prediction, dspy.Example, dict, object))
    assert fits(two, dict, converts=True)
    assert not fits(one, dict, converts=True)


def test_unions_of_what_is_known() -> None:
    """One type stands for itself; with one that is unknown, all is."""
    assert union([int, int]) is int
    assert union([int, str]) == int | str
    assert union([int, Any]) is Any
    assert union([]) is Any
    assert union([Record({}), int]) is Any
    assert union([Record({"a": int}), Record({"a": int})]) == Record({"a": int})


def test_values_that_are_known_one_by_one() -> None:
    """Of a Literal, an Enum, a bool, and of Unions of these."""
    assert members(Literal["a", "b"]) == ["a", "b"]
    assert members(MAYBE_A) == ["a", None]
    assert members(Kind) == [Kind.BUG]
    assert members(bool) == [True, False]
    assert members(str) is None
    assert members(Literal["a"] | str) is None


def test_the_narrower_type_says_more() -> None:
    """So it is the one that is told of an input that two nodes take."""
    assert narrower(int, Any)
    assert narrower(int, int | None)
    assert narrower(list[int], Items())
    assert narrower(Items(int), Items())
    assert not narrower(Any, int)
    assert not narrower(int | None, int)
    assert not narrower(Items(), list[int])


def test_types_are_shown_as_people_write_them() -> None:
    """Without the module, with what is inside."""
    shows = {int: "int", list[int]: "list[int]", type(None): "None", MAYBE: "Optional[str]", Kind: "Kind"}
    assert {type_: shown(type_) for type_ in shows} == shows
    assert (shown(Items(int)), shown(Items()), shown(Record({"a": int, "b": str}))) == (
        "items of int",
        "items",
        "Prediction(a, b)",
    )
