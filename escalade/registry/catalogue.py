"""The catalogue: which tools there are, in which versions, who may see them, and which version a range means."""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from escalade.errors import BadInput, DuplicateVersion, ToolRetired, UnknownName, one_of
from escalade.money import Money, money_or_none
from escalade.registry import gate as gates
from escalade.registry._shelf import Shelf, sees
from escalade.registry.breaker import Breaker
from escalade.registry.cache import Cache, MemoryCache
from escalade.registry.calling import Registered
from escalade.registry.lifecycle import Deprecated, Status, Sunset, to_date
from escalade.registry.limits import RateLimiter
from escalade.registry.lock import Lock, Locked
from escalade.registry.messages import scrubbed
from escalade.registry.rollout import Rollout
from escalade.registry.search import Found, rank
from escalade.registry.shadow import Shadow
from escalade.registry.stores.claims import Claims
from escalade.registry.tools import ToolDefinition, ToolSpec, define
from escalade.registry.usage import ToolUsage
from escalade.registry.versions import is_pin, is_stable
from escalade.scopes import Entry, Principal, Scope, current, require

if TYPE_CHECKING:
    import datetime as dt

    from escalade.registry.governed import GovernedTool
    from escalade.registry.sources.mcp import McpSource
    from escalade.registry.sources.openapi import OpenApiSource
    from escalade.registry.sources.source import Source

