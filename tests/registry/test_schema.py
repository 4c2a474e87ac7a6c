"""Input schemas: from hints to JSON schema, from JSON to Python values, and errors that a model can act on."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import inspect
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given
from pydantic import BaseModel, Field, TypeAdapter

from escalade.errors import BadInput, InvalidArguments
from escalade.registry.schema import Inputs, is_async, output_schema


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int
    y: int = 0


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


def rich(
    name: str,
    when: dt.date,
    colour: Colour = Colour.RED,
    points: list[Point] | None = None,
    *,
    mode: Literal["fast", "slow"] = "fast",
    limit: Annotated[int, Field(description="how many", ge=1, le=100)] = 10,
    copy: Optional[bool] = None,  # noqa: UP045 - people write it so
    share: Decimal = Decimal("0.5"),
) -> list[str]:
    """All kinds of parameters; `copy` is also the name of a method of pydantic models."""
    return []


def inputs(function: Any) -> Inputs:
    return Inputs(function, "t")


def refusal(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidArguments) as caught:
        inputs(function).accept(args, kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_schema_says_all_that_the_hints_say() -> None:
    """Types, choices, bounds, descriptions, defaults, nested models, and exactly what is required."""
    schema = inputs(rich).schema
    properties = schema["properties"]
    assert schema["type"] == "object"
    assert schema["required"] == ["name", "when"]
    assert schema["additionalProperties"] is False
    assert list(properties) == ["name", "when", "colour", "points", "mode", "limit", "copy", "share"]
    assert properties["name"] == {"type": "string"}
    assert properties["when"] == {"type": "string", "format": "date"}
    assert properties["colour"]["default"] == "red"
    assert properties["mode"] == {"enum": ["fast", "slow"], "type": "string", "default": "fast"}
    assert properties["limit"] == {
        "type": "integer", "minimum": 1, "maximum": 100, "description": "how many", "default": 10,
    }  # fmt: skip
    jsonschema.Draft202012Validator.check_schema(schema)


def test_properties_need_no_looking_up() -> None:
    """What DSPy shows to models has references replaced; a type that contains itself ends as "any object"."""

    def grow(tree: Tree, at: Point) -> None:
        """Grow."""

    properties = inputs(grow).properties
    assert "$ref" not in repr(properties)
    assert properties["at"]["properties"]["x"] == {"type": "integer"}
    child = properties["tree"]["properties"]["children"]["items"]
    assert child == {"type": "object", "description": "again a Tree"}


def test_values_get_their_python_types() -> None:
    """A model's JSON arrives as the hinted types; arguments that were not given stay with the function's defaults."""
    accepted = inputs(rich).accept((), {"name": "a", "when": "2026-01-31", "colour": "blue", "points": [{"x": 1}]})
    assert accepted == {"name": "a", "when": dt.date(2026, 1, 31), "colour": Colour.BLUE, "points": [Point(x=1)]}


def test_python_callers_may_give_python_objects() -> None:
    """Models, enums and dates are taken as they are, and positions as names."""
    point, when = Point(x=1), dt.date(2026, 1, 31)
    accepted = inputs(rich).accept(("a", when), {"points": [point], "colour": Colour.RED})
    assert accepted == {"name": "a", "when": when, "points": [point], "colour": Colour.RED}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": 3}, """t: argument 'name': 3 is not of type "string\""""),
        ({"when": "soon"}, "t: argument 'when': Input should be a valid date or datetime"),
        ({"limit": 0}, "t: argument 'limit': 0 is less than the minimum of 1"),
        ({"limit": "3"}, """t: argument 'limit': "3" is not of type "integer\""""),
        ({"mode": "x"}, """t: argument 'mode': "x" is not one of "fast" or "slow\""""),
        ({"points": [{"x": "1"}]}, """t: argument 'points': "1" is not of type "integer\""""),
        ({"naem": 1}, "t: unknown argument 'naem'; did you mean 'name'? It takes: name, when, colour,"),
        ({"zzz": 1}, "t: unknown argument 'zzz'. It takes: name, when, colour,"),
        ({"name": object()}, "t: argument 'name': a object isn't JSON"),
        ({"name": float("nan")}, "t: argument 'name': "),
    ],
)
def test_errors_are_one_line_that_names_the_argument(wrong: dict[str, Any], message: str) -> None:
    """Whatever is wrong, a model reads which argument it was and what would be right."""
    said = refusal(rich, **{"name": "a", "when": "2026-01-31"} | wrong)
    assert said.startswith(message)
    assert len(said) <= 300


def test_what_is_missing_is_named() -> None:
    """All missing arguments are named at once."""
    assert refusal(rich) == "t: missing argument 'name', 'when'"


def test_positions_and_names() -> None:
    """Too many positions, and an argument given both ways, are refused by name."""

    def two(a: int, b: int = 0) -> None:
        """Two."""

    def none() -> None:
        """None."""

    assert refusal(two, 1, 2, 3) == "t takes 2 arguments, 3 were given"
    assert refusal(two, 1, a=1) == "t: argument 'a' was given twice"
    assert refusal(none, x=1) == "t: unknown argument 'x'. It takes none"


