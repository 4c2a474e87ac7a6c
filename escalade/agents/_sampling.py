"""Seeded chance for the simulated world, and values that fit a JSON schema.

All chance is a hash of what it is about, not a stream of random numbers: the same question gives the same draw whatever
was asked before it, on any thread, in any process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

_STEPS = 2**64
_NORMAL = NormalDist()

Schema = Mapping[str, Any]
Text = Callable[[str], str]
"""Name of a field -> a text to put there."""


def number(*about: object) -> int:
    """64 hashed bits of what it is about."""
    text = "\x1f".join(map(str, about)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def unit(*about: object) -> float:
    """Uniform in 0 < u < 1."""
    return (number(*about) + 0.5) / _STEPS


def normal(*about: object) -> float:
    """Standard normal."""
    return _NORMAL.inv_cdf(min(max(unit(*about), 1e-12), 1 - 1e-12))


def logistic(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


def logit(p: float) -> float:
    """Inverse of `logistic`; p is kept within 0.001..0.999, so that a certainty can still be argued with."""
    p = min(max(p, 0.001), 0.999)
    return math.log(p / (1 - p))


def fit(answer: str, schema: Schema, defs: Schema | None = None) -> Any:
    """The answer in the type that a schema asks for; None where it doesn't fit it at all.

    A list holds the answer as its only item. What is inside of objects is up to `fill`.
    """
    schema, defs = resolved(schema, defs)
    if "enum" in schema or "const" in schema:
        options = schema.get("enum", [schema.get("const")])
        return next((o for o in options if str(o).casefold() == answer.strip().casefold()), None)
    kind = schema.get("type", "string")
    if kind == "string":
        return answer
    if kind == "boolean":
        return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}.get(answer.lower())
    if kind in {"integer", "number"}:
        return _numeric(answer, kind)
    if kind == "array":
        item = fit(answer, schema.get("items", {}), defs)
        return None if item is None else [item]
    return None


def _numeric(answer: str, kind: str) -> int | float | None:
    try:
        value = float(answer.replace(",", ""))
    except ValueError:
        return None
    return int(value) if kind == "integer" else value


def fill(
    schema: Schema, name: str, seed: int, text: Text, answer: str | None = None, defs: Schema | None = None
) -> Any:
    """A value that the schema accepts: texts by `text`, choices by `seed`, the answer where it fits.

    Recursion through `$ref` ends where a property is optional, an item of a list, or may be null.
    """
    return _Filler(seed, text, answer).value(*resolved(schema, defs), name, 0)


class _Filler:
    """One pass over a schema. The answer is used up by the first place that takes it."""

    def __init__(self, seed: int, text: Text, answer: str | None) -> None:
        self._seed, self._text, self._answer = seed, text, answer

    def value(self, schema: Schema, defs: Schema, name: str, depth: int) -> Any:
        if self._answer is not None and (fitted := fit(self._answer, schema, defs)) is not None:
            self._answer = None
            return fitted
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self._seed % len(schema["enum"])]
        kind = schema.get("type", "string" if "properties" not in schema else "object")
        if kind == "object":
            return self._object(schema, defs, depth)
        if kind == "array":
            items = schema.get("prefixItems") or [schema.get("items", {})] * max(1, schema.get("minItems", 1))
            return [] if depth > 4 else [self._inner(item, defs, name, depth) for item in items]
        return self._scalar(kind, schema, name)

    def _object(self, schema: Schema, defs: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        wanted = properties if depth < 4 else schema.get("required", ())
        first = [p for p in properties if p == "answer"]
        values = {
            p: self._inner(properties[p], defs, p, depth) for p in [*first, *(p for p in wanted if p != "answer")]
        }
        return {p: values[p] for p in properties if p in values}

    def _inner(self, schema: Schema, defs: Schema, name: str, depth: int) -> Any:
        if depth > 1 and {"type": "null"} in schema.get("anyOf", ()):
            return None  # a person's boss's boss need not have one
        return self.value(*resolved(schema, defs), name, depth + 1)

    def _scalar(self, kind: Any, schema: Schema, name: str) -> Any:
        low, high = schema.get("minimum", schema.get("exclusiveMinimum", 0)), schema.get("maximum")
        if kind == "integer":
            value = int(low) + 1 + self._seed % 7
            return value if high is None else min(value, int(high))
        if kind == "number":
            return round(low + 0.5 if high is None else low + (high - low) * 0.75, 4)
        return {"boolean": self._seed % 2 == 0, "null": None}[kind] if kind in {"boolean", "null"} else self._text(name)


def resolved(schema: Schema, defs: Schema | None) -> tuple[Schema, Schema]:
    """Without `$ref` and unions: the first alternative that isn't null. With all definitions known so far."""
    known = {**(defs or {}), **schema.get("$defs", {})} if "$defs" in schema else (defs or {})
    for _ in range(8):
        if "$ref" in schema:
            schema = known.get(schema["$ref"].rsplit("/", 1)[-1], {})
        elif union := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            schema = next((s for s in union if s.get("type") != "null"), union[0])
        else:
            break
    if isinstance(schema.get("type"), list):
        schema = {**schema, "type": next((t for t in schema["type"] if t != "null"), "null")}
    return schema, known
