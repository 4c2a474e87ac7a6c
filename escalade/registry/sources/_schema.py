"""Input schemas that others wrote: looked through before they are used, and arguments checked by them.

A foreign schema is data of somebody we don't trust. References out of the document are refused (a validator would fetch
them), so are schemas of absurd size or depth. Patterns run on an engine of linear time.
"""

from __future__ import annotations

import inspect
import json
import keyword
import re
from collections.abc import Iterator
from typing import Any

from escalade.errors import BadInput, InvalidArguments
from escalade.registry.schema import Inputs

LARGEST = 4_000
"""Nodes of a schema, after its references were replaced by what they refer to."""

_DEEPEST = 40
_BYTES = 200_000
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"default", "enum", "const", "example", "examples"})
_IDENTITY = frozenset({"$schema", "$id", "id", "$anchor", "$comment", "$vocabulary"})
_REFUSED = frozenset({"$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor"})
_HINTS: dict[str, Any] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict,
}  # fmt: skip


class ForeignInputs(Inputs):
    """What an imported tool takes. Its arguments have Python names; `wire` has the names that the server knows.

    Differs from the schema of a function of ours in three points: values stay as they come; null for an optional
    argument that can't be null counts as left out (models and sandboxes fill in what was optional); a name that is no
    Python name has another one here. Raises BadInput for a schema that can't be used.
    """

    def __init__(self, schema: Any, tool: str) -> None:
        self.tool, self.output = tool, Any
        whole = inlined(schema, tool)
        foreign, needed = _members(whole)
        names = python_names(foreign)
        self.wire = dict(zip(names, foreign, strict=True))
        self._whole = {**whole, "type": "object"}
        required = [name for name in names if self.wire[name] in needed]
        self.properties: dict[str, Any] = {name: _as_object(foreign[self.wire[name]]) for name in names}
        self.schema = {
            "type": "object",
            "properties": self.properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }
        self._optional = {name for name in names if name not in required}
        self._validator = validator(self._whole, tool)
        self._nullable = {name for name in self._optional if validator(self.properties[name], tool).is_valid(None)}
        self.signature = _signature(self.properties, required)
        self._names = list(self.signature.parameters)
        self.hints: dict[str, Any] = {name: p.annotation for name, p in self.signature.parameters.items()}

    def accept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by their Python names. Raises InvalidArguments, one line that names the argument."""
        given = self._plain(self._by_name(args, kwargs) if args else kwargs)
        left_out = {n for n, v in given.items() if v is None and n in self._optional and n not in self._nullable}
        given = {name: value for name, value in given.items() if name not in left_out}
        if any(name not in self.wire for name in given) or not self._validator.is_valid(self.to_wire(given)):
            raise self._explained(given)
        return given

    def to_wire(self, values: dict[str, Any]) -> dict[str, Any]:
        """The arguments by the names that the server knows."""
        return {self.wire[name]: value for name, value in values.items()}

    def _explained(self, plain: dict[str, Any]) -> InvalidArguments:
        known = all(name in self.wire for name in plain)
        if known and all(name in plain for name in self.schema.get("required", ())):
            error = next(iter(self._validator.iter_errors(self.to_wire(plain))))
            return self._invalid(error.instance_path, error.message)
        return super()._explained(plain)


def inlined(schema: Any, tool: str, *, root: Any = None, whole: bool = True) -> dict[str, Any]:
    """The schema with its references replaced by what they refer to in `root`, itself by default.

    `whole`: it is one of all arguments. Raises BadInput, which says what is wrong.
    """
    if not isinstance(schema, dict):
        raise BadInput(f"tool {tool!r}: its schema is no object")
    if len(json.dumps(schema, default=str)) > _BYTES:
        raise BadInput(f"tool {tool!r}: its schema is too large")
    made = _inline(schema, schema if root is None else root, (), iter(range(LARGEST)), tool)
    if whole:
        _check_whole(made, tool)
    return made  # type: ignore[no-any-return]


def _check_whole(schema: dict[str, Any], tool: str) -> None:
    if schema.get("type", "object") != "object":
        raise BadInput(f"tool {tool!r}: the schema of its arguments isn't that of an object")
    for part in (schema, *_branches(schema)):
        if not isinstance(part.get("properties", {}), dict) or not isinstance(part.get("required", []), list):
            raise BadInput(f"tool {tool!r}: its schema can't be read")


def validator(schema: Any, tool: str) -> Any:
    """A validator that fetches nothing and takes linear time. Raises BadInput for what is no schema."""
    import jsonschema_rs

    try:
        return jsonschema_rs.Draft202012Validator(
            schema, pattern_options=jsonschema_rs.RegexOptions(), retriever=_refuse
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split("\n", 1)[0].split())[:200]
        raise BadInput(f"tool {tool!r}: its schema can't be used: {reason}") from None


def python_names(names: Any) -> list[str]:
    """A Python name for each: `page[size]` -> page_size, `from` -> from_."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"\W+", "_", str(name), flags=re.ASCII).strip("_") or "arg"
        plain = f"arg_{plain}" if plain[0].isdigit() else plain
        plain = f"{plain}_" if keyword.iskeyword(plain) else plain
        while plain in made:
            plain += "_"
        made.append(plain)
    return made


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        branch
        for key in ("allOf", "anyOf", "oneOf")
        for branch in (schema[key] if isinstance(schema.get(key), list) else [])
        if isinstance(branch, dict)
    ]


