"""A source: another party's tools in a registry of ours, each pinned, and quarantined when it changes."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, Quarantined, UnknownName
from escalade.registry.gate import breaking
from escalade.registry.sources._background import shared
from escalade.registry.sources._schema import ForeignInputs, inlined, validator
from escalade.registry.sources.definitions import Definition, ForeignTool, Said, chosen, foreign_tool, our_names
from escalade.registry.sources.pins import Drift, Pin, Pins
from escalade.registry.tools import SideEffects, ToolSpec
from escalade.registry.versions import next_breaking, parse_version

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry

_FIRST = "1.0.0"


class Source(ABC):
    """Somebody's tools. `recheck`: seconds for which they are taken to be unchanged."""

    def __init__(self, registry: Registry, name: str, pins: Pins, *, recheck: float) -> None:
        self.name, self._registry, self._pins, self._recheck = name, registry, pins, recheck
        self._specs: dict[str, ToolSpec] = {}
        self._said: dict[str, dict[str, Any]] = {}
        self._now: dict[str, Definition] | None = None
        self._looked = 0.0
        self._looking: asyncio.Lock | None = None

    @abstractmethod
    async def _listing(self) -> dict[str, Definition]:
        """What is offered now. Runs in the background loop, as does `_invoke`."""

    @abstractmethod
    async def _invoke(self, definition: Definition, arguments: dict[str, Any], check: Any) -> Any:
        """Do it. `check`: a validator of its output schema, or None."""

    @abstractmethod
    def _effect(self, definition: Definition) -> SideEffects:
        """Its side effects where the importer says nothing."""

    @property
    def tools(self) -> dict[str, str]:
        """The source's name of each imported tool -> ours, with the newest version."""
        return {tool: spec.label for tool, spec in self._specs.items()}

    def listing(self) -> dict[str, Definition]:
        """What is offered now. Blocks; raises ToolError when it can't be found out."""
        return shared.wait(self._look())

    def changes(self) -> list[Drift]:
        """What of the imported tools is no longer as pinned. Blocks; raises as `listing`."""
        now, pins = self.listing(), self._pins.of(self.name)
        return [
            Drift(tool, pins[tool].definition, now.get(tool))
            for tool in self._specs
            if now.get(tool) != pins[tool].definition
        ]

    def accept(self, tool: str) -> ToolSpec:
        """Pin what a tool is now, and register it as a new version: who uses the old one is refused.

        `tool`: the source's name of it. Blocks. Raises UnknownName, BadInput when it is no longer offered.
        """
        if tool not in self._specs:
            raise UnknownName("imported tool", tool, list(self._specs))
        now = self.listing().get(tool)
        if now is None:
            raise BadInput(f"{self.name}: {tool!r} isn't offered any more, there is nothing to accept")
        pin, old = self._pins.get(self.name, tool), self._specs[tool]
        if pin is not None and pin.definition == now:
            return old
        version = _version_after(old, self._made(Pin(old.version, now), old.name).spec)
        made = self._registry.register(self._made(Pin(version, now), old.name))
        self._pins.put(self.name, {tool: Pin(version, now)})
        self._specs[tool] = made.spec
        return made.spec

    def _import(self, tools: Iterable[str] | Mapping[str, Said] | str, prefix: str, said: Said) -> None:
        """Register what was chosen, as pinned; pin what isn't yet."""
        known = {tool: pin.definition for tool, pin in self._pins.of(self.name).items()}
        if isinstance(tools, str) or any(tool not in known for tool in tools):
            known = {**self.listing(), **known}
        wanted = chosen(tools, known)
        names = our_names(prefix, wanted, {tool: own["name"] for tool, own in wanted.items() if "name" in own})
        fresh = {tool: Pin(_FIRST, known[tool]) for tool in wanted if self._pins.get(self.name, tool) is None}
        made = []
        for tool, own in wanted.items():
            pin = self._pins.get(self.name, tool) or fresh[tool]
            fields = {"side_effects": self._effect(pin.definition), "timeout": 30.0, **said, **own}
            self._said[tool] = {key: value for key, value in fields.items() if key not in {"name", "version"}}
            made.append((tool, self._made(pin, names[tool])))
        for tool, definition in made:  # all of them or, where one can't be used, none
            self._specs[tool] = self._registry.register(definition).spec
        if fresh:
            self._pins.put(self.name, fresh)

    def _made(self, pin: Pin, name: str) -> ForeignTool:
        definition = pin.definition
        inputs = _Gated(definition.input_schema, name.replace(".", "_"), self, definition)
        output = definition.output_schema
        check = None if output is None else validator(inlined(output, name, whole=False), name)

        async def call(arguments: dict[str, Any]) -> Any:
            return await shared.run(self._call(definition, name, arguments, check))

        return foreign_tool(definition, name, {**self._said[definition.name], "version": pin.version}, inputs, call)

    async def _call(self, definition: Definition, name: str, arguments: dict[str, Any], check: Any) -> Any:
        if self._now is None or time.monotonic() - self._looked >= self._recheck:
            await self._look()
        self.gate(definition, name)
        return await self._invoke(definition, arguments, check)

    async def _look(self) -> dict[str, Definition]:
        self._looking = self._looking or asyncio.Lock()
        asked = time.monotonic()
        async with self._looking:
            if self._now is None or self._looked < asked:  # else somebody looked while we waited
                started = time.monotonic()
                self._now = await self._listing()
                self._looked = started
            return self._now

    def gate(self, definition: Definition, name: str) -> None:
        """Raises Quarantined when something else than this is known to be offered."""
        if self._now is None or self._now.get(definition.name) == definition:
            return
        parts = ", ".join(Drift(definition.name, definition, self._now.get(definition.name)).parts)
        raise Quarantined(
            f"{name} is quarantined: its server changed it since it was pinned ({parts}); "
            f"whoever runs this must look at it and accept it first"
        )


class _Gated(ForeignInputs):
    """Arguments of a tool that may be quarantined: the guard asks before it debits anything."""

    def __init__(self, schema: Any, tool: str, source: Source, definition: Definition) -> None:
        super().__init__(schema, tool)
        self._source, self._definition = source, definition

    def accept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        self._source.gate(self._definition, self.tool)
        return super().accept(args, kwargs)


def _version_after(old: ToolSpec, new: ToolSpec) -> str:
    """The version that the change has to be: breaking, of the schema, or of the words."""
    if breaking(old, new):
        return next_breaking(old.version)
    major, minor, patch = (int(str(part)) for part in parse_version(old.version)[:3])
    same = (old.input_schema, old.output_schema) == (new.input_schema, new.output_schema)
    return f"{major}.{minor}.{patch + 1}" if same else f"{major}.{minor + 1}.0"
