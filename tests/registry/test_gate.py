"""The gate on versions: what breaks callers, and a comparison of JSON schemas that never passes what breaks them."""

from __future__ import annotations

import random
from typing import Any

import jsonschema_rs
import pytest

from escalade import Registry, ToolSpec, tool
from escalade.errors import IncompatibleVersion
from escalade.registry.gate import breaking, judge
from escalade.registry.subschema import misfits
from escalade.registry.tools import ToolDefinition
from tests.registry import schemas

TEXT = {"type": "string"}
NUMBER = {"type": "integer", "minimum": 1, "maximum": 10}


def takes(required: tuple[str, ...] = ("query",), **properties: Any) -> dict[str, Any]:
    """An input schema, as tools have it."""
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


OLD = takes(query=TEXT, limit=NUMBER, kind={"enum": ["a", "b"]})


def spec(version: str = "1.0.0", **said: Any) -> ToolSpec:
    fields = {"input_schema": OLD, "output_schema": {"type": "array", "items": TEXT}, "side_effects": "read", **said}
    return ToolSpec(name="crm.search", version=version, **fields)


def made(version: str, **said: Any) -> ToolDefinition:
    return tool(name="crm.search", version=version, **{"side_effects": "read", **said})(search)


def search(query: str) -> list[str]:
    """Customers."""
    return [query]


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ({"input_schema": takes(query=TEXT, limit=NUMBER)}, ["argument 'kind' was removed"]),
        (
            {"input_schema": takes(("query", "limit"), **OLD["properties"])},
            ["argument 'limit' became required"],
        ),
        (
            {"input_schema": takes(("query", "who"), **OLD["properties"], who=TEXT)},
            ["argument 'who' became required"],
        ),
        (
            {"input_schema": takes(**{**OLD["properties"], "limit": {**NUMBER, "maximum": 5}})},
            ["argument 'limit' maximum: 10 -> 5"],
        ),
        (
            {"input_schema": takes(**{**OLD["properties"], "limit": TEXT})},
            ["argument 'limit' type: integer -> string"],
        ),
        (
            {"input_schema": takes(**{**OLD["properties"], "kind": {"enum": ["a", "c"]}})},
            ["argument 'kind' no longer takes 'b'"],
        ),
        (
            {"input_schema": takes(**{**OLD["properties"], "query": {**TEXT, "pattern": "^x"}})},
            ["argument 'query' pattern: none -> ^x"],
        ),
        (
            {"output_schema": {"type": "array", "items": {"anyOf": [TEXT, {"type": "null"}]}}},
            ["the result at '[]' is wider: type: null -> string"],
        ),
        ({"output_schema": None}, ["the result has no known type any more"]),
        ({"side_effects": "write"}, ["side effects: read -> write"]),
        ({"side_effects": "none"}, ["side effects: read -> none"]),
        ({"permission": "crm:read"}, ["permission: crm.search:call -> crm:read"]),
        ({"cost": "0.01"}, ["cost: $0 -> $0.01"]),
        ({"cost": None}, ["cost: $0 -> unknown before the call"]),
    ],
)
def test_what_breaks_callers(said: dict[str, Any], changes: list[str]) -> None:
    """Each breaking change is named in one line, with what it was and what it is."""
    assert breaking(spec(), spec("1.1.0", **said)) == changes


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"input_schema": takes(**OLD["properties"], more={"type": "boolean"})},
        {"input_schema": takes((), **OLD["properties"])},
        {"input_schema": takes(**{**OLD["properties"], "limit": {"type": "number"}})},
        {"input_schema": takes(**{**OLD["properties"], "kind": {"enum": ["b", "a", "c"]}})},
        {"input_schema": takes(**{**OLD["properties"], "query": {"anyOf": [TEXT, {"type": "null"}]}})},
        {"input_schema": {**OLD, "title": "Search", "description": "Other words."}},
        {"output_schema": {"type": "array", "items": {"enum": ["x", "y"]}}},
        {"description": "Better words.", "tags": ("crm",), "owner": "ops", "timeout": 5, "limits": "5/s"},
    ],
)
def test_what_does_not(said: dict[str, Any]) -> None:
    """More arguments, wider ones, narrower results, other words: all that '^' promises to allow."""
    assert breaking(spec(), spec("1.1.0", **said)) == []


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [("0", "0", False), ("0.01", "0.05", False), ("0.01", "0.1", True), ("0.01", "0", False), (None, "1", False)],
)
def test_classes_of_cost(old: str | None, new: str, broken: bool) -> None:
    """Dearer by a power of ten breaks budgets; a little dearer, cheaper, or known at last doesn't."""
    assert bool(breaking(spec(cost=old), spec("1.1.0", cost=new))) is broken


