"""The gate on versions: what `^1.2` promises, held when a version is registered.

A version that the caret range of an older one takes must not break who calls that one. Breaking is:

    an argument that is removed, becomes required, or takes fewer values than before (type, enum, range, length, pattern)
    a result that can be something it couldn't be before, or whose schema is no longer known
    another class of side effects, another permission
    a dearer class of cost: free -> priced, ten times the price, a known price -> an unknown one

Whether one JSON schema takes all that another one takes is decided by structure, on the careful side: `misfits` finds
nothing only if every value that fits the narrow schema fits the wide one. What it can't decide (patterns that differ,
`not`, `if`) counts as a misfit, unless both say the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from escalade.errors import BadInput
from escalade.registry.canonical import canonical
from escalade.registry.versions import is_stable, matcher, newest, next_breaking, parse_version

if TYPE_CHECKING:
    from escalade.registry.tools import ToolSpec

Gate = Literal["refuse", "off"]


class IncompatibleVersion(BadInput):
    """A version breaks what its number promises. `changes`: what breaks; `needed`: the version it would have to be."""

    def __init__(self, message: str, changes: tuple[str, ...] = (), needed: str = "") -> None:
        super().__init__(message)
        self.changes, self.needed = changes, needed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of `label` after `before`: `changes` that break, none if it may pass."""

    label: str
    before: str
    changes: tuple[str, ...]
    needed: str

    def check(self) -> None:
        """Raises IncompatibleVersion."""
        if self.changes:
            listed = "; ".join(self.changes)
            raise IncompatibleVersion(
                f"{self.label} breaks callers of {self.before}, which '^{self.before}' promises not to: {listed}; "
                f'publish it as {self.needed}, or register it with gate="off"',
                self.changes,
                self.needed,
            )


def judge(spec: ToolSpec, versions: Iterable[ToolSpec]) -> Verdict | None:
    """Does it keep the promise of the version before it? None where nothing was promised: a first version, a
    pre-release, a version out of the caret range of the one before.
    """
    if not is_stable(spec.version):
        return None
    key = parse_version(spec.version)
    older = {one.version: one for one in versions if is_stable(one.version) and parse_version(one.version) < key}
    before = newest(older)
    if before is None or not matcher(f"^{before}")(spec.version):
        return None
    return Verdict(spec.label, before, tuple(breaking(older[before], spec)), next_breaking(before))


def breaking(old: ToolSpec, new: ToolSpec) -> list[str]:
    """What of the new version breaks callers of the old one, each change in one line."""
    changes = [_argument(*misfit) for misfit in misfits(old.input_schema, new.input_schema)]
    if old.output_schema is not None:
        if new.output_schema is None:
            changes.append("the result has no known type any more")
        else:
            changes += [_result(*misfit) for misfit in misfits(new.output_schema, old.output_schema)]
    for name in ("side_effects", "permission"):
        one, other = getattr(old, name), getattr(new, name)
        if one != other:
            changes.append(f"{name.replace('_', ' ')}: {one} -> {other}")
    dearer = _dearer(old.cost, new.cost)
    return [*changes, dearer] if dearer else changes


def _dearer(old: Any, new: Any) -> str:
    """Classes of cost: free, each power of ten, and what no call knows in advance."""
    if old == new or not (old is None or isinstance(old, int)) or old is None:
        return ""
    if new is None or not isinstance(new, int):
        return f"cost: {old} -> unknown before the call"
    if (old == 0 and new > 0) or (old > 0 and new >= 10 * old):
        return f"cost: {old} -> {new}"
    return ""


def _argument(path: str, what: str) -> str:
    return f"argument {path!r} {what}" if path else f"the arguments: {what}"


def _result(path: str, what: str) -> str:
    mirrored = {
        "was removed": "may be there, which it could not before",
        "became required": "may be missing, which it could not before",
    }
    return f"the result{f' at {path!r}' if path else ''} {mirrored.get(what, f'is wider: {what}')}"


# ------------------------------------------------------------------------------------------ one schema within another


def misfits(narrow: Any, wide: Any) -> list[tuple[str, str]]:
    """Where a value that fits `narrow` may not fit `wide`, as (path, what); empty: each value that fits the one fits
    the other.

    >>> misfits({"type": "integer", "minimum": 1}, {"type": "number"})
    []
    >>> misfits({"type": "string"}, {"type": "string", "maxLength": 8})
    [('', 'maxLength: none -> 8')]
    """
    return _Comparison(narrow, wide).of(narrow, wide, "")


