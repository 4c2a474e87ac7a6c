"""Which version a range means: decided once per run, and written down so that the next run means the same.

Within a run (an outermost `escalade.scope(...)` and all that is nested in it, in all threads), a range gives the same
version every time, whatever is registered meanwhile. `registry.write_lock("escalade.lock")` writes down what it gave;
`escalade.scope(lock="escalade.lock")` uses it again, and refuses a version that isn't the one that was locked, saying
what differs. The file holds digests and what is short enough to be compared by eye, no description and no schema.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, LockDrift
from escalade.registry.canonical import digest
from escalade.registry.nesting import parsed
from escalade.registry.versions import parse_version, selector

if TYPE_CHECKING:
    from escalade.registry.tools import ToolSpec
    from escalade.scopes import Scope

LOCK = "lock"
"""The key of the lock in `Scope.once`."""

_SHORT = 16
"""Hex digits that stand for what is too long to be shown: enough to see that it changed."""


@dataclass(frozen=True, slots=True)
class Locked:
    """One version of one tool. `ranges`: what it was found by ("" for "the newest stable one"). `schema`, `spec`:
    SHA-256 of its schemas and of all that is known of it. `facts`: what these differ in, if they do.
    """

    name: str
    version: str
    schema: str
    spec: str
    ranges: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: ToolSpec, ranges: Iterable[str] = ()) -> Locked:
        """The lock of a version."""
        said = spec.model_dump(mode="json", exclude_defaults=True, fallback=_named)
        schema = digest({"input": spec.input_schema, "output": spec.output_schema})
        return cls(spec.name, spec.version, schema, digest(said), tuple(sorted(set(ranges))), _facts(spec, said))

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    def differences(self, other: Locked, *, only: Callable[[str], bool] = lambda _: True) -> list[str]:
        """What `other` says otherwise, a line each: "cost: 1000000 -> 2000000", "argument 'limit': changed"."""
        if self.schema == other.schema and self.spec == other.spec:
            return []
        names = [name for name in dict.fromkeys([*self.facts, *other.facts]) if only(name)]
        return [
            _difference(name, self.facts.get(name), other.facts.get(name))
            for name in names
            if self.facts.get(name) != other.facts.get(name)
        ]


@dataclass(frozen=True, slots=True)
class Lock:
    """Versions by name. `source`: where it was read from, for messages."""

    tools: tuple[Locked, ...] = ()
    source: str = "the lock"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lock:
        """Read a file that `write` wrote. Raises BadInput."""
        try:
            written = parsed(Path(path).read_text("utf-8"))
            if written["lockfile"] != 1:
                raise BadInput(f"{path}: lock files of version {written['lockfile']!r} can't be read here (known: 1)")
            tools = tuple(Locked(**{**one, "ranges": tuple(one["ranges"])}) for one in written["tools"])
        except OSError as error:
            raise BadInput(f"{path}: can't be read ({error.strerror or error})") from None
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{path}: is no lock file ({type(error).__name__}: {error})") from None
        return cls(tools, str(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """As JSON, sorted, so that two versions of the file compare well. Replaces the file at once or not at all."""
        tools = [asdict(one) for one in sorted(self.tools, key=lambda one: (one.name, one.version))]
        text = json.dumps({"lockfile": 1, "tools": tools}, indent=2, sort_keys=True)
        scratch = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
        scratch.write_text(f"{text}\n", "utf-8")
        scratch.replace(path)

    def find(self, name: str, wanted: str | None) -> Locked:
        """What a range means. Raises BadInput when nothing was locked for it."""
        of_name = {one.version: one for one in self.tools if one.name == name}
        exact = [version for version, one in of_name.items() if (wanted or "") in one.ranges]
        found = max(exact or filter(selector(wanted), of_name), key=parse_version, default=None)
        if found is None:
            there = ", ".join(of_name) or "no version of it"
            sought = "a stable version" if wanted is None else repr(wanted)
            raise BadInput(f"{self.source} has nothing for tool {name!r} in {sought} (there: {there}); write it anew")
        return of_name[found]

    def check(self, spec: ToolSpec) -> None:
        """Is this the version that was locked? Raises LockDrift, which says what differs."""
        for one in self.tools:
            if (one.name, one.version) == (spec.name, spec.version):
                differences = tuple(one.differences(Locked.of(spec)))
                if differences:
                    raise LockDrift(
                        f"tool {spec.label} isn't what {self.source} locked: {'; '.join(differences)}; publish a new "
                        f"version, or write the lock anew",
                        differences,
                    )


def locked(scope: Scope, lock: Lock | str | os.PathLike[str] | None) -> Scope:
    """The scope of a run that starts here, with this lock. Raises BadInput within a run."""
    if lock is None:
        return scope
    if scope.once is None or (scope.parent is not None and scope.parent.once is not None):
        raise BadInput("a lock holds for a whole run: set it on the outermost scope")
    scope.once[LOCK] = lock if isinstance(lock, Lock) else Lock.load(lock)
    return scope


def hold(scope: Scope | None, spec: ToolSpec) -> None:
    """May this version be used in this run? Tools that were made before it know nothing of its lock. Raises LockDrift,
    BadInput when nothing was locked for the tool.
    """
    lock: Lock | None = None if scope is None or scope.once is None else scope.once.get(LOCK)
    if scope is None or scope.once is None or lock is None or (LOCK, id(spec)) in scope.once:
        return
    there = [one.version for one in lock.tools if one.name == spec.name] or [lock.find(spec.name, None).version]
    if spec.version not in there:
        raise LockDrift(
            f"tool {spec.label} was made before this run, and {lock.source} has {', '.join(there)}: make the tool "
            f"within the run, or write the lock anew",
            (f"version: {', '.join(there)} -> {spec.version}",),
        )
    lock.check(spec)
    scope.once[LOCK, id(spec)] = spec  # which stays, so that no other one has its id


def _facts(spec: ToolSpec, said: Mapping[str, Any]) -> dict[str, Any]:
    """What is short as it is, and digests of what is long."""
    long = {"name", "version", "description", "input_schema", "output_schema"}
    facts = {key: value for key, value in said.items() if key not in long}
    facts["description"] = digest(spec.description)[:_SHORT]
    facts["result"] = digest(spec.output_schema)[:_SHORT]
    required = spec.input_schema.get("required", ())
    for name, schema in spec.input_schema.get("properties", {}).items():
        facts[f"argument {name!r}"] = digest([schema, name in required, spec.input_schema.get("$defs")])[:_SHORT]
    return facts


def _difference(name: str, old: Any, new: Any) -> str:
    if name.startswith("argument ") or name in {"description", "result"}:
        return f"{name}: {'new' if old is None else 'gone' if new is None else 'changed'}"
    return f"{name}: {_said(old)} -> {_said(new)}"


def _said(value: Any) -> str:
    return "the default" if value is None else str(value)


def _named(value: Any) -> str:
    """Functions in a spec, by their names."""
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', type(value).__qualname__)}"
