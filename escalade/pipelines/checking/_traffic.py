"""Which fields go from where to where in a pipeline, and what can't go well.

A `Traffic` is what is known of a pipeline from outside, the fields that it takes and gives; so a pipeline within
another is gone through once. A `Ledger` is kept while the nodes of a pipeline are gone through in `checks`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from escalade.pipelines._errors import join
from escalade.pipelines.checking._fields import NOTHING, UNKNOWN, Gives, Takes
from escalade.pipelines.checking._types import Record, fits, narrower, shown, union

_DIGITS = re.compile(r"\d+")
ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a pipeline: an "error" fails for certain when it is run, a "warning" is probably not meant.

    `path`: of the node that it is about, "" for the pipeline itself. `message`: one sentence.
    """

    level: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


class Fields(dict[str, Any]):
    """Names and types of fields. `optional`: those that may be missing. `open`: there may be others."""

    def __init__(self, fields: Mapping[str, Any], optional: Iterable[str] = (), *, open: bool = False) -> None:  # noqa: A002
        super().__init__(fields)
        self.optional = frozenset(optional)
        self.open = open

    def __str__(self) -> str:
        said = [f"{name}: {shown(type_)}{' = ...' * (name in self.optional)}" for name, type_ in self.items()]
        return ", ".join([*said, "..."] if self.open else said)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a pipeline takes and gives, and what was found on the way."""

    takes: Takes = field(default_factory=lambda: Takes(rest=True))
    gives: Gives = UNKNOWN
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class Origin:
    """Where a field comes from. `giver`: a node, "" for the call. `taker`: who took it first of the call. `certain`:
    it is always there. `used`: somebody takes it. `converts`: its type is only what a model is shown.
    """

    type: Any
    giver: str = ""
    taker: str = ""
    certain: bool = True
    used: bool = False
    converts: bool = False


def close(name: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The name that was probably meant. `draft_2` is no slip for `draft_1`."""
    found = difflib.get_close_matches(name, list(known), n=5, cutoff=cutoff)
    return next((one for one in found if _DIGITS.sub("", one) != _DIGITS.sub("", name)), None)


class Ledger:
    """The fields that are there, who gave them and who takes them. `declared`: the fields that the call gives, None
    where nobody has said.
    """

    def __init__(self, declared: Mapping[str, Any] | None = None) -> None:
        self.fields: dict[str, Origin] = {}
        self.given: list[tuple[str, Origin]] = []
        self.inputs: dict[str, tuple[Origin, bool]] = {}
        """Of the call: where they are taken, and whether they have to be there."""
        self.paths: dict[str, str] = {}
        self.rest = False
        self.findings: list[Finding] = []
        self.declared = declared
        for name, type_ in (declared or {}).items():
            self.fields[name] = Origin(type_)

    def error(self, node: str, message: str) -> None:
        """What fails for certain."""
        self.findings.append(Finding(ERROR, node, message))

    def warn(self, node: str, message: str) -> None:
        """What is probably not meant."""
        self.findings.append(Finding(WARNING, node, message))

    def take(self, node: str, takes: Takes) -> list[str]:
        """A node takes what it wants of what is there; the names of what it needs and isn't there."""
        for name, wanted in {**takes.optional, **takes.required}.items():
            if name in self.fields:
                self._took(node, name, wanted, takes)
        if takes.rest:
            self.rest = True
            for origin in self.fields.values():
                origin.used = True
        return [name for name in takes.required if name not in self.fields]

    def _took(self, node: str, name: str, wanted: Any, takes: Takes) -> None:
        origin, needed = self.fields[name], name in takes.required
        origin.used = True
        if not origin.giver:
            self.ask(node, name, takes, required=needed)
        self._compare(node, name, wanted, origin, converts=name in takes.converts)

    def _compare(self, node: str, name: str, wanted: Any, origin: Origin, *, converts: bool) -> None:
        if fits(origin.type, wanted, converts=converts):
            if not origin.giver and narrower(wanted, origin.type) and (origin.converts or not converts):
                origin.type, origin.taker, origin.converts = wanted, node, converts
            return
        head = f"node {node!r} takes {name!r} as {shown(wanted)}, but"
        if origin.giver:
            self.error(node, f"{head} node {origin.giver!r} gives it as {shown(origin.type)}")
        elif self.declared is not None and name in self.declared:
            self.error(node, f"{head} the inputs of the pipeline say {shown(origin.type)}")
        elif not (converts or origin.converts or fits(wanted, origin.type)):
            self.error(node, f"{head} node {origin.taker!r} takes it as {shown(origin.type)}")

    def ask(self, node: str, name: str, takes: Takes, *, required: bool) -> None:
        """The call has to give a field (`required`), or may."""
        wanted = takes.required.get(name, takes.optional.get(name, Any))
        origin = self.fields.get(name)
        if origin is None:
            origin = self.fields[name] = Origin(wanted, taker=node, used=True, converts=name in takes.converts)
        origin.taker = origin.taker or node
        known = self.inputs.get(name)
        if known is None or (required and not known[1]):
            self.inputs[name] = (origin, required)
            inner = takes.paths.get(name, "")
            self.paths[name] = join(node, inner)

    def ask_all(self, node: str, takes: Takes, missing: Iterable[str], *, required: bool) -> None:
        """The call has to give what is missing, and may give what the node takes besides."""
        for name in missing:
            self.ask(node, name, takes, required=required)
        for name in takes.optional:
            if name not in self.fields:
                self.ask(node, name, takes, required=False)

    def give(self, node: str, gives: Gives, *, certain: bool = True) -> None:
        """What a node gives is there from now on."""
        for name, type_ in gives.fields.items():
            before, sure = self.fields.get(name), certain and name not in gives.sometimes
            if before is not None and not sure:  # it may still be the one before
                type_ = union([type_, before.type])  # noqa: PLW2901
            origin = Origin(type_, node, certain=sure or before is not None)
            self.given.append((name, origin))
            self.fields[name] = origin

    def unused(self, before: Iterable[str]) -> dict[str, str]:
        """Field -> node, of what these nodes gave and nobody takes."""
        nodes = set(before)
        return {name: one.giver for name, one in self.given if not one.used and one.giver in nodes}

    def takes(self) -> Takes:
        """What the pipeline takes from outside."""
        required = {name: origin.type for name, (origin, needed) in self.inputs.items() if needed}
        optional = {name: origin.type for name, (origin, needed) in self.inputs.items() if not needed}
        converts = frozenset(name for name, (origin, _) in self.inputs.items() if origin.converts)
        return Takes(required, optional, self.rest, converts, dict(self.paths))

    def traffic(self, gives: Gives) -> Traffic:
        """All of it. `gives`: by the names that the pipeline's Prediction has."""
        whole = Record(gives.fields, gives.open or bool(gives.sometimes))
        told = Gives(gives.fields, gives.sometimes, gives.open, whole=whole)
        return Traffic(self.takes(), told, tuple(self.findings))


def as_prediction(name: str, gives: Gives) -> Gives:
    """What a node gives, in a pipeline's Prediction: a bare value goes by `name`."""
    if gives.bare is NOTHING or gives.open:
        return Gives(gives.fields, gives.sometimes, gives.open)
    return Gives({**gives.fields, name: gives.bare}, gives.sometimes)
