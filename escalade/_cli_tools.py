"""`escalade tools`: what a manifest has, who sees it, whether it is sound, one call of it, and what calls came to.

What the commands need is imported when they run. Exit codes: 0; 2 for what the user can put right (files, names, roles,
ranges), a tool that he may not use among them; 100 when a check found something, or a call was refused or failed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from escalade import _tools_view as _view
from escalade._cli_kept import Kept
from escalade._cli_view import json_object, print_, print_json, safe
from escalade.errors import BadInput, BudgetExceeded, EscaladeError

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry
    from escalade.registry.tools import ToolSpec
    from escalade.scopes import Entered

OK, FOUND = 0, 100
"""Exit codes; `cli.main` has 2 for bad input."""

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Commands = Annotated[list[str] | None, Parameter(negative=())]

app = App(name="tools", help="Tools of a manifest: look at them, check them, call them.")


@Parameter(name="*")
@dataclass(kw_only=True)
class Asking:
    """Who asks, and for which tools."""

    manifest: str
    """The file that lists the tools: YAML, JSON or TOML."""
    policy: str | None = None
    """Who may do what: a YAML, JSON or TOML file. Without one, everything is allowed."""
    user: str = "somebody"
    """Who asks, with a policy."""
    role: Annotated[list[str] | None, Parameter(negative=())] = None
    """One of his roles. Can be repeated."""
    tenant: str = "default"
    """Of the user."""
    allow_stdio: Commands = None
    """A command that the manifest may start as an MCP server, with its arguments. Can be repeated."""

    def registry(self) -> Registry:
        """The tools, whatever is wrong with others."""
        registry, problems = read(self.manifest, self.allow_stdio)
        for problem in problems:
            sys.stderr.write(f"warning: {problem}\n")
        return registry

    def scope(self, **more: Any) -> Entered:
        """A scope in his name. Raises NoPolicy for roles without a policy."""
        from escalade.registry.access.policy import Roles
        from escalade.registry.canonical import digest
        from escalade.registry.opening import scope
        from escalade.scopes import Principal

        if "approvals" in more:
            more["run_id"] = f"call-{digest([self.tenant, self.user])[:12]}"
        if self.policy is None and not self.role:
            return scope(**more)
        roles = frozenset(one for listed in self.role or () for one in listed.split(",") if one)
        access = None if self.policy is None else Roles.load(self.policy)
        return scope(principal=Principal(self.user, self.tenant, roles), access=access, **more)


@app.command(name="list", sort_key=1)
def list_(asking: Asking, *, json: Flag = False) -> int:
    """The tools that somebody may call: the newest stable version of each.

    Parameters
    ----------
    json
        A JSON list instead of a table.
    """
    registry = asking.registry()
    with asking.scope():
        specs = registry.specs_for()
    if json:
        print_json([_view.plain_spec(registry, spec) for spec in specs])
    else:
        _view.show_specs(registry, specs)
    return OK


@app.command(sort_key=2)
def show(name: str, asking: Asking, *, json: Flag = False) -> int:
    """All that is known of a tool: arguments, price, limits, and its other versions.

    Parameters
    ----------
    name
        Such as crm.search, or crm.search@^1.2 for a range of versions.
    json
        One JSON object instead of text.
    """
    registry = asking.registry()
    with asking.scope():
        tool, _, wanted = name.partition("@")
        spec = registry.tool_for(tool, wanted or None).spec
    if json:
        print_json(_view.plain_spec(registry, spec) | {"versions": _view.versions(registry, spec.name)})
    else:
        _view.show_spec(registry, spec)
    return OK


@app.command(sort_key=3)
def search(query: str, asking: Asking, *, limit: int = 10, json: Flag = False) -> int:
    """The tools that somebody may call and that fit a query, best first.

    Parameters
    ----------
    query
        Words of names, tags, owners and descriptions.
    limit
        At most so many.
    json
        A JSON list instead of a table.
    """
    if limit < 1:
        raise BadInput(f"--limit: expected 1 or more, got {limit}")
    registry = asking.registry()
    with asking.scope():
        found = registry.search(query, limit=limit)
    if json:
        print_json([_view.plain_spec(registry, one.spec) | {"score": round(one.score, 4)} for one in found])
    else:
        _view.show_specs(registry, [one.spec for one in found])
    return OK


@app.command(sort_key=4)
def check(
    manifest: str,
    *,
    lock: str | None = None,
    policy: str | None = None,
    allow_stdio: Commands = None,
    json: Flag = False,
) -> int:
    """Is a manifest sound? Imports each function, checks each field and schema, what new versions break, and a lock.
    With a policy: do its rules speak of tools that there are, and the limits of tools of roles that there are?

    Exits with 100 when something is wrong. Hints, such as which tools a repeated call would write with twice, are no
    problems.

    Parameters
    ----------
    manifest
        A YAML, JSON or TOML file.
    lock
        An escalade.lock that the tools must still fit.
    policy
        Who may do what: a YAML, JSON or TOML file. What doesn't fit it is a warning, since there may be more tools.
    allow_stdio
        A command that the manifest may start as an MCP server, with its arguments. Can be repeated.
    json
        One JSON object instead of lines.
    """
    registry, problems = read(manifest, allow_stdio)
    said = [str(problem) for problem in problems] + (_drift(registry, lock) if lock is not None else [])
    specs = registry.specs()
    warnings = [registry.status(spec.name, spec.version).warning(spec.label) for spec in specs]
    warnings = [warning for warning in warnings if warning] + ([] if policy is None else _misfits(policy, specs))
    if json:
        found = {"ok": not said, "tools": len(specs), "problems": said, "warnings": warnings}
        print_json({**found, "hints": _hints(specs)})
    else:
        for line in said:
            print_(f"[red]problem[/]  {safe(line)}")
        for line in warnings:
            print_(f"[yellow]warning[/]  {safe(line)}")
        for line in _hints(specs):
            print_(f"hint     {safe(line)}")
        print_(f"{len(specs)} versions of {len({spec.name for spec in specs})} tools, {len(said)} problems")
    return FOUND if said else OK


@app.command(sort_key=5)
def lock(
    manifest: str, *wanted: str, out: str = "escalade.lock", allow_stdio: Commands = None, json: Flag = False
) -> int:
    """Write down which versions are meant, with their digests.

    Parameters
    ----------
    manifest
        A YAML, JSON or TOML file.
    wanted
        Tools and ranges, such as crm.search@^2; the newest stable version of each tool by default.
    out
        The file to write.
    allow_stdio
        A command that the manifest may start as an MCP server, with its arguments. Can be repeated.
    json
        One JSON object instead of a line.
    """
    from escalade.registry.catalogue import Registry

    import_from_here()
    allow(allow_stdio)
    written = Registry.load(manifest).write_lock(out, wanted or None)
    if json:
        print_json({"file": out, "tools": [one.label for one in written.tools]})
    else:
        print_(f"{len(written.tools)} tools locked in {safe(out)}")
    return OK


@app.command(sort_key=6)
def call(
    name: str,
    asking: Asking,
    *,
    args: str = "{}",
    arg: Annotated[list[str] | None, Parameter(negative=())] = None,
    budget: str | None = None,
    deadline: float | None = None,
    kept: Kept | None = None,
    json: Flag = False,
) -> int:
    """Call a tool, with everything in force that holds for agents. Exits with 100 when it is refused or fails.

    With --approvals, all calls of a user are one run: what was approved for him counts when he asks again.

    Parameters
    ----------
    name
        Such as crm.search, or crm.search@^1.2 for a range of versions.
    args
        The arguments, as a JSON object.
    arg
        One argument, NAME=VALUE: a text where the tool takes one, else JSON, or a text where it is no JSON. Can be
        repeated.
    budget
        Dollars that it may cost.
    deadline
        Seconds that it may take.
    json
        The result and what it cost as one JSON object.
    """
    registry = asking.registry()
    given = json_object(args, "--args", '{"query": "x"}')
    pairs = _pairs(arg or [])
    with (kept or Kept()).opened() as books:
        return _called(registry, name, given, pairs, asking.scope(budget=budget, deadline=deadline, **books), json)


@app.command(sort_key=7)
def stats(record: str, *, json: Flag = False) -> int:
    """What each version of each tool was used for, out of the audit log.

    Parameters
    ----------
    record
        The log, a SQLite file or postgresql://..., or what `escalade audit export` made of it (.jsonl).
    json
        A JSON list instead of a table.
    """
    from escalade.registry.audit.entries import ended
    from escalade.registry.usage import usage_of

    rows = usage_of(ended(record))
    if json:
        print_json([row.as_dict() for row in rows])
    else:
        _view.show_usage(rows)
    return OK


@app.command(sort_key=8)
def schema() -> int:
    """The JSON schema of manifests, for editors."""
    from escalade.registry.manifest import manifest_schema

    print_json(manifest_schema())
    return OK


# ----------------------------------------------------------------------------------------------------------- reading


def read(manifest: str, allowed: list[str] | None = None) -> tuple[Registry, list[Any]]:
    """What a manifest has, and what is wrong with it. `allowed`: commands that it may start."""
    from escalade.registry.manifest import read_manifest

    import_from_here()
    allow(allowed)
    return read_manifest(manifest)


def allow(commands: list[str] | None) -> None:
    """Whoever runs the command allows these. Raises BadInput."""
    from shlex import split

    for command in commands or ():
        from escalade.registry.sources.mcp import allow_stdio

        try:
            allow_stdio(*split(command))
        except ValueError as error:  # an open quote, or no such program
            raise BadInput(f"--allow-stdio: {error}") from None


def import_from_here() -> None:
    """Manifests name modules of the folder that one stands in, as `python -m` would find them."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _hints(specs: list[ToolSpec]) -> list[str]:
    again = ", ".join(spec.label for spec in specs if not (spec.once or spec.repeatable))
    why = "a call that DSPy or a model makes again runs again, since these write and say neither once nor idempotent"
    return [f"{why}: {again}"] if again else []


