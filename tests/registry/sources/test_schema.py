"""Foreign schemas: what of them is used, and what is refused."""

from __future__ import annotations

import inspect
import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import BadInput, InvalidArguments, UnknownName
from escalade.registry.sources._schema import ForeignInputs, inlined, python_names
from escalade.registry.sources.definitions import Definition, chosen, our_name, our_names

STRING = {"type": "string"}


def made(properties: dict[str, Any], required: tuple[str, ...] = (), **more: Any) -> ForeignInputs:
    return ForeignInputs({"type": "object", "properties": properties, "required": list(required), **more}, "t")


def test_names_that_python_can_not_have() -> None:
    """Each argument has a Python name here, and its own one on the wire."""
    inputs = made(
        {"page[size]": STRING, "from": STRING, "x-id": STRING, "1st": STRING, "größe": STRING, "page_size": {}}
    )
    assert list(inputs.properties) == ["page_size", "from_", "x_id", "arg_1st", "gr_e", "page_size_"]
    assert inputs.to_wire({"from_": "a", "page_size_": 1}) == {"from": "a", "page_size": 1}
    assert list(inputs.signature.parameters) == list(inputs.properties)


@given(st.lists(st.text(max_size=8), unique=True, max_size=12))
def test_any_names(names: list[str]) -> None:
    """Whatever a server calls its arguments: identifiers, all different, in order."""
    found = python_names(names)
    assert len(set(found)) == len(names)
    assert all(name.isidentifier() for name in found)
    inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in found])


def test_required_first() -> None:
    """The signature begins with what is required, as Python wants it; what is optional has a default."""
    inputs = made({"a": {"type": "integer", "default": 3}, "b": STRING, "c": {}}, ("b",))
    assert str(inputs.signature) == "(b: str, a: int = 3, c: Any = None)"
    assert inputs.accept(("x", 4), {}) == {"b": "x", "a": 4}


def test_null_for_what_was_left_out() -> None:
    """Null for an optional argument that can't be null counts as left out; for one that can, it is a value."""
    inputs = made({"a": STRING, "b": {"type": ["string", "null"]}, "c": STRING}, ("c",))
    assert inputs.accept((), {"a": None, "b": None, "c": "x"}) == {"b": None, "c": "x"}
    with pytest.raises(InvalidArguments, match="argument 'c'"):
        inputs.accept((), {"c": None})


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({}, "missing argument 'c'"),
        ({"c": "x", "d": 1}, "unknown argument 'd'"),
        ({"c": 3}, "argument 'c': 3 is not of type"),
        ({"c": "x", "n": -1}, "argument 'n': -1 is less than"),
        ({"c": object()}, "isn't JSON"),
    ],
)
def test_arguments_that_do_not_fit(given_: dict[str, Any], reason: str) -> None:
    """One line that names the argument."""
    inputs = made({"c": STRING, "n": {"type": "integer", "minimum": 0}}, ("c",))
    with pytest.raises(InvalidArguments, match=reason):
        inputs.accept((), given_)


def test_arguments_of_branches() -> None:
    """Arguments that only a branch of the schema names are arguments; the whole schema decides."""
    whole = {
        "type": "object",
        "allOf": [{"properties": {"a": STRING}, "required": ["a"]}],
        "oneOf": [{"required": ["b"], "properties": {"b": STRING}}, {"required": ["c"], "properties": {"c": STRING}}],
    }
    inputs = ForeignInputs(whole, "t")
    assert set(inputs.properties) == {"a", "b", "c"}
    assert inputs.schema["required"] == ["a"]
    assert inputs.accept((), {"a": "x", "b": "y"}) == {"a": "x", "b": "y"}
    for given_ in ({"a": "x"}, {"a": "x", "b": "y", "c": "z"}):
        with pytest.raises(InvalidArguments):
            inputs.accept((), given_)


