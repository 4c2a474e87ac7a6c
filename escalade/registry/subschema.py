"""Does one JSON schema take all that another one takes? Decided by structure, on the careful side.

`misfits` finds nothing only if every value that fits the narrow schema fits the wide one. What it can't decide
(patterns that differ, `not`, `if`) counts as a misfit, unless both say the same. One thing is taken for granted: nobody
gives or returns names that a schema with `properties` doesn't declare, unless it says `additionalProperties`. An open
object would otherwise never get a new field.
"""

from __future__ import annotations

import functools
import json
import math
import re
from typing import Any

from escalade.registry.canonical import canonical

Misfits = list[tuple[str, str]]

_MOST = 5_000
"""Pairs of schemas, before one gives up."""

_ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator",
     "$comment", "$schema", "$id", "$defs", "definitions")
)  # fmt: skip
_BY_TYPE: dict[str, frozenset[str]] = {
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "string": frozenset(("minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType")),
    "array": frozenset(
        ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains")
    ),
    "object": frozenset(
        ("properties", "required", "additionalProperties", "minProperties", "maxProperties", "patternProperties",
         "propertyNames")
    ),
}  # fmt: skip
_LOWER = ("minLength", "minItems", "minProperties")
_UPPER = ("maxLength", "maxItems", "maxProperties")
_SAME = ("pattern", "format", "contentEncoding", "contentMediaType", "contains", "minContains", "maxContains",
         "patternProperties", "propertyNames")  # fmt: skip
_STRUCTURE = frozenset(("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"))
_KNOWN = _STRUCTURE.union(*_BY_TYPE.values())
_TYPES = ("null", "boolean", "number", "string", "array", "object")
_ELSEWHERE = re.compile(rb'"\$unresolved"|"\$ref":"(?!#/\$defs/|#/definitions/)')
_NEVER: dict[str, Any] = {"enum": []}


def misfits(narrow: Any, wide: Any) -> Misfits:
    """Where a value that fits `narrow` may not fit `wide`, as (path, what); empty: each value that fits the one fits
    the other.

    >>> misfits({"type": "integer", "minimum": 1}, {"type": "number"})
    []
    >>> misfits({"type": "string"}, {"type": "string", "maxLength": 8})
    [('', 'maxLength: none -> 8')]
    """
    return _Comparison(narrow, wide).of(narrow, wide, "")


