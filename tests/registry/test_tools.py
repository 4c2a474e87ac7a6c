"""Tools: what the decorator makes of a function, and what it refuses."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from escalade import ToolSpec, tool
from escalade.errors import BadInput, ToolError
from escalade.money import Money
from escalade.registry.limits import RateLimit
from escalade.registry.tools import ToolDefinition


@tool
def search(query: str, limit: int = 10) -> list[str]:
    """Customers whose name

    contains the query.
    """
    return [query] * limit


@tool(
    name="mail.send",
    version="2.1.0-rc.1",
    description="Sends.",
    cost="0.002",
    limits="5/s, 100/min",
    limits_per="user",
    permission="mail:write",
    side_effects="irreversible",
    timeout=5,
    tags=["mail", "out"],
    owner="ops",
)
async def send(to: str) -> None:
    """Not this one."""


def test_bare() -> None:
    """Without arguments: the function's name, its docstring, its hints, free of charge, and careful assumptions."""
    spec = search.spec
    assert (spec.name, spec.version, spec.label) == ("search", "1.0.0", "search@1.0.0")
    assert spec.description == "Customers whose name\n\ncontains the query."
    assert spec.input_schema["required"] == ["query"]
    assert spec.output_schema == {"items": {"type": "string"}, "type": "array"}
    assert (spec.cost, spec.limits, spec.permission) == (Money(0), (), "search:call")
    assert (spec.side_effects, spec.timeout, spec.tags, spec.owner) == ("write", None, (), "")
    assert not search.is_async


def test_with_everything_said() -> None:
    """All fields as they were given, in their own types."""
    spec = send.spec
    assert (spec.label, spec.model_name, spec.description) == ("mail.send@2.1.0-rc.1", "mail_send", "Sends.")
    assert (spec.cost, spec.limits) == (Money.of("0.002"), (RateLimit(5, 1), RateLimit(100, 60)))
    assert (spec.limits_per, spec.permission, spec.side_effects) == ("user", "mail:write", "irreversible")
    assert (spec.timeout, spec.tags, spec.owner) == (5.0, ("mail", "out"), "ops")
    assert spec.output_schema == {"type": "null"}
    assert send.is_async


@pytest.mark.parametrize(
    ("cost", "expected"), [("0.1", 10**8), (Decimal("0.1"), 10**8), (Money(3), 3), (None, None), ("0", 0)]
)
def test_costs(cost: Any, expected: int | None) -> None:
    """Nothing said is free; None is unknown, which is something else."""

    def free() -> None:
        """Free."""

    assert tool(cost=cost)(free).spec.cost == expected


def test_a_definition_can_not_be_called() -> None:
    """There is no way around the guard by the decorated name, and the error says where to go."""
    with pytest.raises(ToolError, match=r"tool search@1.0.0 is used through a registry.*get_tool\('search'\)"):
        search(query="x")
    with pytest.raises(ToolError):
        send("x")
    assert not hasattr(search, "func")
    assert not hasattr(search, "__wrapped__")


def test_a_definition_does_not_change() -> None:
    """Neither the definition nor its spec can be changed, and copies are the thing itself."""
    with pytest.raises(AttributeError, match=r"search@1.0.0 is immutable; publish a new version"):
        search.spec = send.spec  # type: ignore[misc]
    with pytest.raises(ValidationError):
        search.spec.cost = None  # type: ignore[misc]
    assert copy.copy(search) is search
    assert copy.deepcopy(search) is search
    assert repr(search) == "<tool search@1.0.0>"


def test_the_undecorated_function_stays_callable() -> None:
    """Who wants to test the function itself decorates another name."""

    def double(x: int) -> int:
        """Double."""
        return 2 * x

    assert isinstance(tool(double), ToolDefinition)
    assert double(2) == 4


def generator(n: int) -> Any:
    """Yield."""
    yield n


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": "Crm.Search"}, "name: 'Crm.Search' is not a tool name; write it like 'crm.search'"),
        ({"name": "crm..search"}, "is not a tool name"),
        ({"name": "crm search"}, "is not a tool name"),
        ({"name": "x" * 65}, "at most 64 characters"),
        ({"name": "import"}, "it is a word of Python"),
        ({"name": "finish"}, "ReAct replaces a tool of that name"),
        ({"name": "submit"}, "ReActV2 has a tool of that name"),
        ({"name": "llm.query"}, "RLM has a function of that name"),
        ({"version": "1.2"}, "version: not a semantic version: '1.2'"),
        ({"version": "1.2.3+b"}, "build metadata"),
        ({"cost": 0.1}, "cost: not an amount of dollars: 0.1"),
        ({"cost": "-1"}, r"cost: a cost can't be negative: -\$1"),
        ({"limits": "often"}, "limits: not a rate limit: 'often'"),
        ({"limits_per": "planet"}, "limits_per: Input should be 'resource', 'tenant' or 'user'"),
        ({"side_effects": "some"}, "side_effects: Input should be 'none', 'read', 'write' or 'irreversible'"),
        ({"timeout": 0}, "timeout: Input should be greater than 0"),
        ({"tags": "crm"}, r"tags: expected a list, \['crm'\]"),
        ({"approval": "sometimes"}, "approval: expected 'always', or a condition like"),
        ({"nmae": "x"}, "unknown field 'nmae'; did you mean 'name'"),
        ({"retries": 2}, "tool 'tidy': retries are for what may be done twice"),
    ],
)
def test_what_the_decorator_refuses(said: dict[str, Any], message: str) -> None:
    """Each bad argument is refused in one line that names the tool and the field."""

    def tidy(x: int) -> int:
        """Tidy."""
        return x

    with pytest.raises(BadInput, match=message) as caught:
        tool(**said)(tidy)
    assert str(caught.value).startswith(f"tool {said.get('name', 'tidy')!r}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_tool() -> None:
    """A generator gives no one answer; a tool of a tool, and a thing that can't be called, are mistakes."""

    class Generator:
        def __call__(self, x: int) -> Any:
            yield x

    for made in (generator, Generator()):
        with pytest.raises(BadInput, match="tool 'generator' is a generator; return a list"):
            tool(made)
    for thing in (search, 3):
        with pytest.raises(BadInput, match="@tool takes a function"):
            tool(thing)  # type: ignore[call-overload]


def test_a_spec_reads_back() -> None:
    """A spec dumped as JSON is the same spec when it is read."""
    for spec in (search.spec, send.spec):
        assert ToolSpec.model_validate_json(spec.model_dump_json()) == spec