def _members(schema: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """All arguments that the schema knows, and the names of those that no call can do without."""
    members: dict[str, Any] = dict(schema.get("properties", {}))
    for branch in _branches(schema):
        members = {**branch.get("properties", {}), **members}
    sure = [schema, *(one for one in schema.get("allOf", ()) if isinstance(one, dict))]
    return members, {str(name) for one in sure for name in one.get("required", ()) if name in members}


def _as_object(schema: Any) -> dict[str, Any]:
    """`true` and `false` are schemas, too; models are shown objects."""
    return schema if isinstance(schema, dict) else {} if schema is True else {"not": {}}


def _refuse(uri: str) -> Any:
    raise ValueError(f"reference to {uri}")


def _inline(value: Any, root: dict[str, Any], inside: tuple[str, ...], budget: Iterator[int], tool: str) -> Any:
    if next(budget, None) is None or len(inside) > _DEEPEST:
        raise BadInput(f"tool {tool!r}: its schema is too large or too deep")
    if isinstance(value, list):
        return [_inline(item, root, (*inside, ""), budget, tool) for item in value]
    if not isinstance(value, dict):
        return value
    if not _REFUSED.isdisjoint(value):
        raise BadInput(f"tool {tool!r}: its schema has dynamic references")
    made: dict[str, Any] = {}
    if "$ref" in value:
        made = _referred(value["$ref"], root, inside, budget, tool)
    for key, item in value.items():
        if key in _IDENTITY or key == "$ref" or (key in {"$defs", "definitions"}):
            continue
        if key in _DATA:
            made[key] = item
        elif key in _MAPS and isinstance(item, dict):
            made[key] = {name: _inline(one, root, (*inside, ""), budget, tool) for name, one in item.items()}
        else:
            made[key] = _inline(item, root, (*inside, ""), budget, tool)
    return made


def _referred(
    reference: Any, root: dict[str, Any], inside: tuple[str, ...], budget: Iterator[int], tool: str
) -> dict[str, Any]:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise BadInput(f"tool {tool!r}: its schema refers to another document, which nobody fetches")
    if reference in inside:
        return {"description": f"again a {reference.rpartition('/')[2]}"}
    found: Any = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            raise BadInput(f"tool {tool!r}: its schema refers to {reference[:100]!r}, which isn't there")
        found = found[key]
    made = _inline(found, root, (*inside, reference), budget, tool)
    return made if isinstance(made, dict) else {}


def _signature(properties: dict[str, Any], required: list[str]) -> inspect.Signature:
    """Required arguments first, as Python wants it; by keyword all the same."""
    ordered = [*required, *(name for name in properties if name not in required)]
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if name in required else properties[name].get("default"),
            annotation=_hint(properties[name]),
        )
        for name in ordered
    ]
    return inspect.Signature(parameters)


def _hint(schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return _HINTS.get(kind, Any) if isinstance(kind, str) else Any
