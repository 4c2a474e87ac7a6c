"""Manifests: tools in a file, `tools.yaml`, or the same as JSON or TOML. Python's `@tool` is the other way in.

    tools:
      - function: shop.crm:search          # module:function, found as `import` finds it
        name: crm.search
        version: 1.2.0
        cost: "0.002"                      # dollars, quoted: YAML would make a float of it
        side_effects: read
        tags: [crm]
        deprecated: {message: slow, sunset: 2027-01-31, replacement: crm.find}
    defaults: {owner: shop, limits: 5/s}   # for all tools that don't say otherwise
    registry: shop                         # the registry's name
    imports: {crm: {mcp: "https://…"}}     # tools of other servers: `sources/declared.py`
    pins: escalade.pins.json               # what these were when somebody accepted them

Each entry has the fields of `ToolSpec`, other than the schemas, which come from the function's type hints. What a
function says by `@tool` holds where the manifest says nothing. Loading a manifest imports code: it is as trusted as
that. `data/tools.schema.json` describes the form, for editors; `escalade tools schema` prints it.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from escalade.errors import BadInput, EscaladeError
from escalade.registry.access.files import read_file
from escalade.registry.lifecycle import to_date
from escalade.registry.places import Place, Problem, key_of, lines_of
from escalade.registry.sources.declared import PINS, Declared
from escalade.registry.sources.pins import Pins
from escalade.registry.tools import ToolDefinition, ToolSpec, define

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry
    from escalade.registry.gate import Gate
    from escalade.registry.lifecycle import Sunset

SCHEMA_FILE = Path(__file__).with_name("data") / "tools.schema.json"
"""JSON schema of manifests, as it was published with this version."""

_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_FROM_FUNCTION = {"input_schema", "output_schema"}
_OWN = {"function", "deprecated", "yanked"}
_DEPRECATED = {"message", "sunset", "replacement"}
_TOP = {"$schema", "manifest", "registry", "defaults", "tools", "imports", "pins"}


def load_manifest(path: str | os.PathLike[str], *, gate: Gate = "refuse", sunset: Sunset = "refuse") -> Registry:
    """A registry of what a manifest says. Raises BadInput for the first problem: `FILE:LINE: KEY: what is wrong`."""
    registry, problems = read_manifest(path, gate=gate, sunset=sunset)
    if problems:
        more = f" (and {len(problems) - 1} more; `escalade tools check` lists them)" if len(problems) > 1 else ""
        raise BadInput(f"{problems[0]}{more}")
    return registry


def read_manifest(
    path: str | os.PathLike[str], *, gate: Gate = "refuse", sunset: Sunset = "refuse"
) -> tuple[Registry, list[Problem]]:
    """A registry of the tools that can be had, and all that is wrong. Raises BadInput for a file that can't be read."""
    return _Manifest(Path(path)).registry(gate, sunset)


def manifest_schema() -> dict[str, Any]:
    """The JSON schema of manifests, made from what `ToolSpec` knows now."""
    spec = ToolSpec.model_json_schema(mode="validation")
    fields = {name: schema for name, schema in spec["properties"].items() if name not in _FROM_FUNCTION}
    for name, schema in fields.items():
        schema.pop("title", None)
        if name in _SAID:
            fields[name] = {**_SAID[name], **({"default": schema["default"]} if "default" in schema else {})}
    entry = {"type": "object", "additionalProperties": False, "properties": {**_SAID_HERE, **fields}}
    defaults = {name: schema for name, schema in fields.items() if name not in {"name", "version"}}
    used = json.dumps([entry, defaults])
    definitions = {name: one for name, one in spec.get("$defs", {}).items() if f"#/$defs/{name}" in used}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A manifest of tools of escalade",
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": ["tools"]}, {"required": ["imports"]}],
        "properties": {
            "$schema": {"type": "string"},
            "manifest": {"const": 1, "description": "The version of this form."},
            "registry": {"type": "string", "description": "The name of the registry."},
            "defaults": {"type": "object", "additionalProperties": False, "properties": defaults},
            "tools": {"type": "array", "items": {**entry, "required": ["function"]}},
            "imports": {
                "type": "object",
                "propertyNames": _SAID["name"],
                "additionalProperties": _import_schema(defaults),
                "description": "Tools of other servers, by the name of the source.",
            },
            "pins": {"type": "string", "description": f"Where accepted tools are pinned; {PINS} by default."},
        },
        **({"$defs": definitions} if definitions else {}),
    }


