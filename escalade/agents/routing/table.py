"""The routing table: complexity x intent x segment -> tier, as data that people edit.

    complexity:
      words: {medium: 25, high: 60}        # from so many words on
      technical: {medium: 1, high: 4}      # from so many different technical terms on
      code: high
    segments:
      vip: {roles: [vip], tenants: ["gold-*"]}
    rules:                                 # the first that fits decides; each combination has to fit one
      - {complexity: low, intent: [greeting, faq], tier: 1}
      - {complexity: low, segment: [vip, enterprise], tier: 2}
      - {tier: 3}

`RoutingTable.load("routing.yaml")`; what a file leaves out is as in the table that ships, `data/routing.yaml`. It may
also be the section `routing` of a file of models. `data/routing.schema.json` describes the form, for editors.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from escalade.errors import BadInput
from escalade.registry.access.files import read_file
from escalade.registry.places import Place, Problem, key_of, lines_of
from escalade.scopes import Principal

Complexity = Literal["low", "medium", "high"]
Intent = Literal["greeting", "faq", "product", "support", "sales", "technical", "other"]
COMPLEXITIES: tuple[str, ...] = get_args(Complexity)
INTENTS: tuple[str, ...] = get_args(Intent)
STANDARD = "standard"
"""The segment of whoever is in no other one."""

WEIGHTS = {"strong": 4, "usual": 2, "weak": 1}

DEFAULT_FILE = Path(__file__).parent.parent / "data" / "routing.yaml"
SCHEMA_FILE = Path(__file__).parent.parent / "data" / "routing.schema.json"


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return value


Texts = Annotated[tuple[str, ...], BeforeValidator(_list)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Steps(_Part):
    """From how many on something is of a level."""

    medium: int = Field(ge=1)
    high: int = Field(ge=1)

    @model_validator(mode="after")
    def _rising(self) -> Steps:
        if self.high < self.medium:
            raise ValueError(f"high ({self.high}) begins below medium ({self.medium})")
        return self

    def level(self, count: int) -> int:
        """0 for low, 1 for medium, 2 for high."""
        return 2 if count >= self.high else int(count >= self.medium)


class Measures(_Part):
    """What makes a text complex."""

    words: Steps
    technical: Steps
    code: Complexity = "high"


class Phrasing(_Part):
    """Phrases that speak for an intent, by how much; `*` at the end of one stands for any ending.

    `yields`: it stands back as soon as another intent has more than a weak phrase in the text.
    """

    strong: Texts = ()
    usual: Texts = ()
    weak: Texts = ()
    yields: bool = False


class Segment(_Part):
    """Who is in it: whoever has one of the roles, or is of one of the tenants (`*` stands for anything)."""

    roles: Texts = ()
    tenants: Texts = ()

    def has(self, principal: Principal) -> bool:
        """Is he in it?"""
        if principal.roles & frozenset(self.roles):
            return True
        return any(fnmatchcase(principal.tenant, pattern) for pattern in self.tenants)


class Rule(_Part):
    """Where all that it names fits, this is the tier. Left out, something may be anything."""

    complexity: Annotated[tuple[Complexity, ...], BeforeValidator(_list)] = ()
    intent: Annotated[tuple[Intent, ...], BeforeValidator(_list)] = ()
    segment: Texts = ()
    tier: int = Field(ge=1, le=4)

    def fits(self, complexity: str, intent: str, segment: str) -> bool:
        """Does it speak of this combination?"""
        return (
            (not self.complexity or complexity in self.complexity)
            and (not self.intent or intent in self.intent)
            and (not self.segment or segment in self.segment)
        )

    def __str__(self) -> str:
        parts = (("complexity", self.complexity), ("intent", self.intent), ("segment", self.segment))
        said = ", ".join(f"{name} {'/'.join(values)}" for name, values in parts if values)
        return f"{said or 'anything'} -> tier {self.tier}"


class RoutingTable(_Part):
    """The table. `rule` says which line decides."""

    complexity: Measures
    technical_terms: Texts = ()
    code: Annotated[Texts, AfterValidator(_patterns)] = ()
    intents: Mapping[Intent, Phrasing]
    segments: Mapping[str, Segment]
    rules: tuple[Rule, ...]

    @model_validator(mode="after")
    def _complete(self) -> RoutingTable:
        known = {STANDARD, *self.segments}
        for at, rule in enumerate(self.rules):
            if unknown := set(rule.segment) - known:
                raise ValueError(f"rule {at + 1} names segment {min(unknown)!r} (known: {', '.join(sorted(known))})")
        used = set()
        for combination in self.combinations():
            found = self._at(*combination)
            if found is None:
                raise ValueError(f"no rule fits {_said(*combination)}; end with a rule that names nothing but a tier")
            used.add(found)
        for at, rule in enumerate(self.rules):
            if at not in used:
                raise ValueError(f"rule {at + 1} ({rule}) never decides: rules before it take all that it fits")
        return self

    @classmethod
    def load(cls, path: str | PathLike[str]) -> RoutingTable:
        """From a YAML, JSON or TOML file. Raises BadInput: `FILE:LINE: KEY: what is wrong`."""
        file = Path(path)
        text, written = read_file(file)
        inside = isinstance(written, Mapping) and "models" in written
        said = written.get("routing") if inside and isinstance(written, Mapping) else written
        if not isinstance(said, Mapping):
            raise BadInput(f"{file}: expected a mapping with rules{' under `routing`' if inside else ''}")
        try:
            return cls.of(said)
        except ValidationError as error:
            place, message = amiss(error)
            place = ("routing", *place) if inside else place
            raise BadInput(str(Problem(str(file), lines_of(file, text)(place), key_of(place), message))) from None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> RoutingTable:
        """What was said, over the table that ships. Raises pydantic's ValidationError."""
        return cls.model_validate({**_shipped(), **{k: v for k, v in said.items() if k != "$schema"}})

    def rule(self, complexity: str, intent: str, segment: str) -> tuple[int, Rule]:
        """The number (from 1) of the rule that decides, and the rule. Raises BadInput for what no table knows."""
        at = self._at(complexity, intent, segment if segment in self.segments else STANDARD)
        if at is None or complexity not in COMPLEXITIES or intent not in INTENTS:
            raise BadInput(
                f"no rule for {_said(complexity, intent, segment)}; complexities are {', '.join(COMPLEXITIES)}, "
                f"intents are {', '.join(INTENTS)}"
            )
        return at + 1, self.rules[at]

    def segment(self, principal: Principal | None) -> str:
        """Of a principal: the first that he is in, in the table's order; "standard" for nobody in particular."""
        if principal is not None:
            for name, segment in self.segments.items():
                if segment.has(principal):
                    return name
        return STANDARD

    def combinations(self) -> Iterator[tuple[str, str, str]]:
        """All there are: complexity, intent, segment."""
        for complexity in COMPLEXITIES:
            for intent in INTENTS:
                for segment in dict.fromkeys((STANDARD, *self.segments)):
                    yield complexity, intent, segment

    def _at(self, complexity: str, intent: str, segment: str) -> int | None:
        return next((i for i, rule in enumerate(self.rules) if rule.fits(complexity, intent, segment)), None)