def _misfits(policy: str, specs: list[ToolSpec]) -> list[str]:
    """Where a policy and the tools name what the other doesn't have."""
    from escalade.registry.access.policy import Roles
    from escalade.registry.access.unmatched import unmatched

    roles = Roles.load(policy)
    found = unmatched(roles, specs)
    named = {(one.label, limit.per[5:]) for one in specs for limit in one.limits if limit.per.startswith("role:")}
    for label, role in sorted(named):
        try:
            roles.check_roles(frozenset({role}))
        except BadInput as error:
            found.append(f"a limit of {label} is for nobody: {error}")
    return found


def _drift(registry: Registry, lock: str) -> list[str]:
    """What a lock says otherwise, all of it."""
    from escalade.registry.lock import Lock

    found = []
    locked = Lock.load(lock)
    for one in locked.tools:
        try:
            locked.check(registry.spec(one.name, one.version))
        except EscaladeError as error:
            found.append(f"{lock}: {error}")
    return found


def _called(
    registry: Registry,
    name: str,
    given: dict[str, Any],
    pairs: dict[str, str],
    scope: Entered,
    json: bool,  # noqa: FBT001 - passed on as it came
) -> int:
    tool, _, wanted = name.partition("@")
    failed: Exception | None = None
    try:
        with scope as run:
            found = registry.tool_for(tool, wanted or None)
            try:
                result = found(**given, **_typed(pairs, found.spec.input_schema))
            except Exception as error:  # noqa: BLE001 - whatever a tool raises, told in one line
                failed = error
    except BudgetExceeded:  # once more, as by every scope that could not pay
        if failed is None:
            raise
    if failed is not None:
        sys.stderr.write(f"error: {' '.join(str(failed).split())}\n")
        return FOUND
    _view.show_result(result, found.spec.label, run.spent, json=json)
    return OK


def _pairs(written: list[str]) -> dict[str, str]:
    for pair in written:
        if "=" not in pair:
            raise BadInput(f"--arg: expected NAME=VALUE, got {pair!r}")
    return {name: value for name, _, value in (pair.partition("=") for pair in written)}


def _typed(pairs: dict[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the tool takes them: an order of the number 1234 stays a text where the tool takes a text."""
    takes = schema.get("properties", {})
    return {name: _value(text, takes.get(name, {}).get("type")) for name, text in pairs.items()}


def _value(text: str, kind: object) -> Any:
    from escalade.registry.nesting import parsed

    try:
        found = parsed(text)
    except ValueError:
        return text
    return text if kind == "string" and not isinstance(found, str) else found
