"""Conditions: every question has an answer, unknown is never good enough, and the answer comes quickly."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import time
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from escalade.errors import BadInput
from escalade.registry.access.conditions import MISSING, finder, parse_condition, same
from tests.registry.access.policies import arguments, conditions, json_values


class Currency(enum.Enum):
    """Of arguments that pydantic has turned into Python."""

    EUR = "EUR"


@dataclasses.dataclass
class Address:
    """An argument with parts."""

    country: str


def holds(written: dict[str, Any], **args: Any) -> bool | None:
    return parse_condition(written, "test").holds(finder(args))


@pytest.mark.parametrize(
    ("comparison", "value", "expected"),
    [
        ({"==": 1}, 1.0, True),
        ({"==": 1}, True, False),
        ({"==": True}, 1, False),
        ({"==": None}, None, True),
        ({"==": {"a": [1, 2]}}, {"a": [1, 2.0]}, True),
        ({"==": [1, 2]}, [1], False),
        ({"==": 1}, math.nan, None),
        ({"==": [1]}, [math.nan], None),
        ({"!=": "x"}, "y", True),
        ({"!=": "x"}, 5, True),
        ({"!=": 1}, math.nan, None),
        ({"<=": 100}, 100, True),
        ({"<=": 100}, 100.01, False),
        ({"<=": 0.1}, Decimal("0.1"), True),
        ({"<": 0.1}, Decimal("0.1"), False),
        ({"<=": 100}, "5", None),
        ({"<=": 100}, True, None),
        ({"<=": 100}, None, None),
        ({"<=": 100}, math.nan, None),
        ({"<=": 100}, Decimal("sNaN"), None),
        ({"<=": 100}, math.inf, False),
        ({">": 10**30}, 10**30 + 1, True),
        ({">=": "2026-01-01"}, dt.date(2026, 5, 1), True),
        ({">=": dt.date(2026, 1, 1)}, "2025-12-31", False),
        ({"in": ["EUR", "USD"]}, Currency.EUR, True),
        ({"in": ["EUR", 1]}, "1", False),
        ({"in": [1]}, math.nan, None),
        ({"matches": "[a-z]+@acme[.]com"}, "ana@acme.com", True),
        ({"matches": "[a-z]+@acme[.]com"}, "ana@acme.com.evil", False),
        ({"matches": "[a-z]+@acme[.]com"}, "ana@acme.com\n", False),
        ({"matches": "a|b"}, "ab", False),
        ({"matches": "a"}, 5, None),
        ({"matches": "."}, "\ud800", None),
        ({"exists": True}, 0, True),
        ({"exists": True}, None, False),
        ({"exists": False}, None, True),
        ({">": 1, "<": 3}, 2, True),
        ({">": 1, "<": 3}, 3, False),
    ],
)
def test_comparisons(comparison: dict[str, Any], value: Any, expected: bool | None) -> None:
    """Each comparison gives yes, no, or unknown where kinds differ; JSON's 1 is no True, and decimals are exact."""
    assert holds({"x": comparison}, x=value) is expected


def test_missing_arguments() -> None:
    """Of a missing argument only its absence is known."""
    assert holds({"x": {"exists": False}}) is True
    assert holds({"x": {"exists": True}}) is False
    for comparison in ({"==": 1}, {"!=": 1}, {"<": 1}, {"in": [1]}, {"matches": "."}):
        assert holds({"x": comparison}) is None
    assert finder({"a": {"b": 1}})(("a", "b")) == 1
    assert finder({"a": 1})(("a", "b")) is MISSING


def test_one_no_is_enough() -> None:
    """A test that fails settles it, whatever is unknown besides; without one, an unknown test leaves all unknown."""
    assert holds({"x": {"==": 1}, "y": {"==": 1}}, x=2) is False
    assert holds({"y": {"==": 1}, "x": {"==": 1}}, x=2) is False
    assert holds({"x": {"==": 1}, "y": {"==": 1}}, x=1) is None


def test_paths_look_into_objects() -> None:
    """A dotted name looks into objects, also when they are dataclasses by now."""
    assert holds({"to.country": {"in": ["DE"]}}, to={"country": "DE"}) is True
    assert holds({"to.country": {"in": ["DE"]}}, to=Address("DE")) is True
    assert holds({"to.country": {"in": ["DE"]}}, to="DE") is None


@given(conditions, arguments)
@example({"amount": {"==": 1}}, {"amount": Decimal("NaN")})
@example({"amount": {"<": 1}}, {"amount": object()})
def test_there_is_always_an_answer(written: dict[str, Any], args: dict[str, Any]) -> None:
    """Whatever the arguments are, the answer is True, False or None, and the same when asked again."""
    condition = parse_condition(written, "test")
    answer = condition.holds(finder(args))
    assert answer in {True, False, None}
    assert condition.holds(finder(args)) is answer


@given(conditions)
def test_what_is_written_can_be_read_again(written: dict[str, Any]) -> None:
    """`to_json` is what `parse_condition` reads as the same condition."""
    condition = parse_condition(written, "test")
    assert parse_condition(condition.to_json(), "test") == condition


@given(json_values, json_values)
def test_equality_is_symmetric(one: Any, two: Any) -> None:
    """Who is asked first plays no part, and everything without a NaN equals itself."""
    assert same(one, two) is same(two, one)
    assert same(one, one) in {True, None}


@given(st.text(alphabet="ab", max_size=60))
def test_regular_expressions_take_linear_time(text: str) -> None:
    """An expression that takes a backtracking engine ages is answered at once."""
    condition = parse_condition({"x": {"matches": "(a+)+(a|aa)+c"}}, "test")
    began = time.thread_time()
    assert condition.holds(finder({"x": text + "a" * 20_000})) is False
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (None, "expected a condition like"),
        ({}, "expected a condition like"),
        ({"": {"==": 1}}, "'' is not the name of an argument"),
        ({"a.": {"==": 1}}, "'a.' is not the name of an argument"),
        ({"x": 5}, "expected comparisons like"),
        ({"x": {}}, "expected comparisons like"),
        ({"x": {"=<": 5}}, "unknown comparison '=<'"),
        ({"x": {"<=": None}}, "'<=' takes a number or a text, got None"),
        ({"x": {"<=": True}}, "'<=' takes a number or a text, got True"),
        ({"x": {"in": 5}}, "'in' takes a list of values, got 5"),
        ({"x": {"in": []}}, "'in' takes a list of values"),
        ({"x": {"exists": 1}}, "'exists' takes true or false, got 1"),
        ({"x": {"matches": 1}}, "'matches' takes a regular expression"),
        ({"x": {"matches": "("}}, "is not a regular expression of linear time"),
        ({"x": {"matches": r"(a)\1"}}, "is not a regular expression of linear time"),
        ({"x": {"matches": "a)|(?:b"}}, "is not a regular expression of linear time"),
        ({"x": {"==": math.inf}}, "inf can't be compared with"),
        ({"x": {"==": object()}}, "a object isn't JSON"),
    ],
)
def test_bad_conditions(written: Any, message: str) -> None:
    """What is no condition is refused when it is read, and the message says where it stands."""
    with pytest.raises(BadInput) as caught:
        parse_condition(written, "role 'a': when")
    assert str(caught.value).startswith("role 'a': when")
    assert message in str(caught.value)
