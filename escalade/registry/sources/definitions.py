"""From a foreign definition to a tool of ours.

A definition is what another party says of its tool. It gives a name, a description and a schema, and nothing that
decides: what it costs, who may use it, how often, and what it does to the world is said by whoever imports it. Hints of
the other party (`readOnlyHint`) count only where the importer says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from escalade.errors import BadInput, UnknownName
from escalade.registry.canonical import digest
from escalade.registry.sources._schema import ForeignInputs
from escalade.registry.tools import SideEffects, ToolDefinition, ToolSpec

Call = Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]
"""Does it: takes the arguments by the names that the server knows."""

Said = Mapping[str, Any]
"""Fields of a ToolSpec: `side_effects`, `cost`, `limits`, `limits_per`, `permission`, `timeout`, `tags`, `owner`, …"""

LONGEST = 4_000
"""Characters of a description that models are shown."""

_OURS = frozenset(ToolSpec.model_fields) - {"input_schema", "output_schema"}


@dataclass(frozen=True)
class Definition:
    """A tool as its server describes it. `hints`: what it says of its effects, in the words of MCP."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = field(default_factory=dict)
    output_schema: dict[str, Any] | None = None
    hints: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """For the pins file; `Definition(**it)` is the definition again."""
        return {
            "name": self.name,
            "description": self.description,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "hints": self.hints,
        }

    def effect(self, *, trusted: bool) -> SideEffects:
        """The side effects: "irreversible", unless its hints are trusted and say less."""
        if trusted and self.hints.get("readOnlyHint") is True:
            return "read"
        if trusted and self.hints.get("destructiveHint") is False:
            return "write"
        return "irreversible"


class ForeignTool(ToolDefinition):
    """A tool whose function is a call to somebody else. `inputs` are the foreign ones."""

    __slots__ = ()

    def __init__(self, spec: ToolSpec, inputs: ForeignInputs, call: Call) -> None:
        async def function(**values: Any) -> Any:
            return await call(inputs.to_wire(values))

        super().__init__(function, spec, inputs)


def foreign_tool(definition: Definition, name: str, said: Said, inputs: ForeignInputs, call: Call) -> ForeignTool:
    """The tool as it is registered. Raises BadInput."""
    check_fields(said)
    description = definition.description
    if len(description) > LONGEST:
        description = f"{description[: LONGEST - 1]}…"
    fields: dict[str, Any] = {
        "description": description,
        **said,
        "name": name,
        "input_schema": inputs.schema,
        "output_schema": definition.output_schema,
    }
    try:
        return ForeignTool(ToolSpec(**fields), inputs, call)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(": ".join(part for part in (f"tool {name!r}", where, message) if part)) from None


def check_fields(said: Said) -> None:
    """Raises UnknownName for what is no field of a tool that an importer may say."""
    unknown = sorted(set(said) - _OURS)
    if unknown:
        raise UnknownName("field of a tool", unknown[0], sorted(_OURS))


def our_name(prefix: str, foreign: str) -> str:
    """`searchIssues` of "github" -> `github.search_issues`.

    >>> our_name("github", "searchIssues"), our_name("crm", "/v2/users/{id}"), our_name("", "get-user")
    ('github.search_issues', 'crm.v2_users_id', 'get_user')
    """
    snake = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", foreign)
    plain = re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_") or "tool"
    plain = f"tool_{plain}" if not plain[0].isalpha() else plain
    return f"{prefix}.{plain}" if prefix else plain


def our_names(prefix: str, foreign: Iterable[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """Foreign name -> ours. `renamed`: what was chosen by hand. Raises BadInput when two become one."""
    names: dict[str, str] = {}
    for one in foreign:
        name = renamed.get(one) or our_name(prefix, one)
        twin = next((other for other, taken in names.items() if taken == name), None)
        if twin is not None:
            raise BadInput(f"{twin!r} and {one!r} would both be {name!r}; say {{{one!r}: {{'name': '…'}}}}")
        names[one] = name
    return names


def chosen(
    tools: Iterable[str] | Mapping[str, Said] | str, offered: Iterable[str], skipped: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What is imported: names, or names with fields of their own; "*" for all. `skipped`: what can't be a tool, and
    why. Raises UnknownName, BadInput.
    """
    known = list(offered)
    if isinstance(tools, str):
        if tools != "*":
            raise BadInput(f'tools: expected names, or "*" for all that there are, got {tools!r}')
        return {name: {} for name in known}
    wanted = (
        {name: dict(said) for name, said in tools.items()} if isinstance(tools, Mapping) else {n: {} for n in tools}
    )
    for name in wanted:
        if name in skipped and name not in known:
            raise BadInput(f"{name!r} can't be a tool: {skipped[name]}")
        if name not in known:
            raise UnknownName("tool of the server", name, known)
    return wanted