_registries: weakref.WeakValueDictionary[str, Registry] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class Registry:
    """Tools by name and version. `name` finds it again after pickling; the newest registry of a name wins.

        registry = Registry([search, send])
        agent = dspy.ReAct("question -> answer", tools=registry.tools_for())

    `gate`: "refuse" registers no version that breaks what the one before promises, "off" any. `sunset`: "refuse" lets
    nobody use a version past its sunset date, "warn" only says so. `limiter`: where rate limits are counted, for
    processes that share them (`registry/stores`); `cache`: where results of tools with `cache=` are kept;
    `claims`: what tools that are used `once` have done, for processes that share a run. All in memory by default.
    `sources`: other servers whose tools were imported, by name.

    Limits, breakers and usage belong to a version of a tool in a registry, and are shared by all copies of its
    GovernedTool. Within a run, what a range means is decided once: see `lock`.
    """

    def __init__(
        self,
        tools: Iterable[ToolDefinition | Callable[..., Any]] = (),
        *,
        name: str = "default",
        gate: gates.Gate = "refuse",
        sunset: Sunset = "refuse",
        limiter: RateLimiter | None = None,
        cache: Cache | None = None,
        claims: Claims | None = None,
    ) -> None:
        one_of("gate", gate, get_args(gates.Gate))
        one_of("sunset", sunset, get_args(Sunset))
        self.name, self.gate, self.sunset = name, gate, sunset
        self.limiter, self.cache, self.claims = limiter, MemoryCache() if cache is None else cache, claims
        self._shelf = Shelf(sunset)
        self._model_names: dict[str, str] = {}
        self.sources: dict[str, Source] = {}
        if callable(tools) or isinstance(tools, str):
            raise BadInput(f"a registry takes a list of tools, Registry([...]), got {tools!r}")
        for tool in tools:
            self.register(tool)
        with _lock:
            _registries[name] = self

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, gate: gates.Gate = "refuse", sunset: Sunset = "refuse") -> Registry:
        """A registry from a manifest: `tools.yaml`, or the same as JSON or TOML. It imports the functions that the
        manifest names, so load only manifests that you would run. Raises BadInput: file, line, key, and what is wrong.
        """
        from escalade.registry.manifest import load_manifest

        return load_manifest(path, gate=gate, sunset=sunset)

    def import_mcp(self, name: str, **options: Any) -> McpSource:
        """Register tools of an MCP server; see `sources.mcp.import_mcp`."""
        from escalade.registry.sources.mcp import import_mcp

        return import_mcp(self, name, **options)

    def import_openapi(self, name: str, description: Any, **options: Any) -> OpenApiSource:
        """Register operations of a web API; see `sources.openapi.import_openapi`."""
        from escalade.registry.sources.openapi import import_openapi

        return import_openapi(self, name, description, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        return self

    @property
    def findable(self) -> bool:
        """Is this the registry that its name finds?"""
        return _registries.get(self.name) is self

    # ------------------------------------------------------------------------------------------------- registering

    def register(
        self,
        tool: ToolDefinition | Callable[..., Any],
        *,
        gate: gates.Gate | None = None,
        share: float | None = None,
        **settings: Any,
    ) -> ToolDefinition:
        """Add a tool, or a version of one; a plain function becomes a tool as by `@tool`. Works as a decorator.

        `gate`: other than the registry's own. `share`: begins a rollout with this share of callers at once, so that
        nobody else ever gets the new version; `settings`: of that rollout, as of `Rollout` (sticky_by, guardrails).

        Raises DuplicateVersion, even for the same function: versions are immutable; IncompatibleVersion; BadInput when
        models couldn't tell the tool from another one.
        """
        gate = self.gate if gate is None else gate
        one_of("gate", gate, get_args(gates.Gate))
        definition = tool if isinstance(tool, ToolDefinition) else define(tool)
        spec = definition.spec
        with self._shelf.changing:
            if spec.version in self._shelf.tools.get(spec.name, {}):
                raise DuplicateVersion(
                    f"tool {spec.label} is registered already; versions are immutable, publish a new one"
                )
            other = self._model_names.get(spec.model_name, spec.name)
            if other != spec.name:
                raise BadInput(f"tool {spec.name!r}: models would call it {spec.model_name!r}, as they do {other!r}")
            verdict = self.judge(spec) if gate == "refuse" else None
            if verdict is not None:
                verdict.check()
            if settings and share is None:
                raise BadInput(f"tool {spec.label}: {', '.join(settings)} is for a rollout: say which share=")
            if share is not None:
                self._no_rollout(spec.name)
            versions = dict(self._shelf.tools.get(spec.name, {}))
            self._shelf.tools[spec.name] = {**versions, spec.version: Registered(self, definition)}
            if share is not None:
                self._begin(spec, share, settings, versions)
            self._model_names[spec.model_name] = spec.name
            self._shelf.changed()
        return definition

    def _begin(self, spec: ToolSpec, share: float, settings: dict[str, Any], before: dict[str, Registered]) -> None:
        """A rollout of what was just registered, or neither."""
        try:
            self.rollout(spec.name, spec.version, share=share, **settings)
        except (BadInput, TypeError):
            if before:
                self._shelf.tools[spec.name] = before
            else:
                del self._shelf.tools[spec.name]
            self._shelf.changed()
            raise

    def judge(self, spec: ToolSpec) -> gates.Verdict | None:
        """What the gate says of a version that might be registered; None where nothing was promised."""
        found: dict[bool, list[ToolSpec]] = {True: [], False: []}
        for one in self._shelf.tools.get(spec.name, {}).values():
            found[one.status.in_ranges].append(one.spec)
        return gates.judge(spec, found[True], withdrawn=found[False])

    def deprecate(
        self,
        name: str,
        version: str | None = None,
        *,
        message: str = "",
        sunset: str | dt.date | None = None,
        replacement: str = "",
    ) -> None:
        """Warn, once per run, who gets this version (all versions in a range; None: all there are). After the day of
        `sunset` ("2026-12-31", UTC) it is refused, or still warned of, as the registry is set. Raises UnknownName,
        BadInput.
        """
        said = Deprecated(message, to_date(sunset), replacement)
        self._shelf.mark(name, version, deprecated=said)

    def yank(self, name: str, version: str, reason: str = "") -> None:
        """Take a version out of all ranges. Who asks for exactly it still gets it, with a warning. Raises UnknownName,
        BadInput.
        """
        self._shelf.mark(name, version, yanked=reason)

    def status(self, name: str, version: str) -> Status:
        """Whether a version is deprecated or yanked. Raises UnknownName, BadInput."""
        return self._shelf.matching(name, version)[-1].status

    def rollout(
        self,
        name: str,
        version: str,
        *,
        share: float | None = None,
        cohorts: Mapping[str, Iterable[str]] | None = None,
        shadow: Shadow | None = None,
        **settings: Any,
    ) -> Rollout:
        """Give a version to a share of those who ask for a range that has it: `share=0.1`, later 0.5, then 1.0.

        `cohorts`: who always gets it, as {"beta": ["ana", "tenant:acme", "role:tester"]}. `settings`: as of `Rollout`
        (sticky_by, guardrails). Called again for the same version, it changes what is given and keeps what was
        measured. Raises UnknownName, BadInput.
        """
        with self._shelf.changing:
            running = self._shelf.rollouts.get(name)
            if running is None or running.version != version or running.status != "running":
                self._no_rollout(name)
                running = Rollout.begin(self._shelf.matching(name, version)[-1], self._shelf.stable(name), **settings)
            elif settings:
                raise BadInput(f"rollout of {name}@{version}: {', '.join(settings)} can only be set at its beginning")
            running.change(share=share, cohorts=cohorts, shadow=shadow)
            self._shelf.rollouts[name] = running
            self._shelf.changed()
        return running

    def _no_rollout(self, name: str) -> None:
        """Two at once could not be told apart by what they do to the old version."""
        running = self._shelf.rollouts.get(name)
        if running is not None and running.status == "running":
            raise BadInput(f"{name}@{running.version} is in a rollout: promote it or roll it back first")

    def rollouts(self) -> list[Rollout]:
        """Those that run and those that have ended, by name of the tool; the latest of each tool."""
        return [self._shelf.rollouts[name] for name in sorted(self._shelf.rollouts)]

    # --------------------------------------------------------------------------------------------------- resolving

    def resolve(self, name: str, wanted: str | None = None) -> GovernedTool:
        """The newest version in a range, as in `versions`; None: the newest stable one. "crm.search@^1.2" says both.

        Within a run it is decided once, and the tool is fixed to its version. A tool that was made outside of runs by a
        range follows rollouts to versions that take all that its own takes. Raises UnknownName (with what was perhaps
        meant), BadInput for what is no range, or when no version is in it; ToolRetired, LockDrift.
        """
        from escalade.registry.governed import GovernedTool

        found = self._shelf.find(name, wanted)
        if wanted is None:
            wanted = name.partition("@")[2] or None
        scope = current()
        fixed = is_pin(wanted) or (scope is not None and scope.once is not None)
        return GovernedTool(found, None if fixed else wanted or "")

    get_tool = resolve

    def spec(self, name: str, wanted: str | None = None) -> ToolSpec:
        """What is known of a version, found as by `resolve`."""
        return self._shelf.find(name, wanted).spec

    def specs(self) -> list[ToolSpec]:
        """All versions of all tools, by name, oldest first."""
        return [one.spec for one in self._shelf.all()]

    def tools(self, wanted: Iterable[str]) -> list[GovernedTool]:
        """Several at once: `registry.tools(["crm.search@^2", "mail.send"])`. Raises as `resolve`, BadInput for a tool
        twice.

        These are tools to build with: whether they may be called is decided at each call.
        """
        wanted = _names(wanted)
        found = [self.resolve(one) for one in wanted]
        seen: dict[str | None, str] = {}
        for tool in found:
            if tool.name in seen:
                raise BadInput(f"models couldn't tell {seen[tool.name]} from {tool.spec.label}: both are {tool.name!r}")
            seen[tool.name] = tool.spec.label
        return found

    # ---------------------------------------------------------------------------------------------- what one may see

    def tools_for(self, principal: Principal | None = None) -> list[GovernedTool]:
        """The newest stable version of each tool that may be called in the current scope, by name.

        `principal`: by him too, as in a scope nested for him. Who may not call a tool doesn't see it. Raises NoScope,
        UnknownName for a role that doesn't exist.
        """
        from escalade.registry.governed import GovernedTool

        return [GovernedTool(self._shelf.find(one.spec.name)) for one in self._visible(principal)]

    def specs_for(self, principal: Principal | None = None) -> list[ToolSpec]:
        """What `tools_for` lists, without making tools of it."""
        return [one.spec for one in self._visible(principal)]

    def search(self, query: str, *, limit: int | None = 10, principal: Principal | None = None) -> list[Found]:
        """What `tools_for` lists and fits the query, best first: words of names, tags, owners and descriptions.

        An empty query finds all. Raises as `tools_for`.
        """
        return rank(query, self.specs_for(principal), limit)

    def tool_for(self, name: str, wanted: str | None = None) -> GovernedTool:
        """A tool that a model asked for by name (`crm.search`, `crm_search`; a version is no part of it). One that may
        not be called is as unknown as one that there isn't: the same UnknownName for both, which knows only of what may
        be seen. The record tells them apart. Raises NoScope, UnknownName; BadInput when no version is in the range.
        """
        from escalade.registry.governed import GovernedTool

        scope = require("looking for a tool")
        try:
            registered = self._named(name, wanted)
        except BadInput:  # which says what versions there are
            hidden = self._hidden(scope, self._model_names.get(name, name))
            if hidden is None:
                raise
            registered = hidden
        if registered is not None and sees(scope, registered):
            return GovernedTool(registered)
        self._record_miss(scope, name, registered)
        raise UnknownName("tool", scrubbed(name), [spec.name for spec in self.specs_for()])

    # --------------------------------------------------------------------------------------------------------- locks

    def write_lock(self, path: str | os.PathLike[str], wanted: Iterable[str] | None = None) -> Lock:
        """Write down which versions are meant: by `wanted` (["crm.search@^2"]), else by what this run has resolved so
        far, else the newest stable version of each tool. Raises as `resolve`.
        """
        lock = Lock(tuple(self._meant(wanted)), str(path))
        lock.write(path)
        return lock

    def load_lock(self, path: str | os.PathLike[str]) -> Lock:
        """Read a lock and see that all that it locks is here, as it was. Raises LockDrift, BadInput."""
        lock = Lock.load(path)
        for one in lock.tools:
            lock.check(self._shelf.pinned(one.name, one.version).spec)
        return lock

    def resolved(self) -> dict[str, str]:
        """What ranges have meant in this run so far: {"crm.search@^1": "1.2.0", "mail.send": "2.0.0"}."""
        return {
            name if wanted is None else f"{name}@{wanted}": registered.spec.version
            for (name, wanted), registered in self._shelf.run().items()
        }

    # --------------------------------------------------------------------------------------------------------- usage

    def usage(self) -> list[ToolUsage]:
        """What each version was used for, by name, oldest first."""
        return [one.meter.usage() for one in self._shelf.all()]

    def breakers(self) -> list[tuple[str, str, Breaker]]:
        """(name, version, breaker) of each tool that can be down."""
        found = [(one.spec.name, one.spec.version, one.resource.breaker) for one in self._shelf.all()]
        return [(name, version, breaker) for name, version, breaker in found if breaker is not None]

    def log_usage(
        self,
        tool_name: str,
        duration: float,
        success: bool,  # noqa: FBT001 - a name and an order that callers know from elsewhere
        *,
        version: str | None = None,
        cost: str | Money | None = None,
        tokens: int = 0,
    ) -> None:
        """Count a use that took place elsewhere, such as in another process. `duration`: seconds; `cost`: dollars.

        Uses through the guard count by themselves.
        """
        amount = money_or_none(cost)
        outcome = "ok" if success else "failed"
        self._shelf.find(tool_name, version).meter.add(
            outcome, duration, None if amount is None else int(amount), tokens
        )

    def _visible(self, principal: Principal | None) -> list[Registered]:
        scope = require("listing the tools that one may call")
        if principal is not None:
            scope.access.check_roles(principal.roles)
        return self._shelf.visible(scope, principal)

    def _named(self, name: str, wanted: str | None) -> Registered | None:
        name = name if name in self._shelf.tools else self._model_names.get(name, name)
        if "@" in name:  # or whoever names a tool could choose a version that he isn't given
            return None
        try:
            return self._shelf.find(name, wanted)
        except (UnknownName, ToolRetired):
            return None

    def _hidden(self, scope: Scope, name: str) -> Registered | None:
        """The newest version of a tool of which no version may be seen here; None if one may."""
        versions = [one for one in self._shelf.all() if one.spec.name == name]
        return None if not versions or any(sees(scope, one) for one in versions) else versions[-1]

    def _record_miss(self, scope: Scope, name: str, registered: Registered | None) -> None:
        """In the record, who asked for what he may not use differs from who asked for what there isn't."""
        entry = Entry(
            call_id=uuid.uuid4().hex[:16],
            run_id=scope.run_id,
            principal=scope.principal,
            principals=scope.principals,
            resource=scrubbed(name)[:64] if registered is None else registered.spec.name,
            version="" if registered is None else registered.spec.version,
            kind="tool",
            started=time.time(),
            outcome="UnknownName" if registered is None else "PermissionDenied",
        )
        if registered is not None:
            entry.permission = registered.spec.permission
            entry.side_effects = registered.resource.effect
            entry.policy_digest = getattr(scope.access, "digest", "")
            entry.rule = scope.permits(entry.permission, entry.side_effects).rule
            registered.meter.observe(entry)
        scope.recorder.denied(entry)

    def _meant(self, wanted: Iterable[str] | None) -> list[Locked]:
        if wanted is not None:
            asked = [(name, range_ or None) for name, _, range_ in (one.partition("@") for one in _names(wanted))]
            meant = {(name, range_): self._shelf.find(name, range_) for name, range_ in asked}
        else:
            names = [name for name in sorted(self._shelf.tools) if any(map(is_stable, self._shelf.tools[name]))]
            meant = self._shelf.run() or {(name, None): self._shelf.find(name) for name in names}
        ranges: dict[str, list[str]] = {}
        for (_, range_), one in meant.items():
            ranges.setdefault(one.spec.label, []).append(range_ or "")
        specs = {one.spec.label: one.spec for one in meant.values()}
        return [Locked.of(spec, ranges[label]) for label, spec in specs.items()]


def _names(wanted: Iterable[str]) -> list[str]:
    """A text is a list of letters, too, and never meant as one."""
    if isinstance(wanted, str):
        raise BadInput(f"expected a list of names: [{wanted!r}]")
    return list(wanted)


def find_registry(name: str) -> Registry:
    """The registry of that name in this process. Raises UnknownName."""
    found = _registries.get(name)
    if found is None:
        raise UnknownName("registry", name, list(_registries))
    return found
