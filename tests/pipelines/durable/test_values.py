"""Values as JSON and back: exactly, by classes that were declared, and never by what a file says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import pickle
import threading
from typing import Any
from zoneinfo import ZoneInfo

import dspy
import orjson
import pydantic
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade import FanOut, Money, Principal
from escalade.errors import BadInput, RunError
from escalade.pipelines.values import Codec, NotPlain, declared


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    colour: Colour
    more: tuple[Any, ...] = ()


class Page(pydantic.BaseModel):
    title: str
    points: list[Point] = []
    _seen: int = pydantic.PrivateAttr(0)


class Unknown(pydantic.BaseModel):
    x: int = 1


CODEC = Codec([Page])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.decimals(allow_nan=False),
    st.datetimes(),
    st.datetimes(timezones=st.just(dt.UTC)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.integers(0, 10**15).map(Money),
    st.sampled_from(Colour),
    st.builds(Point, st.integers(), st.sampled_from(Colour)),
)
KEYS = st.one_of(st.text(max_size=3), st.integers(), st.tuples(st.integers(), st.just("$")), st.just("$"), st.just("v"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.frozensets(st.integers() | st.text(max_size=2), max_size=4),
        st.sets(st.integers() | st.tuples(st.integers()), max_size=4),
        st.dictionaries(st.sampled_from(["answer", "score"]), inner, min_size=1).map(lambda d: dspy.Prediction(**d)),
        st.lists(inner, max_size=2).map(lambda more: Point(1, Colour.RED, tuple(more))),
        st.lists(st.builds(Point, st.integers(), st.sampled_from(Colour)), max_size=2).map(
            lambda points: Page(title="t", points=points)
        ),
    ),
    max_leaves=12,
)


def fields_of(one: Any) -> dict[str, Any]:
    """What it is made of."""
    return {"x": one.x, "colour": one.colour, "more": one.more} if isinstance(one, Point) else vars(one)


def alike(one: Any, other: Any) -> bool:
    """Equal, and of the same classes all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, set | frozenset):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, Point | dspy.Example | Page):
        return alike(fields_of(one), fields_of(other))
    return bool(one == other) and repr(one) == repr(other)


@given(VALUES)
@settings(max_examples=80, deadline=None)
def test_values_come_back_as_they_were(value: Any) -> None:
    """Same value, same classes, through bytes of JSON; and the same digest."""
    kept = CODEC.dumps(value)
    again = CODEC.loads(kept)
    assert alike(value, again)
    assert CODEC.digest(again) == CODEC.digest(value)
    orjson.loads(kept)


@pytest.mark.parametrize(
    "value",
    [
        math.inf,
        -0.0,
        2**200,
        bytearray(b"ab"),
        dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        dspy.Example(question="q").with_inputs("question"),
        dspy.History(messages=[{"question": "q"}]),
        Response(id="1", model="m", message=Message.assistant([TextPart("hi")]), finish_reason="stop", usage=Usage()),
        Principal("ana", "acme", frozenset({"editor"})),
        {"$": 1},
        {1: {True: "x"}},
    ],
)
def test_odd_values_come_back(value: Any) -> None:
    """What JSON has no word for."""
    again = CODEC.loads(CODEC.dumps(value))
    assert alike(value, again)


def test_numbers_may_be_longer_than_python_reads() -> None:
    """5,000 digits: more than Python makes of text, or text of."""
    assert CODEC.loads(CODEC.dumps([-(10**5000)])) == [-(10**5000)]


def test_nan_is_nan() -> None:
    """It equals nothing, so it is looked at by itself."""
    assert math.isnan(CODEC.loads(CODEC.dumps({"x": math.nan}))["x"])


def test_predictions_keep_what_they_know() -> None:
    """All completions, and who won or failed in a fan-out; errors come back as what they said."""
    several = dspy.Prediction.from_completions([{"a": "1"}, {"a": "2"}])
    assert CODEC.loads(CODEC.dumps(several)).completions.a == ["1", "2"]

    def fails(x: int) -> int:
        raise ValueError("no")

    joined = FanOut(good=lambda x: x, bad=fails, partial=True)(x=1)
    again = CODEC.loads(CODEC.dumps(joined))
    assert type(again) is type(joined)
    assert again.good == 1
    assert isinstance(again.missing["bad"].error, RunError)
    assert "no" in str(again.missing["bad"].error)


def test_private_fields_of_models_are_kept() -> None:
    """And which fields were set."""
    page = Page(title="t")
    page._seen = 3
    again = CODEC.loads(CODEC.dumps(page))
    assert (again._seen, again.model_fields_set) == (3, {"title"})


@pytest.mark.parametrize("value", [object(), Unknown(), (x for x in ()), lambda: 1, {"f": open}, threading.Lock()])
def test_what_is_no_data_is_refused(value: Any) -> None:
    """With the class in the message; nothing is kept halfway."""
    with pytest.raises(NotPlain, match="class|nested"):
        CODEC.dumps([value])


def test_a_value_within_itself_is_refused() -> None:
    """Instead of recursing for ever."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotPlain, match="deep"):
        CODEC.dumps(loop)


@pytest.mark.parametrize(
    "text",
    [
        b'{"$":"data","c":"os:stat_result","v":{}}',
        b'{"$":"model","c":"subprocess:Popen","v":{"fields":{"args":"id"}}}',
        b'{"$":"data","c":"escalade.cli:main","v":{}}',
        b'{"$":"prediction","p":["os:system"],"v":{"store":{}}}',
        b'{"$":"enum","c":"tests.pipelines.durable.test_values:Unknown","v":"x"}',
        b'{"$":"nonsense","v":1}',
        b'{"$":"tuple"}',
        b"{",
        pickle.dumps([1]),
    ],
)
def test_a_tampered_file_names_no_classes(text: bytes) -> None:
    """A class that nobody declared is not even imported, and what makes no sense is refused."""
    with pytest.raises(BadInput):
        CODEC.loads(text)


def test_another_shape_of_a_class_is_refused() -> None:
    """A value of an earlier version of a class isn't taken for one of now."""
    kept = CODEC.dumps(Point(1, Colour.RED)).replace(b'"x"', b'"y"')
    with pytest.raises(BadInput, match="fields"):
        CODEC.loads(kept)


def test_nodes_declare_their_classes() -> None:
    """By annotations of functions and fields of signatures, and whatever these are made of."""

    def node(page: Page) -> dict[str, Unknown]: ...

    class Asks(dspy.Signature):
        question: str = dspy.InputField()
        page: list[Page] = dspy.OutputField()

    for target in (node, dspy.Predict(Asks), dspy.ChainOfThought(Asks)):
        codec = Codec()
        with pytest.raises(NotPlain):
            codec.dumps(Page(title="t"))
        codec.allow(*declared(target))
        assert codec.loads(codec.dumps(Point(1, Colour.RED))) == Point(1, Colour.RED)
