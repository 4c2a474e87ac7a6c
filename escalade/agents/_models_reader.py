"""Reads files of models: puts several together, and says of each problem where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from escalade.agents._allowed import regions_of
from escalade.agents._chains import crossing, cycle
from escalade.agents._model_spec import ModelsFile, ModelSpec
from escalade.agents.lanes.spec import LaneSpec
from escalade.agents.routing.table import RoutingTable, amiss
from escalade.errors import BadInput, UnknownName
from escalade.registry.access.files import read_file
from escalade.registry.places import Place, Problem, key_of, lines_of
from escalade.registry.prices import frozen_prices

_TOP = {"$schema", "version", "defaults", "regions", "routing", "lanes", "models"}


def read_models(*paths: str | PathLike[str]) -> tuple[ModelsFile, list[Problem]]:
    """What the files say as far as it is sound, and all that is wrong. Raises BadInput for what can't be read."""
    if not paths:
        raise BadInput("expected one or more files of models, like models.yaml")
    reader = _Reader()
    for path in paths:
        reader.read(Path(path))
    return reader.finished()


class _File:
    """One file, while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text, self.written = read_file(path)
        self.lines = lines_of(path, text)

    def problem(self, place: Place, message: str) -> Problem:
        return Problem(str(self.path), self.lines(place), key_of(place), " ".join(message.split()))


class _Entry:
    """One model: what files say of it, and where each field was said last."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self.places: dict[str, tuple[_File, Place]] = {}

    def add(self, file: _File, place: Place, said: Mapping[str, Any]) -> None:
        for field, value in said.items():
            self.said[field], self.places[field] = value, (file, (*place, field))
        self.places[""] = file, place

    def problem(self, field: str, message: str, rest: Place = ()) -> Problem:
        file, place = self.places.get(field) or self.places[""]
        return file.problem((*place, *rest) if field in self.places else (*place, field), message)


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.entries: dict[str, _Entry] = {}
        self.defaults = _Entry()
        self.regions: dict[str, Any] = {}
        self.routing: Mapping[str, Any] | None = None
        self.lanes: dict[str, LaneSpec] = {}

    def read(self, path: Path) -> None:
        """One more file, over those before."""
        file = _File(path)
        written: Any = file.written
        if not isinstance(written, Mapping) or not isinstance(written.get("models", []), list):
            self._say(file, (), "expected a mapping with the key 'models', and a list of models in it")
            return
        for key in written.keys() - _TOP:
            self._say(file, (str(key),), f"unknown key (known: {', '.join(sorted(_TOP))})")
        if written.get("version", 1) != 1:
            self._say(file, ("version",), f"version {written['version']!r} is not known (known: 1)")
        self._defaults(file, written.get("defaults", {}))
        self._regions(file, written.get("regions", {}))
        self._routing(file, written.get("routing"))
        self._lanes(file, written.get("lanes", {}))
        seen: dict[str, int] = {}
        for i, entry in enumerate(written.get("models", [])):
            self._entry(file, ("models", i), entry, seen)

    def finished(self) -> tuple[ModelsFile, list[Problem]]:
        """All files together."""
        if not self.entries and not self.problems:
            file = self.defaults.places[""][0]
            self._say(file, ("models",), "expected at least one model")
        specs = {name: spec for name, entry in self.entries.items() if (spec := self._spec(entry)) is not None}
        if not self.problems:
            self.problems += self._chains(specs)
        said = ModelsFile(models=tuple(specs.values()), regions=self.regions, routing=self.routing, lanes=self.lanes)
        return said, self.problems

    def _defaults(self, file: _File, said: Any) -> None:
        if not isinstance(said, Mapping):
            self._say(file, ("defaults",), "expected a mapping")
            return
        for key in ("name", "model"):
            if key in said:
                self._say(file, ("defaults", key), "is each model's own")
        self.defaults.add(file, ("defaults",), {str(k): v for k, v in said.items() if k not in {"name", "model"}})

    def _regions(self, file: _File, said: Any) -> None:
        try:
            self.regions |= regions_of(said)
        except (BadInput, AttributeError, TypeError) as error:
            known = isinstance(error, BadInput)
            self._say(file, ("regions",), str(error) if known else "expected a mapping like {'tenant:acme': [eu]}")

    def _lanes(self, file: _File, said: Any) -> None:
        if not isinstance(said, Mapping):
            self._say(file, ("lanes",), "expected a mapping like {openai: {rpm: 500}}")
            return
        for name, lane in said.items():
            try:
                self.lanes[str(name)] = LaneSpec.model_validate(lane)
            except ValidationError as error:
                place, message = amiss(error)
                self._say(file, ("lanes", str(name), *place), message)

    def _laneless(self, spec: ModelSpec) -> Iterator[tuple[str, str]]:
        if spec.lane is not None and spec.lane not in self.lanes:
            yield "lane", str(UnknownName("lane", spec.lane, list(self.lanes)))
        elif spec.lane is not None and (spec.rpm is not None or spec.tpm is not None):
            yield "lane", f"`rpm` and `tpm` are said of lane {spec.lane!r}, not of a model in it"

    def _routing(self, file: _File, said: Any) -> None:
        if said is None:
            return
        if not isinstance(said, Mapping):
            self._say(file, ("routing",), "expected a mapping")
            return
        try:
            RoutingTable.of(said)
        except ValidationError as error:
            place, message = amiss(error)
            self._say(file, ("routing", *place), message)
        else:
            self.routing = said

    def _entry(self, file: _File, place: Place, said: Any, seen: dict[str, int]) -> None:
        name = said.get("name") if isinstance(said, Mapping) else None
        if not isinstance(name, str):
            self._say(file, (*place, "name"), "expected a mapping with a name")
            return
        if name in seen:
            before = file.lines(("models", seen[name], "name"))
            self._say(file, (*place, "name"), f"{name!r} is there twice (also in line {before}); aliases are unique")
            return
        seen[name] = int(place[-1])
        self.entries.setdefault(name, _Entry()).add(file, place, {str(k): v for k, v in said.items()})

    def _spec(self, entry: _Entry) -> ModelSpec | None:
        before = len(self.problems)
        try:
            spec = ModelSpec.model_validate({**self.defaults.said, **entry.said})
        except ValidationError as error:
            # Neither the value nor its context: what was written in the wrong place may be a key.
            told = error.errors(include_url=False, include_input=False, include_context=False)
            # A price is one of two things, and both are said to be wrong: once is enough.
            twice = sum(one["loc"][:1] == ("price",) for one in told) > 1
            self.problems += [
                self._wrong(entry, one["loc"], one["msg"], one["type"])
                for one in told
                if not (twice and one["loc"] == ("price", "literal['unknown']"))
            ]
            return None
        for field, message in (*_amiss(spec), *self._laneless(spec)):
            self.problems.append(self._owner(entry, field).problem(field, message))
        return spec if len(self.problems) == before else None

    def _wrong(self, entry: _Entry, loc: tuple[str | int, ...], message: str, kind: str) -> Problem:
        field, rest = str(loc[0]) if loc else "", loc[1:]
        if kind == "extra_forbidden" and not rest:
            message = f"unknown key (known: {', '.join(ModelSpec.model_fields)})"
        rest = tuple(one for one in rest if one not in {"PriceSpec", "literal['unknown']", "str"})
        if field == "price" and not rest:
            message = "expected {input: ..., output: ...}, or unknown"
        return self._owner(entry, field).problem(field, message.removeprefix("Value error, "), rest)

    def _owner(self, entry: _Entry, field: str) -> _Entry:
        """Who said it: the model, or the defaults."""
        return self.defaults if field in self.defaults.said and field not in entry.said else entry

    def _chains(self, specs: dict[str, ModelSpec]) -> Iterator[Problem]:
        links = {name: spec.fallbacks for name, spec in specs.items()}
        round_trips: set[str] = set()
        for name, spec in specs.items():
            entry = self._owner(self.entries[name], "fallbacks")
            unknown = [after for after in spec.fallbacks if after not in specs]
            way = cycle(name, links)
            if unknown:
                yield entry.problem("fallbacks", str(UnknownName("model", unknown[0], list(specs))))
            elif round_trips.intersection(way):
                continue
            elif way:
                round_trips.update(way)
                yield entry.problem("fallbacks", f"go round in a circle: {' -> '.join(way)}")
            elif wrong := crossing([spec, *_after(name, specs)]):
                yield entry.problem("fallbacks", wrong)

    def _say(self, file: _File, place: Place, message: str) -> None:
        self.problems.append(file.problem(place, message))


def _after(name: str, specs: Mapping[str, ModelSpec]) -> list[ModelSpec]:
    """All that may stand in for it, in the order in which they are tried."""
    after: list[ModelSpec] = []
    todo = [*specs[name].fallbacks]
    while todo:
        spec = specs.get(todo.pop(0))
        if spec is not None and spec not in after:
            after.append(spec)
            todo += spec.fallbacks
    return after


def _amiss(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """What doesn't go together in one model: the field, and why."""
    if spec.price is None and spec.priced()[0] is None:
        said = f"{spec.model!r} is not in the price map of {frozen_prices().date}, and unknown is not zero; write "
        yield (
            "price",
            f'{said}`price: {{input: "0.15", output: "0.60"}}` (dollars per million tokens), or `price: unknown`',
        )
    if spec.context is not None and spec.context <= spec.max_output:
        yield "context", f"{spec.context} tokens have no room for a prompt beside a max_output of {spec.max_output}"
    if (spec.transport == "recorded") != (spec.recording is not None):
        yield "recording", "goes together with `transport: recorded`"
    if spec.options and spec.transport != "litellm":
        yield "options", f"are for `transport: litellm`, not for {spec.transport}"