def amiss(error: ValidationError) -> tuple[Place, str]:
    """Where in a table the first thing is wrong, and what."""
    one = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return tuple(part for part in one["loc"] if part != "[key]"), one["msg"].removeprefix("Value error, ")


def _said(complexity: str, intent: str, segment: str) -> str:
    return f"complexity {complexity}, intent {intent}, segment {segment}"


@functools.cache
def _shipped() -> dict[str, Any]:
    return dict(read_file(DEFAULT_FILE)[1])


@functools.cache
def default_table() -> RoutingTable:
    """The table that ships."""
    return RoutingTable.of({})


def routing_schema() -> dict[str, Any]:
    """The JSON schema of routing tables. Nothing is required: what is left out is as in the table that ships."""
    schema = RoutingTable.model_json_schema(mode="validation")
    schema.pop("required", None)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["$schema"] = {"type": "string"}
    _one_or_many(schema)
    return schema


def _one_or_many(schema: Any) -> None:
    """Where a list of texts is meant, one text will do."""
    if isinstance(schema, dict):
        items = schema.get("items")
        if schema.get("type") == "array" and isinstance(items, dict) and items.get("type") == "string":
            kept = {key: schema.pop(key) for key in ("type", "items")}
            schema["anyOf"] = [kept, dict(items)]
            return
        for one in schema.values():
            _one_or_many(one)
    elif isinstance(schema, list):
        for one in schema:
            _one_or_many(one)
