"""Conditions on arguments: a small language in which every question has an answer.

    {"amount": {"<=": 100}, "currency": {"in": ["EUR", "USD"]}, "customer.country": {"!=": "KP"}}

All tests of a condition must hold. A dotted path looks into objects. The answer is yes, no, or *unknown*: the argument
is missing, or can't be compared (text with a number; NaN with anything). Unknown is never good enough: what is
permitted under a condition needs a yes, what is denied under one needs a no to pass. No loops, no functions, and
regular expressions in linear time: an answer always comes.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from escalade.errors import BadInput
from escalade.registry.expressions import matcher

Truth = bool | None
"""True, False, None for unknown."""
Path = tuple[str, ...]

OPERATORS: Final = ("==", "!=", "<", "<=", ">", ">=", "in", "matches", "exists")


class _Missing:
    """There is no such argument."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class Partly(ABC):
    """A value of which only some things are known. See `reach`."""

    __slots__ = ()

    @abstractmethod
    def says(self, test: Test) -> Truth:
        """What the test gives."""


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison: the argument at `path`, an operator, a JSON value."""

    path: Path
    op: str
    value: Any
    _match: Callable[[str], bool] | None = field(default=None, repr=False, compare=False)

    def holds(self, given: Any) -> Truth:
        """Does it hold for this value of the argument?"""
        if isinstance(given, Partly):
            return given.says(self)
        if self.op == "exists":
            return (given is not MISSING and given is not None) is bool(self.value)
        if given is MISSING:
            return None
        return self._compared(given)

    def _compared(self, given: Any) -> Truth:
        if self.op == "==":
            return same(given, self.value)
        if self.op == "!=":
            return _not(same(given, self.value))
        if self.op == "in":
            return any_(same(given, one) for one in self.value)
        if self.op == "matches":
            return _matched(self._match, given)
        return _ordered(self.op, given, self.value)

    def __str__(self) -> str:
        name = ".".join(self.path)
        if self.op == "exists":
            return f"{name} is given" if self.value else f"{name} is not given"
        return f"{name} {self.op} {json.dumps(self.value, ensure_ascii=False)}"


@dataclass(frozen=True, slots=True)
class Condition:
    """Several tests, all of which must hold."""

    tests: tuple[Test, ...]

    def holds(self, find: Callable[[Path], Any]) -> Truth:
        """Do they? `find`: the value at a path, or MISSING."""
        answer: Truth = True
        for test in self.tests:
            one = test.holds(find(test.path))
            if one is False:
                return False
            if one is None:
                answer = None
        return answer

    def to_json(self) -> dict[str, dict[str, Any]]:
        """As it is written in policies."""
        written: dict[str, dict[str, Any]] = {}
        for test in self.tests:
            written.setdefault(".".join(test.path), {})[test.op] = test.value
        return written

    def __str__(self) -> str:
        return " and ".join(map(str, self.tests))


def parse_condition(written: Any, where: str) -> Condition:
    """A condition as written in policies. Raises BadInput, which begins with `where`."""
    if not isinstance(written, Mapping) or not written:
        raise BadInput(f"{where}: expected a condition like {{'amount': {{'<=': 100}}}}, got {written!r}")
    tests: list[Test] = []
    for name, comparisons in written.items():
        if not isinstance(name, str) or not all(name.split(".")):
            raise BadInput(f"{where}: {name!r} is not the name of an argument")
        if not isinstance(comparisons, Mapping) or not comparisons:
            raise BadInput(f"{where}: {name!r}: expected comparisons like {{'<=': 100}}, got {comparisons!r}")
        path = tuple(name.split("."))
        tests += [_test(path, op, value, f"{where}: {name!r}") for op, value in comparisons.items()]
    return Condition(tuple(tests))


def finder(args: Mapping[str, Any]) -> Callable[[Path], Any]:
    """Looks values up in the arguments of a call, which are Python values or JSON."""

    def find(path: Path) -> Any:
        value: Any = args
        for part in path:
            if value is not args:
                value = _plain(value)
            if not isinstance(value, Mapping) or part not in value:
                return MISSING
            value = value[part]
        return _plain(value)

    return find


def same(one: Any, two: Any) -> Truth:
    """Are two JSON values equal? 1 equals 1.0; True is no number; unknown where a NaN has a say."""
    kind = _kind(one)
    other = _kind(two)
    if "unknown" in {kind, other}:
        return None
    if kind != other:
        return False
    if kind == "number":
        return bool(_exact(one) == _exact(two))
    if kind == "list":
        return len(one) == len(two) and _all(same(a, b) for a, b in zip(one, two, strict=True))
    if kind == "object":
        return one.keys() == two.keys() and _all(same(one[key], two[key]) for key in one)
    return bool(one == two)


def any_(answers: Any) -> Truth:
    """True if one is, else unknown if one is, else False."""
    found: Truth = False
    for answer in answers:
        if answer:
            return True
        if answer is None:
            found = None
    return found


def _all(answers: Any) -> Truth:
    return _not(any_(_not(answer) for answer in answers))


def _not(answer: Truth) -> Truth:
    return None if answer is None else not answer


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "bool"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float | Decimal):
        return "unknown" if _is_nan(value) else "number"
    if isinstance(value, Mapping):
        return "object"
    return "list" if isinstance(value, list | tuple) else "unknown"


def _is_nan(number: float | Decimal) -> bool:
    return number.is_nan() if isinstance(number, Decimal) else isinstance(number, float) and math.isnan(number)


def _exact(number: float | Decimal) -> int | Decimal:
    """0.1 as people mean it, whether it came as a float or as a decimal."""
    return Decimal(repr(number)) if isinstance(number, float) else number


def _ordered(op: str, one: Any, two: Any) -> Truth:
    kind = _kind(one)
    if kind != _kind(two) or kind not in {"number", "text"}:
        return None
    if kind == "number":
        one, two = _exact(one), _exact(two)
    if op == "<":
        return bool(one < two)
    if op == "<=":
        return bool(one <= two)
    return bool(one > two) if op == ">" else bool(one >= two)


def _matched(match: Callable[[str], bool] | None, given: Any) -> Truth:
    if match is None or not isinstance(given, str):
        return None
    try:
        return match(given)
    except ValueError:  # lone surrogates are no text
        return None


def _plain(value: Any) -> Any:
    """JSON of a validated argument; numbers stay exact, and what has no JSON is left as it is: unknown."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, str | int | float | Decimal | dict):
        return value
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        return value


def _test(path: Path, op: Any, value: Any, where: str) -> Test:
    if op not in OPERATORS:
        raise BadInput(f"{where}: unknown comparison {op!r} (known: {', '.join(OPERATORS)})")
    value = _json(value, where)
    wrong = _misfit(op, value)
    if wrong:
        raise BadInput(f"{where}: {op!r} takes {wrong}, got {value!r}")
    return Test(path, op, value, matcher(value, where) if op == "matches" else None)


def _misfit(op: str, value: Any) -> str:
    """What the operator would take, "" if it takes this value."""
    if op == "in":
        return "" if isinstance(value, list) and value else "a list of values"
    if op == "exists":
        return "" if isinstance(value, bool) else "true or false"
    if op == "matches":
        return "" if isinstance(value, str) else "a regular expression"
    if op in {"==", "!="}:
        return ""
    return "" if _kind(value) in {"number", "text"} else "a number or a text"


def _json(value: Any, where: str) -> Any:
    """The value as JSON; dates of YAML and TOML as text."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _json(one, where) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [_json(one, where) for one in items]
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{where}: {value!r} can't be compared with")
    if isinstance(value, Decimal) and _exact(float(value)) == value:
        return float(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BadInput(f"{where}: a {type(value).__name__} isn't JSON")
