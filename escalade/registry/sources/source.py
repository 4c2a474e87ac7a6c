"""A source: another party's tools in a registry of ours, each pinned, and quarantined when it changes."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from escalade.errors import BadInput, Quarantined, UnknownName
from escalade.registry.gate import breaking
from escalade.registry.sources._background import shared
from escalade.registry.sources._schema import ForeignInputs, inlined, validator
from escalade.registry.sources.definitions import (
    Definition,
    ForeignTool,
    Said,
    check_fields,
    chosen,
    foreign_tool,
    our_names,
)
from escalade.registry.sources.pins import Drift, Pin, Pins, difference
from escalade.registry.tools import SideEffects, ToolSpec
from escalade.registry.versions import next_breaking, parse_version

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry

_FIRST = "1.0.0"


@dataclass(frozen=True)
class Terms:
    """On which terms tools are imported. `prefix`: before their names. `said`: fields of a ToolSpec for all of them;
    side effects and a timeout are ours where it says nothing. `permissions`: before each tool's name in what a role
    must grant: "partner" makes it "partner.crm.search:call".
    """

    prefix: str
    said: Said
    permissions: str = ""

    def fields(self, name: str, own: Said, effect: SideEffects) -> dict[str, Any]:
        """Of one tool, which has fields of its `own`."""
        fields = {"side_effects": effect, "timeout": 30.0, **self.said, **own}
        if self.permissions:
            fields.setdefault("permission", f"{self.permissions}.{name}:call")
        return {key: value for key, value in fields.items() if key not in {"name", "version"}}


@dataclass(frozen=True)
class Reviewed:
    """A tool of a source. `ours`: as it is registered, "" for not yet. `now`: None when the source has it no more."""

    tool: str
    ours: str
    pinned: Definition | None
    now: Definition | None

    @property
    def state(self) -> Literal["as pinned", "changed", "gone", "not accepted"]:
        """Can it be called?"""
        if self.now is None:
            return "gone"
        if self.pinned is None:
            return "not accepted"
        return "as pinned" if self.now == self.pinned else "changed"

    @property
    def difference(self) -> str:
        """A unified diff, for people; of a new tool, all of it."""
        return difference(self.pinned, self.now)

    @property
    def drift(self) -> Drift | None:
        """What changed since it was pinned, None for nothing."""
        return None if self.pinned is None or self.pinned == self.now else Drift(self.tool, self.pinned, self.now)


class Source(ABC):
    """Somebody's tools. `where`: an address, a command or a file, for people. `recheck`: seconds for which they are
    taken to be unchanged. `skipped`: what is offered and can't be a tool, and why.
    """

    def __init__(self, registry: Registry, name: str, pins: Pins, *, where: str, recheck: float) -> None:
        self.name, self.where = name, where
        self._registry, self._pins, self._recheck = registry, pins, recheck
        self.skipped: dict[str, str] = {}
        self._specs: dict[str, ToolSpec] = {}
        self._terms, self._own, self._everything = Terms("", {}), dict[str, dict[str, Any]](), False
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

    @property
    def unaccepted(self) -> list[str]:
        """What was asked for and isn't registered: nobody has accepted it yet."""
        return [tool for tool in self._own if tool not in self._specs]

    def listing(self) -> dict[str, Definition]:
        """What is offered now. Blocks; raises ToolError when it can't be found out."""
        return shared.wait(self._look())

    def changes(self) -> list[Drift]:
        """What of the imported tools is no longer as pinned. Blocks; raises as `listing`."""
        return [one.drift for one in self.review() if one.drift is not None]

    def review(self) -> list[Reviewed]:
        """Each tool that was asked for, beside what is offered now. Blocks; raises as `listing`."""
        now, pins = self.listing(), self._pins.of(self.name)
        tools = dict.fromkeys([*self._own, *(now if self._everything else ())])
        return [
            Reviewed(
                tool,
                self._specs[tool].label if tool in self._specs else "",
                pins[tool].definition if tool in self._specs else None,
                now.get(tool),
            )
            for tool in tools
        ]

    def accept(self, tool: str) -> ToolSpec:
        """Pin what a tool is now, and register it as a new version: who uses the old one is refused.

        `tool`: the source's name of it. Blocks. Raises UnknownName, BadInput when it is no longer offered.
        """
        if tool not in self._own and not self._everything:
            raise UnknownName("imported tool", tool, list(self._own))
        now = self.listing().get(tool)
        if now is None:
            more = " any more" * (tool in self._specs)
            why = f"can't be a tool{more}: {self.skipped[tool]}" if tool in self.skipped else f"isn't offered{more}"
            raise BadInput(f"{self.name}: {tool!r} {why}; there is nothing to accept")
        if tool not in self._specs:
            self._own.setdefault(tool, {})
            self._add({tool: Pin(_FIRST, now)})
            self._pins.put(self.name, {tool: Pin(_FIRST, now)})
            return self._specs[tool]
        pin, old = self._pins.get(self.name, tool), self._specs[tool]
        if pin is not None and pin.definition == now:
            return old
        version = _version_after(old, self._made(Pin(old.version, now), old.name).spec)
        made = self._registry.register(self._made(Pin(version, now), old.name))
        self._pins.put(self.name, {tool: Pin(version, now)})
        self._specs[tool] = made.spec
        return made.spec

    def _import(self, tools: Iterable[str] | Mapping[str, Said] | str, terms: Terms, *, ask: bool = True) -> None:
        """Register what was chosen, as pinned; pin what isn't yet. `ask=False`: ask nobody and pin nothing; what isn't
        pinned stays unaccepted.
        """
        check_fields(terms.said)
        known = {tool: pin.definition for tool, pin in self._pins.of(self.name).items()}
        if ask and (isinstance(tools, str) or any(tool not in known for tool in tools)):
            known = {**self.listing(), **known}
        self._own = chosen(tools, known if ask or isinstance(tools, str) else tools, self.skipped)
        self._terms, self._everything = terms, isinstance(tools, str)
        fresh = {
            tool: Pin(_FIRST, known[tool]) for tool in self._own if ask and self._pins.get(self.name, tool) is None
        }
        self._add({**fresh, **{tool: pin for tool, pin in self._pins.of(self.name).items() if tool in self._own}})
        if fresh:
            self._pins.put(self.name, fresh)
        self._registry.sources[self.name] = self

    def _add(self, pins: Mapping[str, Pin]) -> None:
        """Register these: all of them or, where one can't be used, none."""
        names = self._names()
        made = [(tool, self._made(pin, names[tool])) for tool, pin in pins.items()]
        for tool, definition in made:
            self._specs[tool] = self._registry.register(definition).spec

    def _names(self) -> dict[str, str]:
        """The source's name of each tool that was asked for -> ours."""
        return our_names(
            self._terms.prefix, self._own, {tool: own["name"] for tool, own in self._own.items() if "name" in own}
        )

    def _made(self, pin: Pin, name: str) -> ForeignTool:
        definition = pin.definition
        inputs = _Gated(definition.input_schema, name.replace(".", "_"), self, definition)
        output = definition.output_schema
        check = None if output is None else validator(inlined(output, name, whole=False), name)

        async def call(arguments: dict[str, Any]) -> Any:
            return await shared.run(self._call(definition, name, arguments, check))

        fields = self._terms.fields(name, self._own[definition.name], self._effect(definition))
        return foreign_tool(definition, name, {**fields, "version": pin.version}, inputs, call)

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