def test_references() -> None:
    """They are replaced by what they refer to, also in circles."""
    schema = {
        "properties": {"tree": {"$ref": "#/$defs/Tree", "description": "the root"}},
        "$defs": {
            "Tree": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}
        },
    }
    tree = ForeignInputs(schema, "t").properties["tree"]
    assert tree["description"] == "the root"
    assert tree["properties"]["kids"]["items"] == {"description": "again a Tree"}
    assert "$ref" not in json.dumps(tree)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ([], "is no object"),
        ({"type": "string"}, "isn't that of an object"),
        ({"properties": []}, "can't be read"),
        ({"allOf": [{"required": 3}]}, "can't be read"),
        ({"properties": {"a": {"$ref": "http://169.254.169.254/x"}}}, "another document"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "another document"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "isn't there"),
        ({"properties": {"a": {"$dynamicRef": "#x"}}}, "dynamic references"),
        ({"properties": {"a": {"type": "strong"}}}, "can't be used"),
        ({"properties": {"a": {"pattern": "(?=x)"}}}, "can't be used"),
        ({"properties": {"a": {"description": "x" * 300_000}}}, "too large"),
        ({"properties": {str(n): {} for n in range(5_000)}}, "too large or too deep"),
    ],
)
def test_schemas_that_are_refused(schema: Any, reason: str) -> None:
    """With the reason, and nothing is fetched."""
    with pytest.raises(BadInput, match=reason):
        ForeignInputs(schema, "t")


def test_a_schema_that_explodes() -> None:
    """References that double at each level are given up at once."""
    schema = {
        "properties": {"a": {"$ref": "#/$defs/l0"}},
        "$defs": {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(40)},
    }
    start = time.thread_time()
    with pytest.raises(BadInput, match="too large or too deep"):
        inlined(schema, "t")
    assert time.thread_time() - start < 2


def test_a_pattern_that_explodes() -> None:
    """Patterns take linear time, whatever they are."""
    inputs = made({"a": {"type": "string", "pattern": "^(a+)+$"}}, ("a",))
    start = time.thread_time()
    with pytest.raises(InvalidArguments):
        inputs.accept((), {"a": "a" * 5_000 + "!"})
    assert time.thread_time() - start < 1


KINDS = st.sampled_from(
    [STRING, {"type": "integer"}, {"type": "boolean"}, {"type": ["string", "null"]}, {"enum": [1, "a"]}]
)


@given(
    st.dictionaries(st.sampled_from("abcd"), KINDS, max_size=4),
    st.sets(st.sampled_from("abcd")),
    st.dictionaries(st.sampled_from("abcde"), st.sampled_from(["x", 1, True, None, 2.5, []]), max_size=4),
)
def test_it_agrees_with_another_validator(properties: Any, required: set[str], args: Any) -> None:
    """What is accepted, without nulls that count as left out, is what a second implementation accepts."""
    needed = sorted(required & set(properties))
    schema = {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}
    inputs = ForeignInputs(schema, "t")
    try:
        accepted = inputs.accept((), args)
    except InvalidArguments:
        assert not jsonschema.Draft202012Validator(schema).is_valid(args)
    else:
        assert jsonschema.Draft202012Validator(schema).is_valid(accepted)
        assert {**args, **accepted} == args


def test_names_of_ours() -> None:
    """Foreign names become ours; two that become one are refused; others can be chosen."""
    assert our_name("a", "HTTPGet") == "a.httpget"
    assert our_name("a", "42") == "a.tool_42"
    assert our_name("a", "!!") == "a.tool"
    assert our_names("a", ["x", "y"], {"y": "b.z"}) == {"x": "a.x", "y": "b.z"}
    with pytest.raises(BadInput, match="'getUser' and 'get_user' would both be 'a.get_user'"):
        our_names("a", ["getUser", "get_user"], {})


def test_what_is_chosen() -> None:
    """Names, names with fields, or all; never something that isn't offered."""
    assert chosen(["a"], ["a", "b"], {}) == {"a": {}}
    assert chosen("*", ["a", "b"], {"c": "why"}) == {"a": {}, "b": {}}
    assert chosen({"a": {"cost": "1"}}, ["a"], {}) == {"a": {"cost": "1"}}
    with pytest.raises(BadInput, match='expected names, or "\\*" for all'):
        chosen("a", ["a"], {})
    with pytest.raises(UnknownName, match="unknown tool of the server 'c'"):
        chosen(["c"], ["a"], {})
    with pytest.raises(BadInput, match="'c' can't be a tool: why"):
        chosen(["c"], ["a"], {"c": "why"})


@given(st.dictionaries(st.sampled_from(["name", "description"]), st.text(max_size=5)))
def test_digests(changes: dict[str, str]) -> None:
    """Every part of a definition counts; the same parts have the same digest."""
    base = Definition("n", "d", {"type": "object"}, None, {"readOnlyHint": True})
    other = Definition(**{**base.to_json(), **changes})
    assert (base.digest == other.digest) == (base == other)