def _import_schema(defaults: dict[str, Any]) -> dict[str, Any]:
    """Of one source."""
    schema = Declared.model_json_schema(mode="validation")
    properties = {name: {k: v for k, v in one.items() if k != "title"} for name, one in schema["properties"].items()}
    properties["defaults"] = {"type": "object", "additionalProperties": False, "properties": defaults}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": ["tools"],
        "oneOf": [{"required": [kind]} for kind in ("mcp", "command", "openapi")],
    }


_DOLLARS = {"type": "string", "pattern": r"^\d+(\.\d{1,9})?$"}
_SAID: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "pattern": r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", "maxLength": 64},
    "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$"},
    "cost": {"anyOf": [_DOLLARS, {"type": "null"}], "description": "Dollars per call; null: unknown."},
    "max_cost": {"anyOf": [_DOLLARS, {"type": "null"}], "description": "Dollars that one call costs at most."},
    "limits": {
        "anyOf": [
            {"type": "string"},
            {"type": "array"},
            {
                "type": "object",
                "propertyNames": {"pattern": "^(tool|tenant|user|role:.+)$"},
                "additionalProperties": {"type": "string"},
            },
        ],
        "description": "Rate limits, all at once: 5/s, 100/min; or by whose uses count: {user: 5/s, tenant: 100/min}",
    },
}
"""What people write, where it differs from what a spec holds."""

_SAID_HERE: dict[str, Any] = {
    "function": {"type": "string", "pattern": f"^{_ENTRY_POINT.pattern}$", "description": "module:function"},
    "deprecated": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "message": {"type": "string"},
            "sunset": {"type": "string", "format": "date"},
            "replacement": {"type": "string"},
        },
    },
    "yanked": {"type": "string", "description": "Why; a yanked version is out of all ranges."},
}