def test_the_most_that_a_call_costs_is_its_class() -> None:
    """Of tools that charge, or whose price depends on arguments, the declared maximum counts."""
    old, new = (spec(cost=None, metered=True, max_cost=most) for most in ("0.05", "0.60"))
    assert breaking(old, new) == ["cost: $0.05 -> $0.6"]
    assert breaking(new, old) == []
    assert breaking(spec(cost="0.05"), old) == []


@pytest.mark.parametrize(
    ("before", "version", "needed"),
    [("1.4.2", "1.4.3", "2.0.0"), ("1.4.2", "1.5.0", "2.0.0"), ("0.4.2", "0.4.3", "0.5.0")],
)
def test_the_version_that_it_would_have_to_be(before: str, version: str, needed: str) -> None:
    """The refusal names the versions, the change, the number that would do, and the way around."""
    verdict = judge(spec(version, side_effects="write"), [spec(before)])
    assert verdict is not None
    with pytest.raises(IncompatibleVersion) as caught:
        verdict.check()
    assert caught.value.needed == needed
    assert caught.value.changes == ("side effects: read -> write",)
    assert str(caught.value) == (
        f"crm.search@{version} breaks callers of {before}, which '^{before}' promises not to: side effects: "
        f'read -> write; publish it as {needed}, or register it with gate="off"'
    )


@pytest.mark.parametrize("version", ["2.0.0", "1.1.0-rc.1", "0.9.0", "1.0.0"])
def test_where_nothing_was_promised(version: str) -> None:
    """A major version, a pre-release, and one before all others may break what they like."""
    assert judge(spec(version, side_effects="write"), [spec("1.0.0"), spec("3.0.0-rc.1")]) is None


def test_the_newest_version_before_is_what_counts() -> None:
    """1.2.1 is compared with 1.2.0, not with what is older."""
    older, newer = spec("1.0.0", side_effects="none"), spec("1.3.0", side_effects="write")
    verdict = judge(spec("1.2.1"), [older, spec("1.2.0"), newer])
    assert verdict is not None
    assert (verdict.before, verdict.changes) == ("1.2.0", ())


WIDER = takes(**OLD["properties"], more={"type": "boolean"})


def test_a_version_that_was_yanked_made_its_promise() -> None:
    """Who wrote "^1.0.0" when there was 1.0.0 gets 1.1.0: that mustn't break him, though 1.0.0 was yanked."""
    registry = Registry([made("1.0.0")], name="gate")
    registry.yank("crm.search", "1.0.0", "it lied")
    with pytest.raises(IncompatibleVersion, match=r"1\.1\.0 breaks callers of 1\.0\.0.*side effects: read -> write"):
        registry.register(made("1.1.0", side_effects="write"))
    verdict = judge(spec("1.1.1"), [spec("1.0.0")], withdrawn=[spec("1.1.0", input_schema=WIDER)])
    assert verdict is not None
    assert (verdict.before, verdict.changes) == ("1.1.0", ("argument 'more' was removed",))


def test_a_yanked_version_that_broke_its_promise_made_none() -> None:
    """1.1.0 was let in by hand: what comes after it goes back to 1.0.0, and is held to that."""
    wrote = spec("1.1.0", side_effects="write")
    verdicts = [judge(one, [spec("1.0.0")], withdrawn=[wrote]) for one in (spec("1.1.1"), spec("1.1.1", cost="1"))]
    assert [verdict and (verdict.before, verdict.changes) for verdict in verdicts] == [
        ("1.0.0", ()),
        ("1.0.0", ("cost: $0 -> $1",)),
    ]


def test_a_withdrawn_version_keeps_no_promise() -> None:
    """No range finds it, so that it breaks nobody. One that is older than what ranges find says nothing either."""
    for withdrawn in (spec("1.2.0", side_effects="write"), spec("0.9.0"), spec("1.0.0", side_effects="write")):
        verdict = judge(spec("1.1.1"), [spec("1.1.0")], withdrawn=[withdrawn])
        assert verdict is not None
        assert verdict.changes == ()


def test_a_version_in_between_promises_what_the_next_one_keeps() -> None:
    """Who calls 1.1.0 by its caret range gets 1.2.0: what 1.2.0 doesn't take, 1.1.0 can't begin to take."""
    verdict = judge(
        spec("1.1.0", input_schema=WIDER), [spec("1.0.0"), spec("1.2.0"), spec("1.3.0", input_schema=WIDER)]
    )
    assert verdict is not None
    with pytest.raises(IncompatibleVersion) as caught:
        verdict.check()
    assert str(caught.value) == (
        "crm.search@1.2.0 breaks callers of 1.1.0, which '^1.1.0' promises not to: argument 'more' was removed; "
        'publish crm.search@1.1.0 as 1.3.0, or register it with gate="off"'
    )
    other = judge(spec("1.1.0", input_schema=WIDER, output_schema=None), [spec("1.2.0")])
    assert other is not None
    assert other.needed == "2.0.0"
    for after in (spec("2.0.0"), spec("1.2.0-rc.1"), spec("1.2.0", input_schema=WIDER)):
        passed = judge(spec("1.1.0", input_schema=WIDER), [spec("1.0.0"), after])
        assert passed is not None
        assert passed.changes == ()


