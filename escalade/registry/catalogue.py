"""The catalogue: which tools there are, in which versions, and who may see them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, DuplicateVersion, UnknownName
from escalade.money import Money, money_or_none
from escalade.registry.calling import Registered
from escalade.registry.tools import ToolDefinition, ToolSpec, define
from escalade.registry.usage import ToolUsage
from escalade.registry.versions import is_stable, newest, parse_version
from escalade.scopes import Principal, require

if TYPE_CHECKING:
    from escalade.registry.governed import GovernedTool

_registries: weakref.WeakValueDictionary[str, Registry] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_CACHED = 4096


class Registry:
    """Tools by name and version. `name` finds it again after pickling; the newest registry of a name wins.

        registry = Registry([search, send])
        agent = dspy.ReAct("question -> answer", tools=registry.tools_for())

    Limits, breakers and usage belong to a version of a tool in a registry, and are shared by all copies of its
    GovernedTool.
    """

    def __init__(self, tools: Iterable[ToolDefinition | Callable[..., Any]] = (), *, name: str = "default") -> None:
        self.name = name
        self._tools: dict[str, dict[str, Registered]] = {}
        self._model_names: dict[str, str] = {}
        self._resolved: dict[tuple[str, str | None], Registered] = {}
        self._changing = threading.Lock()
        for tool in tools:
            self.register(tool)
        with _lock:
            _registries[name] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        return self

    @property
    def findable(self) -> bool:
        """Is this the registry that its name finds?"""
        return _registries.get(self.name) is self

    def register(self, tool: ToolDefinition | Callable[..., Any]) -> ToolDefinition:
        """Add a tool, or a version of one; a plain function becomes a tool as by `@tool`. Works as a decorator.

        Raises DuplicateVersion, even for the same function: versions are immutable; BadInput when models couldn't
        tell the tool from another one.
        """
        definition = tool if isinstance(tool, ToolDefinition) else define(tool)
        spec = definition.spec
        with self._changing:
            if spec.version in self._tools.get(spec.name, {}):
                raise DuplicateVersion(
                    f"tool {spec.label} is registered already; versions are immutable, publish a new one"
                )
            other = self._model_names.setdefault(spec.model_name, spec.name)
            if other != spec.name:
                raise BadInput(f"tool {spec.name!r}: models would call it {spec.model_name!r}, as they do {other!r}")
            self._tools.setdefault(spec.name, {})[spec.version] = Registered(self, definition)
            self._resolved = {}  # a new one, not cleared: a look-up under way must not put back what it found before
        return definition

    def resolve(self, name: str, wanted: str | None = None) -> GovernedTool:
        """The newest version in a range, as in `versions`; None: the newest stable one. "crm.search@^1.2" says both.

        Raises UnknownName (with what was perhaps meant), BadInput for what is no range, or when no version is in it.
        """
        from escalade.registry.governed import GovernedTool

        return GovernedTool(self._find(name, wanted))

    get_tool = resolve

    def spec(self, name: str, wanted: str | None = None) -> ToolSpec:
        """What is known of a version, found as by `resolve`."""
        return self._find(name, wanted).spec

    def specs(self) -> list[ToolSpec]:
        """All versions of all tools, by name, oldest first."""
        return [
            self._tools[name][version].spec
            for name in sorted(self._tools)
            for version in sorted(self._tools[name], key=parse_version)
        ]

    def tools(self, wanted: Iterable[str]) -> list[GovernedTool]:
        """Several at once: `registry.tools(["crm.search@^2", "mail.send"])`. Raises as `resolve`, BadInput for a tool
        twice.

        These are tools to build with: whether they may be called is decided at each call.
        """
        found = [self.resolve(one) for one in wanted]
        seen: dict[str | None, str] = {}
        for tool in found:
            if tool.name in seen:
                raise BadInput(f"models couldn't tell {seen[tool.name]} from {tool.spec.label}: both are {tool.name!r}")
            seen[tool.name] = tool.spec.label
        return found

    def tools_for(self, principal: Principal | None = None) -> list[GovernedTool]:
        """The newest stable version of each tool that may be called in the current scope, by name.

        `principal`: by him too, as in a scope nested for him. Who may not call a tool doesn't see it. Raises NoScope,
        UnknownName for a role that doesn't exist.
        """
        from escalade.registry.governed import GovernedTool

        scope = require("listing the tools that one may call")
        if principal is not None:
            scope.access.check_roles(principal.roles)

        def visible(registered: Registered) -> bool:
            seen = registered.resource
            return scope.sees(seen.permission, seen.effect, seen.schema, principal=principal)

        stable = (self._find(name, None) for name in sorted(self._tools) if any(map(is_stable, self._tools[name])))
        return [GovernedTool(registered) for registered in stable if visible(registered)]

    def usage(self) -> list[ToolUsage]:
        """What each version was used for, by name, oldest first."""
        return [self._tools[spec.name][spec.version].meter.usage() for spec in self.specs()]

    def log_usage(
        self,
        tool_name: str,
        duration: float,
        success: bool,  # noqa: FBT001 - a name and an order that callers know from elsewhere
        *,
        version: str | None = None,
        cost: str | Money | None = None,
    ) -> None:
        """Count a use that took place elsewhere, such as in another process. `duration`: seconds; `cost`: dollars.

        Uses through the guard count by themselves.
        """
        amount = money_or_none(cost)
        outcome = "ok" if success else "failed"
        self._find(tool_name, version).meter.add(outcome, duration, None if amount is None else int(amount))

    def _find(self, name: str, wanted: str | None) -> Registered:
        if wanted is None and "@" in name:
            name, _, wanted = name.partition("@")
        resolved = self._resolved
        found = resolved.get((name, wanted))
        if found is None:
            found = self._search(name, wanted)
            if len(resolved) < _CACHED:
                resolved[name, wanted] = found
        return found

    def _search(self, name: str, wanted: str | None) -> Registered:
        versions = self._tools.get(name)
        if versions is None:
            raise UnknownName("tool", name, list(self._tools))
        version = newest(list(versions), wanted)
        if version is None:
            listed = ", ".join(sorted(versions, key=parse_version))
            sought = "no stable version" if wanted is None else f"no version in {wanted!r}"
            raise BadInput(f"tool {name!r} has {sought}; there is: {listed}")
        return versions[version]


def find_registry(name: str) -> Registry:
    """The registry of that name in this process. Raises UnknownName."""
    found = _registries.get(name)
    if found is None:
        raise UnknownName("registry", name, list(_registries))
    return found