class _Manifest:
    """One file, while it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.text, self.written = read_file(file)
        self.lines = lines_of(file, self.text)
        self.problems: list[Problem] = []

    def registry(self, gate: Gate, sunset: Sunset) -> tuple[Registry, list[Problem]]:
        from escalade.registry.catalogue import Registry

        written: Any = self.written
        if (
            not isinstance(written, Mapping)
            or not isinstance(written.get("tools", []), list)
            or not {"tools", "imports"} & set(written)
        ):
            self._say((), "expected a mapping with the key 'tools', and a list of tools in it")
            return Registry(gate=gate, sunset=sunset), self.problems
        self._known(written, _TOP, ())
        if written.get("manifest", 1) != 1:
            self._say(("manifest",), f"version {written['manifest']!r} of manifests is not known (known: 1)")
        name = written.get("registry", "default")
        if not isinstance(name, str):
            self._say(("registry",), f"expected a name, got {name!r}")
            name = "default"
        defaults = self._defaults(written.get("defaults", {}))
        registry = Registry(name=name, gate=gate, sunset=sunset)
        for i, entry in enumerate(written.get("tools", [])):
            self._add(registry, ("tools", i), entry, defaults)
        self._import(registry, written.get("imports", {}), written.get("pins", PINS))
        return registry, self.problems

    def _import(self, registry: Registry, said: Any, pins: Any) -> None:
        if not isinstance(said, Mapping) or not isinstance(pins, str):
            key = "pins" if isinstance(said, Mapping) else "imports"
            self._say((key,), "expected the name of a file" if key == "pins" else "expected sources by their names")
            return
        if not said:
            return
        try:
            kept = Pins(self.file.parent / pins)
        except BadInput as error:
            self._say(("pins",), str(error))
            return
        for name, one in said.items():
            self._source(registry, str(name), one, kept)

    def _source(self, registry: Registry, name: str, said: Any, pins: Pins) -> None:
        """Tools of another server, as they were pinned."""
        place = ("imports", name)
        if isinstance(said, Mapping) and set(said) - set(Declared.model_fields):
            self._known(said, set(Declared.model_fields), place)
            return
        try:
            declared = Declared.model_validate(said)
            source = declared.open(registry, name, self.file.parent, pins)
        except ValidationError as error:
            self._wrong(place, error)
        except EscaladeError as error:
            self._say(place, str(error))
        else:
            accept = f"look at it and accept it: escalade tools accept {name}{{}} --manifest {self.file}"
            for tool in source.unaccepted:
                self._say((*place, "tools"), f"{tool!r} is not accepted yet; {accept.format(f'/{tool}')}")
            if declared.tools == "*" and not source.tools:
                self._say((*place, "tools"), f"nothing of it is accepted yet; {accept.format('')}")

    def _wrong(self, place: Place, error: ValidationError) -> None:
        for one in error.errors(include_url=False):
            message = one["msg"].removeprefix("Value error, ")
            self._say((*place, *one["loc"]), f"{message}{_hint(one['loc'], one.get('input'))}")

    def _defaults(self, said: Any) -> Mapping[str, Any]:
        if not isinstance(said, Mapping):
            self._say(("defaults",), f"expected a mapping, got {said!r}")
            return {}
        self._known(said, _fields() - {"name", "version"}, ("defaults",))
        return said

    def _add(self, registry: Registry, place: Place, entry: Any, defaults: Mapping[str, Any]) -> None:
        if not isinstance(entry, Mapping):
            self._say(place, f"expected a mapping with the key 'function', got {entry!r}")
            return
        before = len(self.problems)
        self._known(entry, _fields() | _OWN, place)
        function = self._imported(entry.get("function"), place)
        deprecated = self._deprecated(entry.get("deprecated"), place)
        if len(self.problems) > before:
            return
        said = {name: value for name, value in entry.items() if name in _fields()}
        try:
            definition = self._defined(function, dict(defaults), said, place)
            if definition is None:
                return
            registry.register(definition)
            spec = definition.spec
            if deprecated is not None:
                registry.deprecate(spec.name, spec.version, **deprecated)
            if entry.get("yanked") is not None:
                registry.yank(spec.name, spec.version, str(entry["yanked"]))
        except EscaladeError as error:
            self._say(place, str(error))

    def _defined(
        self, function: Any, defaults: dict[str, Any], said: dict[str, Any], place: Place
    ) -> ToolDefinition | None:
        """The tool. What the entry says counts before what `@tool` said, and that before the defaults."""
        kept: dict[str, Any] = {}
        if isinstance(function, ToolDefinition):
            before = {name: getattr(function.spec, name) for name in function.spec.model_fields_set - _FROM_FUNCTION}
            if said.get("name", function.spec.name) != function.spec.name:
                before.pop("permission", None)  # it may have come from the name
            if "cost" in said:
                before.pop("max_cost", None)  # of the other cost
            said, kept, function = {**before, **said}, _kept(function, said), function._function
        said = {**{name: value for name, value in defaults.items() if name in _fields()}, **said}
        try:
            ToolSpec(**{"name": _name(function), **said})
        except ValidationError as error:
            self._wrong(place, error)
            return None
        return define(function, **{**said, **kept})

    def _imported(self, written: Any, place: Place) -> Any:
        """What an entry point names."""
        place = (*place, "function")
        if written is None:
            return self._say(place, "is missing; write it like 'module:function'")
        if not isinstance(written, str) or not _ENTRY_POINT.fullmatch(written):
            return self._say(place, f"expected 'module:function', got {written!r}")
        module, _, path = written.partition(":")
        try:
            found: Any = importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - whatever a module does when it is imported
            return self._say(place, f"module {module!r} can't be imported ({type(error).__name__}: {error})")
        for name in path.split("."):
            if not hasattr(found, name):
                return self._say(place, f"module {module!r} has no {path!r}")
            found = getattr(found, name)
        if not callable(found):
            return self._say(place, f"{written!r} is no function")
        return found

    def _deprecated(self, said: Any, place: Place) -> dict[str, Any] | None:
        if said is None:
            return None
        place = (*place, "deprecated")
        if not isinstance(said, Mapping):
            self._say(place, f"expected a mapping of {', '.join(sorted(_DEPRECATED))}, got {said!r}")
            return None
        self._known(said, _DEPRECATED, place)
        try:
            to_date(said.get("sunset"))
        except BadInput as error:
            self._say((*place, "sunset"), str(error).partition(": ")[2])
        return {str(name): value for name, value in said.items()}

    def _known(self, said: Mapping[Any, Any], known: set[str], place: Place) -> None:
        for key in said:
            if key not in known:
                self._say((*place, str(key)), f"unknown key (known: {', '.join(sorted(known))})")

    def _say(self, place: Place, message: str) -> None:
        self.problems.append(Problem(str(self.file), self.lines(place), key_of(place), " ".join(message.split())))


def _fields() -> set[str]:
    return set(ToolSpec.model_fields) - _FROM_FUNCTION


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__)).lower()


def _kept(tool: ToolDefinition, said: Mapping[str, Any]) -> dict[str, Any]:
    """What `@tool` was given and no file can say: functions."""
    cost = {} if tool.cost_of is None or "cost" in said else {"cost": tool.cost_of}
    return {"dry": tool.dry, **cost}


def _hint(place: Any, given: Any) -> str:
    """YAML reads 1.2 as a number."""
    quote = place and place[0] in {"cost", "max_cost", "version"} and isinstance(given, int | float)
    return f' (quote it: "{given}")' if quote else ""
