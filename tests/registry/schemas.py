"""Random JSON schemas and values that fit them, for the tests of the gate on versions."""

from __future__ import annotations

import copy
import random
from typing import Any

import jsonschema_rs

NAMES = ["a", "b", "c"]
WORDS = ["", "x", "yy", "zzz", "wwww", "red", "blue"]


def some_schema(rng: random.Random, depth: int = 2) -> Any:
    """A schema of the kinds that type hints give, small enough that two of them often have to do with each other."""
    kind = rng.choice(["integer", "number", "string", "boolean", "null", "enum", "anyOf", "list"] + (
        ["array", "object", "object", "tuple"] if depth else []
    ))  # fmt: skip
    make = {
        "integer": _numbers, "number": _numbers, "string": _strings, "array": _arrays, "object": _objects,
    }.get(kind)  # fmt: skip
    if make:
        return make(rng, kind, depth)
    if kind == "enum":
        return {"enum": rng.sample([*WORDS, 1, 2, None, True], rng.randint(1, 4))}
    if kind == "anyOf":
        return {rng.choice(["anyOf", "anyOf", "oneOf"]): [some_schema(rng, max(0, depth - 1)) for _ in range(2)]}
    if kind == "list":  # of types, as some APIs write it
        return {**_numbers(rng, "integer", 0), "type": ["integer", "string"]}
    if kind == "tuple":
        items = [some_schema(rng, depth - 1) for _ in range(2)]
        return {"type": "array", "prefixItems": items, "minItems": 2, "maxItems": rng.choice([2, 3])}
    return {"type": kind}


def _numbers(rng: random.Random, kind: str, _: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": kind}
    for word in ("minimum", "exclusiveMinimum"):
        if rng.random() < 0.25:
            schema[word] = rng.choice([-1, 0, 0.5, 1, 2])
    for word in ("maximum", "exclusiveMaximum"):
        if rng.random() < 0.25:
            schema[word] = rng.choice([1, 1.5, 2, 3, 8])
    if rng.random() < 0.2:
        schema["multipleOf"] = rng.choice([1, 2, 4])
    return schema


def _strings(rng: random.Random, kind: str, _: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": kind}
    if rng.random() < 0.3:
        schema["minLength"] = rng.randint(0, 2)
    if rng.random() < 0.3:
        schema["maxLength"] = rng.randint(2, 4)
    if rng.random() < 0.15:
        schema["pattern"] = rng.choice(["^x", "z$"])
    return schema


def _arrays(rng: random.Random, kind: str, depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": kind, "items": some_schema(rng, depth - 1)}
    if rng.random() < 0.3:
        schema["maxItems"] = rng.randint(0, 3)
    if rng.random() < 0.2:
        schema["minItems"] = rng.randint(0, 2)
    if rng.random() < 0.2:
        schema["uniqueItems"] = True
    return schema


def _objects(rng: random.Random, kind: str, depth: int) -> dict[str, Any]:
    names = rng.sample(NAMES, rng.randint(0, 3))
    schema: dict[str, Any] = {"type": kind, "properties": {name: some_schema(rng, depth - 1) for name in names}}
    required = [name for name in names if rng.random() < 0.5]
    if required:
        schema["required"] = required
    if rng.random() < 0.6:
        schema["additionalProperties"] = rng.choice([False, False, some_schema(rng, 0)])
    return schema


def changed(rng: random.Random, schema: Any) -> Any:
    """A schema that differs in one or two places, wider or narrower."""
    changed_schema = copy.deepcopy(schema)
    for _ in range(rng.randint(1, 2)):
        place = rng.choice(list(_places(changed_schema)))
        _change(rng, place)
    return changed_schema


def _places(schema: Any) -> Any:
    if isinstance(schema, dict):
        yield schema
        for word in ("properties",):
            for one in schema.get(word, {}).values():
                yield from _places(one)
        for word in ("items", "additionalProperties"):
            yield from _places(schema.get(word))
        for word in ("anyOf", "oneOf", "prefixItems"):
            for one in schema.get(word, []):
                yield from _places(one)


def _change(rng: random.Random, schema: dict[str, Any]) -> None:  # noqa: C901 - one case per keyword
    word = rng.choice([*schema, "more"])
    if word == "more" or rng.random() < 0.2:
        other = some_schema(rng, 1)
        if rng.random() < 0.5:
            inner = dict(schema)
            schema.clear()
            schema["anyOf"] = [inner, other]
        elif isinstance(other, dict) and other.get("type") == schema.get("type"):
            schema.update(other)
        elif schema.get("type") == "object":
            schema.setdefault("properties", {})[rng.choice(NAMES)] = other
    elif word == "enum":
        schema["enum"] = rng.choice([schema["enum"][:-1] or ["x"], [*schema["enum"], "new"]])
    elif isinstance(schema[word], int | float) and not isinstance(schema[word], bool):
        schema[word] = max(0, schema[word] + rng.choice([-1, 1])) if word != "multipleOf" else rng.choice([1, 2, 4])
    elif word == "required":
        schema["required"] = rng.sample(list(schema["properties"]), rng.randint(0, len(schema["properties"])))
    elif word == "properties":
        if schema["properties"]:
            gone = rng.choice(list(schema["properties"]))
            del schema["properties"][gone]
            schema["required"] = [name for name in schema.get("required", []) if name != gone]
    elif word != "type":
        del schema[word]


def some_value(rng: random.Random, schema: Any, depth: int = 3) -> Any:  # noqa: PLR0911 - one per type
    """A value that is likely to fit, often at an edge. Objects have no names that the schema doesn't declare."""
    if not isinstance(schema, dict) or not schema or depth < 0:
        return rng.choice([0, 1, "x", None, True, 1.5, [], {}])
    if "enum" in schema:
        return rng.choice(schema["enum"]) if schema["enum"] else None
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return some_value(rng, rng.choice(schema[word]), depth)
    kind = schema.get("type", "string")
    kind = rng.choice(kind) if isinstance(kind, list) else kind
    if kind in {"integer", "number"}:
        edges = [schema[w] for w in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum") if w in schema]
        value = rng.choice([*edges, -3, 0, 1, 2, 4, 7, 100]) + rng.choice([-1, 0, 0, 1, 0.5 if kind == "number" else 0])
        return int(value) if kind == "integer" or rng.random() < 0.3 else value
    if kind == "string":
        return rng.choice([*WORDS, "x" * schema.get("maxLength", 5), "x" * schema.get("minLength", 0), "xz"])
    if kind == "array":
        first = [some_value(rng, one, depth - 1) for one in schema.get("prefixItems", [])]
        more = rng.randint(0, schema.get("maxItems", 3)) if not first else rng.randint(0, 1)
        return first + [some_value(rng, schema.get("items", True), depth - 1) for _ in range(more)]
    if kind == "object":
        return _object(rng, schema, depth)
    return {"boolean": rng.random() < 0.5, "null": None}[kind]


def _object(rng: random.Random, schema: dict[str, Any], depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    found = {
        name: some_value(rng, one, depth - 1)
        for name, one in schema.get("properties", {}).items()
        if name in required or rng.random() < 0.5
    }
    more = schema.get("additionalProperties", not schema.get("properties"))
    if more is not False and rng.random() < 0.5:
        found.setdefault(rng.choice([*NAMES, "d"]), some_value(rng, more, depth - 1))
    return found


def fits(schema: Any, value: Any) -> bool:
    """Does it, by a validator of somebody else's?"""
    return bool(jsonschema_rs.Draft202012Validator(schema).is_valid(value))
