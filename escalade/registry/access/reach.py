"""Is there any call at all that is allowed? So that one sees exactly the tools that one can call.

The answer is found by trying: conditions only compare arguments with constants, so a few values stand for all: each
constant, what lies between two of them, and beyond; a missing argument; a text of which nothing is known but which
comparisons it passes. Values that don't fit the tool's input schema are left out. Where there would be too many
combinations the answer is yes: a tool is seen that perhaps can't be called; the call is still decided on its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade.registry.access.conditions import MISSING, Partly, Path, Test, Truth
from escalade.registry.schema import inlined

if TYPE_CHECKING:
    from escalade.registry.access.policy import Plan

MOST = 4096
"""Combinations that are tried."""
_MOST_UNKNOWN = 5


@dataclass(frozen=True, slots=True)
class SomeText(Partly):
    """A text that equals none of the constants, and passes exactly these of the other tests."""

    passes: frozenset[Test]

    def says(self, test: Test) -> Truth:
        """What a test of it gives."""
        if test.op in {"exists", "!="}:
            return test.op == "!=" or bool(test.value)
        if test.op in {"==", "in"}:
            return False
        return test in self.passes if isinstance(test.value, str) else None

    def __str__(self) -> str:
        return "some other text"


@dataclass(frozen=True, slots=True)
class SomeThing(Partly):
    """An object or a list that equals none of the constants."""

    def says(self, test: Test) -> Truth:
        """What a test of it gives."""
        if test.op in {"exists", "!="}:
            return test.op == "!=" or bool(test.value)
        return False if test.op in {"==", "in"} else None

    def __str__(self) -> str:
        return "something else"


Example = dict[Path, Any]
"""A value for each argument that matters; MISSING for none."""


def reachable(plans: Sequence[Plan], schema: Mapping[str, Any] | None = None) -> bool:
    """Are there arguments with which all plans say yes?"""
    if not all(plan.decided.allowed for plan in plans):
        return False
    if not any(plan.decided.closer for plan in plans):
        return True
    tried = examples([test for plan in plans for test in plan.tests], schema)
    if tried is None:
        return True
    return any(all(allows(plan, example) for plan in plans) for example in tried)


def allows(plan: Plan, example: Example) -> bool:
    """What `Plan.decide` would say."""
    find: Callable[[Path], Any] = example.__getitem__
    if any(held.rule.when is None or held.rule.when.holds(find) is not False for held in plan.denials):
        return False
    return any(held.rule.when is None or held.rule.when.holds(find) for held in plan.grants)


def wants_approval(plan: Plan, example: Example) -> bool:
    """Would a person have to agree?"""
    find: Callable[[Path], Any] = example.__getitem__
    asking = [held.rule.when for held in plan.grants if held.rule.approval]
    return any(when is None or when.holds(find) is not False for when in asking)


def examples(tests: Iterable[Test], schema: Mapping[str, Any] | None = None) -> Iterator[Example] | None:
    """Arguments that together show everything these tests can tell apart; None: there would be too many."""
    plain = None if schema is None else inlined(schema)
    by_path: dict[Path, list[Test]] = {}
    for test in tests:
        by_path.setdefault(test.path, []).append(test)
    values = [_values(path, asked, plain) for path, asked in by_path.items()]
    if any(one is None for one in values):
        return None
    lists = [one for one in values if one is not None]
    if math.prod(map(len, lists)) > MOST:
        return None
    return (dict(zip(by_path, chosen, strict=True)) for chosen in itertools.product(*lists))


def _values(path: Path, tests: list[Test], schema: Mapping[str, Any] | None) -> list[Any] | None:
    inside, optional = (None, True) if schema is None else _at(path, schema)
    if inside is False:
        return [MISSING]
    fits = _fits(inside)
    constants = [value for test in tests for value in (test.value if test.op == "in" else [test.value])]
    tried = [*constants, *_suggested(inside), *_numbers([*constants, *_bounds(inside)], inside), True, False, None]
    found = [value for value in _distinct(tried) if fits(value)]
    texts = _texts(tests, inside)
    if texts is None:
        return None
    found += texts
    if any(fits(thing) for thing in ({}, [], {"": 0}, [0], [""])) or _has_type(inside, "object", "array"):
        found.append(SomeThing())
    return [*found, MISSING] if optional else found


def _at(path: Path, schema: Mapping[str, Any]) -> tuple[Any, bool]:
    """The schema of the value at a path (False: there can't be one, None: anything), and whether it may be missing.

    A missing argument with a default isn't missing: the guard fills it in.
    """
    inside: Any = schema
    optional = False
    for part in path:
        properties = inside.get("properties", {})
        if part not in properties:
            closed = inside is schema or inside.get("additionalProperties") is False
            return (False, True) if closed else (None, True)
        has_default = inside is schema and "default" in properties[part]
        optional = optional or (part not in inside.get("required", ()) and not has_default)
        inside = properties[part]
    return inside, optional


def _fits(inside: Any) -> Callable[[Any], bool]:
    if inside is None:
        return lambda _: True
    import jsonschema_rs

    valid: Callable[[Any], bool] = jsonschema_rs.Draft202012Validator(inside).is_valid
    return valid


def _parts(inside: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and all its alternatives."""
    if isinstance(inside, Mapping):
        yield inside
        for word in ("anyOf", "oneOf", "allOf"):
            for one in inside.get(word, ()):
                yield from _parts(one)


def _suggested(inside: Any) -> list[Any]:
    """Values that the schema itself names."""
    return [
        value
        for part in _parts(inside)
        for value in (*part.get("enum", ()), *(part[key] for key in ("const", "default") if key in part))
    ]


def _bounds(inside: Any) -> list[Any]:
    words = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    return [part[word] for part in _parts(inside) for word in words if word in part]


def _numbers(constants: list[Any], inside: Any) -> list[Any]:
    """Each of them, both neighbours, what lies between two, and what lies beyond all; whole numbers, too."""
    known = sorted({c for c in constants if isinstance(c, int | float) and not isinstance(c, bool)} | {0})
    between = [(one + two) / 2 for one, two in itertools.pairwise(known)]
    near = [near for c in known for near in (math.floor(c) - 1, math.floor(c), math.ceil(c), math.ceil(c) + 1)]
    found = [*known, *between, *near]
    steps = {part["multipleOf"] for part in _parts(inside) if part.get("multipleOf")}
    return [*found, *(way(value / step) * step for step in steps for value in found for way in (math.floor, math.ceil))]


def _texts(tests: list[Test], inside: Any) -> list[SomeText] | None:
    """Texts by what is known of them: every combination of the tests that no constant settles."""
    if not _has_type(inside, "string"):
        return []
    open_ = list({t for t in tests if t.op in {"matches", "<", "<=", ">", ">="} and isinstance(t.value, str)})
    if len(open_) > _MOST_UNKNOWN:
        return None
    subsets = itertools.chain.from_iterable(itertools.combinations(open_, n) for n in range(len(open_) + 1))
    return [SomeText(frozenset(subset)) for subset in subsets]


def _has_type(inside: Any, *kinds: str) -> bool:
    """May it be of such a type, beyond what an enumeration lists?"""
    if inside is None:
        return True
    if "enum" in inside or "const" in inside:
        return False
    alternatives = [one for word in ("anyOf", "oneOf") for one in inside.get(word, ())]
    if alternatives:
        return any(_has_type(one, *kinds) for one in alternatives)
    types = inside.get("type", kinds)
    return any(kind in kinds for kind in ([types] if isinstance(types, str) else types))


def _distinct(values: list[Any]) -> list[Any]:
    """Without repetitions; 1 and True are two values."""
    return list({(type(value) is bool, repr(value)): value for value in values}.values())