def test_a_long_message_is_cut() -> None:
    """What a model gave doesn't come back to it by the page."""

    def one(a: int) -> None:
        """One."""

    said = refusal(one, a="x" * 10_000)
    assert len(said) == 300
    assert said.endswith("...")


def unhinted(a, b: int) -> None:
    """No hint."""


def variadic(*rest: int) -> None:
    """Rest."""


def keywords(**rest: int) -> None:
    """Rest."""


def positional(a: int, /) -> None:
    """Positional."""


def field_default(a: int = Field(default=3)) -> None:
    """Field."""


def opaque(a: threading.Lock) -> None:  # type: ignore[name-defined]  # noqa: F821 - the point
    """Unknown name."""


def no_schema(a: inspect.Signature) -> None:
    """No JSON."""


def strange_default(a: Any = object()) -> None:  # noqa: B008 - the point
    """No JSON."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (unhinted, "tool 't': parameter 'a' has no type hint"),
        (variadic, "tool 't': parameter 'rest' collects any arguments; name each one"),
        (keywords, "tool 't': parameter 'rest' collects any arguments; name each one"),
        (positional, "tool 't': parameter 'a' is positional-only"),
        (field_default, r"parameter 'a' has Field\(...\) as its default; write `Annotated"),
        (opaque, "tool 't': a type hint can't be resolved: name 'threading' is not defined"),
        (no_schema, "tool 't': parameter 'a': its type has no JSON schema"),
        (strange_default, "tool 't': parameter 'a': its default, a object, isn't JSON"),
    ],
)
def test_functions_that_no_model_could_call(function: Any, message: str) -> None:
    """Refused when the tool is made, naming the parameter and saying what to write."""
    with pytest.raises(BadInput, match=message):
        inputs(function)


class Greeter:
    """A callable object, with a method and an async one."""

    def __call__(self, name: str) -> str:
        """Greet."""
        return name

    def method(self, name: str) -> str:
        """Greet."""
        return name

    async def later(self, name: str) -> str:
        """Greet."""
        return name


class AsyncGreeter:
    """An async callable object."""

    async def __call__(self, name: str) -> str:
        """Greet."""
        return name


@pytest.mark.parametrize(
    ("function", "asynchronous"),
    [
        (Greeter(), False),
        (Greeter().method, False),
        (Greeter().later, True),
        (AsyncGreeter(), True),
        (functools.partial(Greeter().method), False),
    ],
)
def test_anything_that_can_be_called(function: Any, asynchronous: bool) -> None:
    """Bound methods, callable objects and partials are functions too, and known as async where they are."""
    made = inputs(function)
    assert made.accept((), {"name": "ana"}) == {"name": "ana"}
    assert is_async(function) is asynchronous


def test_the_schema_of_the_result() -> None:
    """The output schema is that of the annotation; None where there is none, or none in JSON."""
    assert output_schema(list[int]) == {"items": {"type": "integer"}, "type": "array"}
    assert output_schema(None) == {"type": "null"}
    assert output_schema(inspect.Signature.empty) is output_schema(Any) is output_schema(inspect.Signature) is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y", "z"]), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(["a", "b", "c", "d", "other"])


def some(a: int, b: list[Point], c: Literal["u", "v"] | None = None, d: dict[str, float] | str = "") -> None:
    """Some."""


SOME = Inputs(some, "t")


@given(st.dictionaries(names, json_values, max_size=5))
def test_accepted_means_valid_for_schema_and_types(arguments: dict[str, Any]) -> None:
    """Whatever a model sends: it is accepted exactly when an independent validator of the published schema accepts it
    and
    every value fits its Python type; else it is refused in one line that names an argument.
    """
    valid = jsonschema.Draft202012Validator(SOME.schema).is_valid(arguments)
    try:
        accepted = SOME.accept((), dict(arguments))
    except InvalidArguments as error:
        assert not valid or "'" in str(error)
        assert "\n" not in str(error)
        if not valid:
            return
        raise AssertionError(f"the schema allows {arguments}") from error
    assert valid
    for name, value in accepted.items():
        TypeAdapter(SOME.hints[name]).validate_python(value, strict=True)


def test_arguments_that_are_changed_afterwards() -> None:
    """What was looked at is what the tool gets: later changes of what the caller gave don't reach it, at any depth."""

    def take(anything: Any, table: dict[str, Any], items: list[Any], point: Point) -> None:
        """Takes what can be changed."""

    given: dict[str, Any] = {
        "anything": {"a": [1]},
        "table": {"a": {"b": 1}},
        "items": [[1], {"c": (2, [3])}],
        "point": Point(x=1),
    }
    accepted = inputs(take).accept((), given)
    before = repr(accepted)
    given["anything"]["a"].append(2)
    given["table"]["a"]["b"] = 2
    given["items"][1]["c"][1].append(4)
    given["point"].x = 2
    assert repr(accepted) == before
