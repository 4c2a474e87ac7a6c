"""Behind a registry: all versions of all tools, and which of them a range means here and now."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

from escalade import events
from escalade.errors import BadInput, LockDrift, UnknownName
from escalade.registry.calling import Registered
from escalade.registry.lifecycle import Status, Sunset
from escalade.registry.lock import LOCK, Lock
from escalade.registry.rollout import Rollout
from escalade.registry.versions import is_pin, is_stable, newest, parse_version, pinned, selector
from escalade.scopes import Principal, Scope, current

logger = logging.getLogger(__name__)

_CACHED = 4096
_PLAIN = Status()


class Shelf:
    """`tools`: by name and version. `rollouts`: the latest of each tool. Whoever changes either holds `changing` and
    calls `changed`.
    """

    def __init__(self, sunset: Sunset) -> None:
        self.sunset = sunset
        self.tools: dict[str, dict[str, Registered]] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.changing = threading.RLock()
        self._resolved: dict[tuple[str, str | None], tuple[Registered, ...]] = {}
        self._warned: set[str] = set()

    def find(self, name: str, wanted: str | None = None) -> Registered:
        """What a range means here: as decided in this run, by its lock, or now. Raises BadInput for what is no text."""
        if not isinstance(name, str) or not isinstance(wanted, str | None):
            raise BadInput(
                f"expected the name of a tool and a range of versions, such as 'crm.search' and '^1.2', "
                f"got {name!r}{'' if wanted is None else f' and {wanted!r}'}"
            )
        if wanted is None and "@" in name:
            name, _, wanted = name.partition("@")
        scope = current()
        once = None if scope is None else scope.once
        if scope is None or once is None:
            found = self._chosen(name, wanted, scope)
        else:
            key = (self, name, wanted)
            found = once.get(key) or once.setdefault(key, self._chosen(name, wanted, scope))
        if found.status != _PLAIN:
            self._warn(found, scope)
        return found

    def _chosen(self, name: str, wanted: str | None, scope: Scope | None) -> Registered:
        lock: Lock | None = None if scope is None or scope.once is None else scope.once.get(LOCK)
        if lock is not None:
            self.versions(name)
            one = self.pinned(name, lock.find(name, wanted).version)
            lock.check(one.spec)
            return one
        who = (None, None) if scope is None else (scope.principal, scope.access)
        rollout = self.rollouts.get(name)
        for one in self._candidates(name, wanted):
            if rollout is None or is_pin(wanted) or rollout.gives(one.spec.version, *who):
                return one
        raise self._nothing(name, wanted)

    def _candidates(self, name: str, wanted: str | None) -> tuple[Registered, ...]:
        """Versions in a range, newest first; of more than one only the first may be in a rollout."""
        resolved = self._resolved
        found = resolved.get((name, wanted))
        if found is None:
            found = tuple(self._search(name, wanted))
            if len(resolved) < _CACHED:
                resolved[name, wanted] = found
        return found

    def _search(self, name: str, wanted: str | None) -> list[Registered]:
        versions = self.versions(name)
        if wanted is not None and is_pin(wanted):
            found = versions.get(pinned(wanted))
            if found is None:
                raise self._nothing(name, wanted)
            return [found]
        left = [version for version, one in versions.items() if one.status.in_ranges]
        best = newest(left, wanted)
        rollout = self.rollouts.get(name)
        if best is None:
            raise self._nothing(name, wanted)
        if rollout is None or rollout.version != best:
            return [versions[best]]
        after = newest([version for version in left if version != best], wanted)
        return [versions[one] for one in (best, after) if one is not None]

    def _nothing(self, name: str, wanted: str | None) -> BadInput:
        versions = self.versions(name)
        marks = {v: " (yanked)" for v, one in versions.items() if one.status.yanked is not None}
        marks |= {v: " (rolled back)" for v, one in versions.items() if one.status.rolled_back is not None}
        rollout = self.rollouts.get(name)
        if rollout is not None and rollout.status == "running":
            marks.setdefault(rollout.version, " (in a rollout)")
        listed = ", ".join(f"{v}{marks.get(v, '')}" for v in sorted(versions, key=parse_version))
        sought = "no stable version" if wanted is None else f"no version in {wanted!r}"
        return BadInput(f"tool {name!r} has {sought}; there is: {listed}")

    def versions(self, name: str) -> dict[str, Registered]:
        versions = self.tools.get(name)
        if versions is None:
            raise UnknownName("tool", name, self._told())
        return versions

    def _told(self) -> list[str]:
        """The names that an error may tell: those that may be seen here. Who has only configured a process, for others
        to ask in, sees all.
        """
        scope = current()
        if scope is None or (scope.once is None and not scope.principals):
            return list(self.tools)
        return [one.spec.name for one in self.visible(scope)]

    def pinned(self, name: str, version: str) -> Registered:
        found = self.versions(name).get(version)
        if found is None:
            raise self._nothing(name, version)
        return found

    def stable(self, name: str) -> list[Registered]:
        return [one for one in self.versions(name).values() if is_stable(one.spec.version)]

    def matching(self, name: str, wanted: str | None) -> list[Registered]:
        """All versions in a range, oldest first, yanked ones too."""
        versions = self.versions(name)
        fitting = versions if wanted is None else filter(selector(wanted), versions)
        found = [versions[version] for version in sorted(fitting, key=parse_version)]
        if not found:
            raise self._nothing(name, wanted)
        return found

    def mark(self, name: str, wanted: str | None, **said: Any) -> None:
        with self.changing:
            for one in self.matching(name, wanted):
                one.status = replace(one.status, **said)
            self.changed()

    def changed(self) -> None:
        self._resolved = {}  # a new one, not cleared: a look-up under way must not put back what it found before

    def all(self) -> list[Registered]:
        return [
            self.tools[name][version]
            for name in sorted(self.tools)
            for version in sorted(self.tools[name], key=parse_version)
        ]

    def _warn(self, found: Registered, scope: Scope | None) -> None:
        """Once per run, and outside of runs once per process. Raises ToolRetired."""
        label = found.spec.label
        found.status.check(label, refuse=self.sunset == "refuse")
        once = None if scope is None else scope.once
        if once is None:
            if label in self._warned:
                return
            self._warned.add(label)
        elif once.setdefault((self, "warned", label), mark := object()) is not mark:
            return
        warning = found.status.warning(label)
        logger.warning("%s", warning)
        events.emit(scope, events.ToolWarned, tool=label, warning=warning)

    def listed(self, name: str, scope: Scope, principal: Principal | None) -> Registered | None:
        """What a tool's name means in this scope, without deciding it for the run; None for nothing to show."""
        decided: Registered | None = None if scope.once is None else scope.once.get((self, name, None))
        if decided is None:
            if principal is not None:
                scope = replace(scope, principals=(*scope.principals, principal))
            try:
                decided = self._chosen(name, None, scope)
            except LockDrift:
                raise
            except BadInput:  # no stable version, not in the lock
                return None
        retired = self.sunset == "refuse" and decided.status.past_sunset
        return None if retired else decided

    def visible(self, scope: Scope, principal: Principal | None = None) -> list[Registered]:
        """What the names of tools mean in this scope, as far as they may be called in it (`principal`: by him, too)."""
        listed = (self.listed(name, scope, principal) for name in sorted(self.tools))
        return [one for one in listed if one is not None and sees(scope, one, principal)]

    def run(self) -> dict[tuple[str, str | None], Registered]:
        scope = current()
        once = {} if scope is None or scope.once is None else dict(scope.once)
        return {
            key[1:]: found
            for key, found in once.items()
            if isinstance(key, tuple) and key[0] is self and isinstance(found, Registered)
        }


def sees(scope: Scope, registered: Registered, principal: Principal | None = None) -> bool:
    """Is there a call of it that is allowed in this scope?"""
    spec = registered.spec
    return scope.sees(spec.permission, registered.resource.effect, spec.input_schema, principal=principal)