def test_what_was_broken_before_is_no_fault_of_a_version_in_between() -> None:
    """1.3.0 was let in by hand and writes: 1.2.1, which reads as 1.2.0 does, may still be published."""
    verdict = judge(spec("1.2.1"), [spec("1.2.0"), spec("1.3.0", side_effects="write")])
    assert verdict is not None
    assert verdict.changes == ()


# ------------------------------------------------------------------------------------------ one schema within another


@pytest.mark.slow
def test_what_passes_breaks_nobody() -> None:
    """Over random pairs of schemas: when nothing is found, every value that fits the one fits the other. And where a
    value is lost, something is found, of course.
    """
    rng = random.Random(11)
    passed = lost_some = doubted = 0
    for _ in range(2_500):
        narrow = schemas.some_schema(rng)
        wide = schemas.changed(rng, narrow) if rng.random() < 0.8 else schemas.some_schema(rng)
        narrow, wide = (narrow, wide) if rng.random() < 0.5 else (wide, narrow)
        found = misfits(narrow, wide)
        one, other = jsonschema_rs.Draft202012Validator(narrow), jsonschema_rs.Draft202012Validator(wide)
        values = [value for value in (schemas.some_value(rng, narrow) for _ in range(25)) if one.is_valid(value)]
        lost = [value for value in values if not other.is_valid(value)]
        assert found or not lost, (narrow, wide, lost[0])
        passed, lost_some = passed + (not found), lost_some + bool(lost)
        doubted += bool(found) and not lost and len(values) > 10
    assert passed > 800, "it must pass what is compatible"
    assert lost_some > 500
    assert doubted < 200, "… and be rarely in doubt"


def test_a_schema_is_within_itself() -> None:
    """Over random schemas: nothing changed, nothing found, in a copy with other titles neither."""
    rng = random.Random(12)
    for _ in range(500):
        schema = schemas.some_schema(rng)
        assert misfits(schema, {**schema, "title": "T", "description": "D", "default": 3}) == []


TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"name": TEXT, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
            "required": ["name"],
        }
    },
}


def test_schemas_that_contain_themselves() -> None:
    """A tree fits a tree with one more field, and not one whose names are shorter, however deep."""
    import copy

    wider, narrower = copy.deepcopy(TREE), copy.deepcopy(TREE)
    wider["$defs"]["Node"]["properties"]["size"] = {"type": "integer"}  # type: ignore[index]
    narrower["$defs"]["Node"]["properties"]["name"] = {"type": "string", "maxLength": 3}  # type: ignore[index]
    assert misfits(TREE, wider) == []
    assert misfits(TREE, narrower)[0] == ("name", "maxLength: none -> 3")


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ({"type": "string"}, {"not": {"const": "x"}}),
        ({"type": "string"}, {"$ref": "https://example.com/other.json"}),
        ({"type": "string"}, {"$ref": "#/$defs/nowhere"}),
        ({"type": "string", "pattern": "^ab"}, {"type": "string", "pattern": "^a"}),
        ({"enum": ["x"]}, {"$ref": "https://example.com/other.json"}),
        ({"type": "object", "properties": {}, "additionalProperties": True}, takes(())),
    ],
)
def test_what_can_not_be_compared_is_a_misfit(narrow: Any, wide: Any) -> None:
    """In doubt it breaks; the same on both sides is no doubt."""
    assert misfits(narrow, wide)
    assert misfits(wide, wide) == []


CAT, DOG = (
    {"type": "object", "properties": {"kind": {"const": kind}, "name": TEXT}, "required": ["kind"]}
    for kind in ("cat", "dog")
)


def test_tagged_unions() -> None:
    """A new field in one branch of a tagged union, and a new branch, are compatible; a branch that goes isn't."""
    old: dict[str, Any] = {"oneOf": [CAT, DOG]}
    more = {**CAT, "properties": {**CAT["properties"], "lives": {"type": "integer"}}}  # type: ignore[dict-item]
    bird = {**CAT, "properties": {"kind": {"const": "bird"}}}
    assert misfits(old, {"oneOf": [more, DOG]}) == []
    assert misfits(old, {"oneOf": [CAT, DOG, bird]}) == []
    assert misfits({"oneOf": [CAT, DOG, bird]}, old)