_ANNOTATIONS = frozenset(
    "title description default examples example deprecated readOnly writeOnly $comment $schema $id $defs definitions "
    "discriminator".split()
)
_BY_TYPE: dict[str, frozenset[str]] = {
    "number": frozenset("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split()),
    "string": frozenset("minLength maxLength pattern format contentEncoding contentMediaType".split()),
    "array": frozenset("items prefixItems minItems maxItems uniqueItems contains minContains maxContains".split()),
    "object": frozenset(
        "properties required additionalProperties minProperties maxProperties patternProperties propertyNames".split()
    ),
}
_LOWER = ("minLength", "minItems", "minProperties")
_UPPER = ("maxLength", "maxItems", "maxProperties")
_SAME = ("pattern", "format", "contentEncoding", "contentMediaType", "contains", "minContains", "maxContains",
         "patternProperties", "propertyNames")  # fmt: skip
_STRUCTURE = frozenset("type enum const anyOf oneOf allOf $ref".split())
_KNOWN = _STRUCTURE.union(*_BY_TYPE.values())
_TYPES = ("null", "boolean", "number", "string", "array", "object")
_NEVER = {"enum": []}  # fits nothing

Misfits = list[tuple[str, str]]


class _Comparison:
    """Of two schemas with definitions of their own."""

    def __init__(self, narrow: Any, wide: Any) -> None:
        self._roots = (narrow, wide)
        self._assumed: set[tuple[bytes, bytes]] = set()

    def of(self, narrow: Any, wide: Any, path: str) -> Misfits:
        narrow, wide = self._looked_up(narrow, 0), self._looked_up(wide, 1)
        if wide == {} or narrow == _NEVER:
            return []
        pair = (canonical(narrow), canonical(wide))
        if pair in self._assumed or (pair[0] == pair[1] and self._same_references()):
            return []  # a schema that contains itself fits if the rest of it does
        self._assumed.add(pair)
        found = self._split(narrow, wide, path)
        if found:
            self._assumed.discard(pair)
        return found

    def _same_references(self) -> bool:
        one, other = (_definitions(root) for root in self._roots)
        return bool(one == other)

    def _looked_up(self, schema: Any, side: int) -> dict[str, Any]:
        """Without annotations, and with its reference in the place of what it stands for."""
        seen: set[str] = set()
        while True:
            if isinstance(schema, bool):
                return {} if schema else _NEVER
            schema = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
            reference = schema.get("$ref")
            if not isinstance(reference, str) or reference in seen:
                return schema
            seen.add(reference)
            target = _resolved(self._roots[side], reference)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {"allOf": [target, rest]} if rest else target

    def _split(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        """Take alternatives and conjunctions apart, until both sides are of one type each."""
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
        fits = _validator(canonical(_with_definitions(narrow, self._roots[0])))
        taken = _validator(canonical(_with_definitions(wide, self._roots[1])))
        lost = [value for value in values if fits.is_valid(value) and not taken.is_valid(value)]
        return [(path, f"no longer takes {', '.join(map(repr, lost))}")] if lost else []

    def _one_type(self, narrow: dict[str, Any], wide: dict[str, Any], kind: str, path: str) -> Misfits:
        unsure = [key for key in wide if key not in _KNOWN and narrow.get(key) != wide[key]]
        if unsure:
            return [(path, f"has another {unsure[0]!r}, which can't be compared")]
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
        """It must fit one of them as a whole; with `oneOf` also none of the others, by type."""
        rest = _without(wide, word)
        found = self.of(narrow, rest, path) if rest else []
        if found:
            return found
        tried = [self.of(narrow, one, path) for one in wide[word]]
        fitting = [i for i, misses in enumerate(tried) if not misses]
        others = [self._looked_up(one, 1) for i, one in enumerate(wide[word]) if fitting and i != fitting[0]]
        if fitting and (word == "anyOf" or not any(_meet(_types(narrow), _types(one)) for one in others)):
            return []
        if not fitting and len(tried) == 1:
            return tried[0]
        same = [misses for misses, one in zip(tried, wide[word], strict=True)
                if misses and _meet(_types(narrow), _types(self._looked_up(one, 1)))]  # fmt: skip
        return same[0] if len(same) == 1 else [(path, f"type: {_shown(narrow)} -> {_shown(wide)}")]

    def _bounds(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        """Lengths, counts, and what can only be compared by being the same."""
        found = [
            (path, f"{word}: {narrow.get(word, 'none')} -> {wide[word]}")
            for word in _LOWER
            if wide.get(word, 0) > narrow.get(word, 0)
        ]
        found += [
            (path, f"{word}: {narrow.get(word, 'none')} -> {wide[word]}")
            for word in _UPPER
            if word in wide and wide[word] < narrow.get(word, float("inf"))
        ]
        found += [
            (path, f"{word}: {narrow.get(word, 'none')} -> {wide[word]}")
            for word in _SAME
            if word in wide and wide[word] != narrow.get(word)
        ]
        return found

    def _array(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        found = self._bounds(narrow, wide, path)
        if wide.get("uniqueItems") and not narrow.get("uniqueItems"):
            found.append((path, "items must be unique now"))
        first, others = narrow.get("prefixItems", []), wide.get("prefixItems", [])
        longest = narrow.get("maxItems", float("inf"))
        for i in range(min(max(len(first), len(others)), int(min(longest, 1_000)))):
            one = first[i] if i < len(first) else narrow.get("items", True)
            other = others[i] if i < len(others) else wide.get("items", True)
            found += self.of(one, other, _below(path, str(i)))
        if longest > max(len(first), len(others)):
            found += self.of(narrow.get("items", True), wide.get("items", True), _below(path, "[]"))
        return found

    def _object(self, narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
        if narrow.get("patternProperties") and not narrow.get("patternProperties") == wide.get("patternProperties"):
            return [(path, "has other patternProperties, which can't be compared")]
        found = self._bounds(narrow, wide, path)
        have, take = narrow.get("properties", {}), wide.get("properties", {})
        more, else_ = narrow.get("additionalProperties", True), wide.get("additionalProperties", True)
        for name in dict.fromkeys([*have, *take]):
            below = _below(path, name)
            if name not in take and else_ is False:
                found += [] if have[name] is False else [(below, "was removed")]
            else:
                found += self.of(have.get(name, more), take.get(name, else_), below)
        required = [name for name in wide.get("required", ()) if name not in narrow.get("required", ())]
        found += [(_below(path, name), "became required") for name in required]
        if more is not False:
            found += [(path, "takes no unknown names any more")] if else_ is False else self.of(more, else_, f"{path}.*")
        return found


def _numbers(narrow: dict[str, Any], wide: dict[str, Any], path: str) -> Misfits:
    """Bounds; of an integer also the next one, and steps that are multiples."""
    found = []
    for plain, strict, sign in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        have, want = _bound(narrow, plain, strict, sign), _bound(wide, plain, strict, sign)
        if want > have:
            word = strict if strict in wide and _bound({strict: wide[strict]}, plain, strict, sign) == want else plain
            was = narrow.get(plain, narrow.get(strict, "none"))
            found.append((path, f"{word}: {was} -> {wide[word]}"))
    step = wide.get("multipleOf")
    if step is not None:
        whole = narrow.get("type") == "integer" and step == 1
        multiple = isinstance(step, int) and isinstance(narrow.get("multipleOf"), int)
        if not (whole or step == narrow.get("multipleOf") or (multiple and narrow["multipleOf"] % step == 0)):
            found.append((path, f"multipleOf: {narrow.get('multipleOf', 'none')} -> {step}"))
    return found


def _bound(schema: dict[str, Any], plain: str, strict: str, sign: int) -> tuple[float, int]:
    """A lower bound to compare, the strict one of a number above the other one; upper bounds are mirrored."""
    bounds = [(sign * schema[word], rank) for word, rank in ((plain, 0), (strict, 1)) if word in schema]
    return max(bounds, default=(float("-inf"), 0))


def _types(schema: dict[str, Any]) -> list[str]:
    said = schema.get("type", list(_TYPES))
    return said if isinstance(said, list) else [said]


def _for_type(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    """Without the keywords that say something of other types."""
    own = _BY_TYPE.get("number" if kind == "integer" else kind, frozenset())
    others = frozenset().union(*_BY_TYPE.values()) - own
    return {key: value for key, value in schema.items() if key not in others}


def _meet(one: list[str], other: list[str]) -> bool:
    numbers = {"integer", "number"}
    return bool(set(one) & set(other)) or bool(numbers & set(one) and numbers & set(other))


def _without(schema: dict[str, Any], word: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != word}


def _shown(schema: dict[str, Any]) -> str:
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_shown(one) if isinstance(one, dict) else "any" for one in schema[word]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    said = schema.get("type", "any")
    return " or ".join(said) if isinstance(said, list) else str(said)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _definitions(root: Any) -> Any:
    return root.get("$defs", root.get("definitions", {})) if isinstance(root, dict) else {}


def _resolved(root: Any, reference: str) -> Any:
    """What a reference within the schema stands for; {"not": {}} for one that leads nowhere."""
    target = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or name not in target:
            return {"not": {"$comment": reference}}
        target = target[name]
    return target if reference.startswith("#") else {"not": {"$comment": reference}}


def _with_definitions(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    kept = {key: root[key] for key in ("$defs", "definitions") if isinstance(root, dict) and key in root}
    return {**schema, **kept}


@functools.lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    import json

    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(json.loads(schema))