class _Comparison:
    """Of two schemas with definitions of their own."""

    def __init__(self, narrow: Any, wide: Any) -> None:
        self._roots = (narrow, wide)
        self._assumed: set[tuple[bytes, bytes]] = set()
        self._steps = 0

    def of(self, narrow: Any, wide: Any, path: str) -> Misfits:
        narrow, wide = self._looked_up(narrow, 0), self._looked_up(wide, 1)
        if wide == {} or narrow == _NEVER:
            return []
        pair = (canonical(narrow), canonical(wide))
        if pair in self._assumed or self._identical(narrow, wide):
            return []  # a schema that contains itself fits if the rest of it does
        self._steps += 1
        if self._steps > _MOST:
            return [(path, "is too large to be compared")]
        before = set(self._assumed)
        self._assumed.add(pair)
        found = self._split(narrow, wide, path)
        if found:
            self._assumed = before  # with all that was found to fit because of it
        return found

    def _identical(self, one: Any, other: Any) -> bool:
        text = canonical(one)
        if text != canonical(other):
            return False
        return b'"$ref"' not in text or _definitions(self._roots[0]) == _definitions(self._roots[1])

    def _looked_up(self, schema: Any, side: int) -> dict[str, Any]:
        """Without annotations, and with its reference replaced by what it stands for."""
        seen: set[str] = set()
        while True:
            if isinstance(schema, bool):
                return {} if schema else _NEVER
            schema = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
            reference = schema.get("$ref")
            if not isinstance(reference, str) or reference in seen:
                return dict(schema)
            seen.add(reference)
            target = _resolved(self._roots[side], reference)
            rest = _without(schema, "$ref")
            schema = {"allOf": [target, rest]} if rest else target

    def _split(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        """Take alternatives and conjunctions apart, until `narrow` is of one type."""
        for one in wide.get("allOf", ()):
            found = self.of(narrow, one, path)
            if found:
                return found
        wide = _without(wide, "allOf")
        if "enum" in narrow or "const" in narrow:
            return self._values(narrow, wide, path)
        for word in ("anyOf", "oneOf"):
            if word in narrow:
                rest = _without(narrow, word)
                parts = [{"allOf": [one, rest]} if rest else one for one in narrow[word]]
                return [misfit for part in parts for misfit in self.of(part, wide, path)]
        if "allOf" in narrow:
            return self._conjunction(narrow, wide, path)
        types = _types(narrow)
        if len(types) != 1:
            return [m for one in types for m in self.of({**_for_type(narrow, one), "type": one}, wide, path)]
        return self._one_type(narrow, wide, types[0], path)

    def _conjunction(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        """All of `narrow` hold: merged where keywords don't meet, else one of them has to fit alone."""
        parts = [self._looked_up(one, 0) for one in (*narrow["allOf"], _without(narrow, "allOf"))]
        merged: dict[str, Any] = {}
        for part in parts:
            if any(key in merged and merged[key] != value for key, value in part.items()):
                break
            merged |= part
        else:
            return self.of(merged, wide, path)
        tried = [self.of(part, wide, path) for part in parts if part]
        return min(tried, key=len, default=[])

    def _values(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        """A list of values: each is tried."""
        values = narrow.get("enum", [narrow.get("const")])
        texts = [canonical(_with_definitions(one, self._roots[i])) for i, one in enumerate((narrow, wide))]
        fits, taken = (None if _ELSEWHERE.search(text) else _validator(text) for text in texts)
        if fits is None or taken is None:
            return [(path, "has another schema, which can't be compared")]
        lost = [value for value in values if fits.is_valid(value) and not taken.is_valid(value)]
        return [(path, f"no longer takes {', '.join(map(repr, lost))}")] if lost else []

    def _one_type(self, narrow: dict[str, Any], wide: dict[str, Any], kind: str, path: str) -> Misfits:
        for key, value in wide.items():
            if key not in _KNOWN and not (key in narrow and self._identical(narrow[key], value)):
                return [(path, f"has another {key!r}, which can't be compared")]
        if "enum" in wide or "const" in wide:
            return self._listed(narrow, wide, kind, path)
        for word in ("anyOf", "oneOf"):
            if word in wide:
                return self._alternatives(narrow, wide, word, path)
        allowed = _types(wide)
        if kind not in allowed and not (kind == "integer" and "number" in allowed):
            return [(path, f"type: {_shown(narrow)} -> {_shown(wide)}")]
        if kind in {"integer", "number"}:
            return _numbers(narrow, wide, path)
        checks = {"string": self._bounds, "array": self._array, "object": self._object}
        check = checks.get(kind)
        return check(narrow, wide, path) if check else []

    def _listed(self, narrow: dict[str, Any], wide: dict[str, Any], kind: str, path: str) -> Misfits:
        """Only null and boolean have few enough values to be found in a list."""
        values: dict[str, list[Any]] = {"null": [None], "boolean": [True, False]}
        if kind in values:
            return self._values({"enum": values[kind]}, wide, path)
        listed = wide.get("enum", [wide.get("const")])
        return [(path, f"any {_shown(narrow)} -> one of {', '.join(map(repr, listed))}")]

    def _alternatives(self, narrow: dict[str, Any], wide: dict[str, Any], word: str, path: str) -> Misfits:
        """It must fit one of them as a whole; with `oneOf`, also none of the others."""
        rest = _without(wide, word)
        found = self.of(narrow, rest, path) if rest else []
        if found:
            return found
        tried = [self.of(narrow, one, path) for one in wide[word]]
        options = [self._looked_up(one, 1) for one in wide[word]]
        fitting = next((i for i, misses in enumerate(tried) if not misses), None)
        if fitting is not None:
            others = options[:fitting] + options[fitting + 1 :]
            if word == "anyOf" or all(_apart(narrow, other) for other in others):
                return []
            return [(path, "may fit more than one alternative, of which only one may fit")]
        near = [misses for misses, one in zip(tried, options, strict=True) if _meet(_kinds(narrow), _kinds(one))]
        return near[0] if len(near) == 1 else [(path, f"type: {_shown(narrow)} -> {_shown(wide)}")]

    def _bounds(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        """Lengths, counts, and what can only be compared by being the same."""
        tighter = [word for word in _LOWER if wide.get(word, 0) > narrow.get(word, 0)]
        tighter += [word for word in _UPPER if word in wide and wide[word] < narrow.get(word, math.inf)]
        tighter += [
            word
            for word in _SAME
            if word in wide and not (word in narrow and self._identical(narrow[word], wide[word]))
        ]
        return [(path, f"{word}: {narrow.get(word, 'none')} -> {wide[word]}") for word in tighter]

    def _array(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        found = self._bounds(narrow, wide, path)
        if wide.get("uniqueItems") and not narrow.get("uniqueItems"):
            found.append((path, "items must be unique now"))
        first, others = narrow.get("prefixItems", []), wide.get("prefixItems", [])
        longest = narrow.get("maxItems", math.inf)
        places = max(len(first), len(others))
        for i in range(int(min(places, longest))):
            one = first[i] if i < len(first) else narrow.get("items", True)
            other = others[i] if i < len(others) else wide.get("items", True)
            found += self.of(one, other, _below(path, str(i)))
        if longest > places:
            found += self.of(narrow.get("items", True), wide.get("items", True), f"{path}[]")
        return found

    def _object(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        patterns = narrow.get("patternProperties")
        if patterns and not self._identical(patterns, wide.get("patternProperties")):
            return [(path, "has other patternProperties, which can't be compared")]
        found = self._bounds(narrow, wide, path)
        have, take = narrow.get("properties", {}), wide.get("properties", {})
        more, rest = narrow.get("additionalProperties", not have), wide.get("additionalProperties", True)
        for name in dict.fromkeys([*have, *take]):
            below = _below(path, name)
            if name not in take and rest is False:
                found += [] if have[name] is False else [(below, "was removed")]
            else:
                found += self.of(have.get(name, more), take.get(name, rest), below)
        required = [name for name in wide.get("required", ()) if name not in narrow.get("required", ())]
        found += [(_below(path, name), "became required") for name in required]
        if more is not False and rest is False:
            return [*found, (path, "takes no other names any more")]
        return found + (self.of(more, rest, _below(path, "*")) if more is not False else [])


def _numbers(narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
    """Bounds, and steps that are multiples."""
    found = []
    whole = narrow.get("type") == "integer"
    for plain, strict, sign in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        have, want = (_bound(schema, plain, strict, sign, whole=whole) for schema in (narrow, wide))
        if want > have:
            alone = {strict: wide[strict]} if strict in wide else {}
            word = strict if _bound(alone, plain, strict, sign, whole=whole) == want else plain
            found.append((path, f"{word}: {narrow.get(plain, narrow.get(strict, 'none'))} -> {wide[word]}"))
    step, had = wide.get("multipleOf"), narrow.get("multipleOf")
    multiple = isinstance(step, int) and isinstance(had, int) and had % step == 0
    if step not in {None, had} and not multiple and not (whole and step == 1):
        found.append((path, f"multipleOf: {'none' if had is None else had} -> {step}"))
    return found


def _bound(schema: dict[str, Any], plain: str, strict: str, sign: int, *, whole: bool) -> tuple[float, int]:
    """A lower bound to compare, the strict one of a number above the other one; upper bounds are mirrored. Whole
    numbers have a next one, and so no strict bounds.
    """
    bounds = [(sign * schema[word], rank) for word, rank in ((plain, 0), (strict, 1)) if word in schema]
    if whole:
        bounds = [(math.floor(value) + 1 if rank else math.ceil(value), 0) for value, rank in bounds]
    return max(bounds, default=(-math.inf, 0))


def _types(schema: dict[str, Any]) -> list[str]:
    said = schema.get("type", list(_TYPES))
    return said if isinstance(said, list) else [said]


def _kinds(schema: Any) -> list[str]:
    """The types that its values can have, at most."""
    if not isinstance(schema, dict):
        return list(_TYPES)
    if "enum" in schema or "const" in schema:
        return [_kind(value) for value in schema.get("enum", [schema.get("const")])]
    for word in ("anyOf", "oneOf"):
        if word in schema and "type" not in schema:
            return [kind for one in schema[word] for kind in _kinds(one)]
    return _types(schema)


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    kinds = {int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _for_type(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    """Without the keywords that say something of other types."""
    own = _BY_TYPE.get("number" if kind == "integer" else kind, frozenset())
    others = frozenset[str]().union(*_BY_TYPE.values()) - own
    return {key: value for key, value in schema.items() if key not in others}


def _meet(one: list[str], other: list[str]) -> bool:
    numbers = {"integer", "number"}
    return bool(set(one) & set(other)) or bool(numbers & set(one) and numbers & set(other))


def _apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Is there surely no value that fits both? By type, or by a name that must be there with another value."""
    if not _meet(_kinds(one), _kinds(other)):
        return True
    there = set(one.get("required", ())) & set(other.get("required", ()))
    named = [(_choices(one, name), _choices(other, name)) for name in there]
    return _types(one) == _types(other) == ["object"] and any(a and b and not a & b for a, b in named)


def _choices(schema: dict[str, Any], name: str) -> set[bytes]:
    """The values that an object's property can have, as text; empty where they aren't listed."""
    found = schema.get("properties", {}).get(name)
    values = found.get("enum", [found["const"]] if "const" in found else []) if isinstance(found, dict) else []
    return {canonical(value) for value in values}


def _without(schema: dict[str, Any], word: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != word}


def _shown(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "any"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(map(_shown, schema[word])))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    said = schema.get("type", "any")
    return " or ".join(said) if isinstance(said, list) else str(said)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _definitions(root: Any) -> Any:
    return root.get("$defs", root.get("definitions", {})) if isinstance(root, dict) else {}


def _resolved(root: Any, reference: str) -> Any:
    """What a reference within the schema stands for; one that leads elsewhere is like nothing but itself."""
    unknown = {"$unresolved": reference}
    target = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or name not in target:
            return unknown
        target = target[name]
    return target if reference.startswith("#") else unknown


def _with_definitions(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    kept = {key: root[key] for key in ("$defs", "definitions") if isinstance(root, dict) and key in root}
    return {**schema, **kept}


@functools.lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.Draft202012Validator(json.loads(schema))
    except (ValueError, jsonschema_rs.ReferencingError):  # no schema at all, or one that leads nowhere
        return None
