"""`escalade tools sources | accept`: tools of other servers, what they changed, and accepting it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from escalade import _cli_view as _view
from escalade._cli_tools import FOUND, OK, Commands, Flag, read
from escalade.errors import BadInput, ToolError, UnknownName

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry
    from escalade.registry.sources.source import Reviewed, Source

_COLOURS = {"as pinned": "green", "changed": "red", "gone": "red", "not accepted": "yellow"}


def sources(manifest: str, *, diff: Flag = False, allow_stdio: Commands = None, json: Flag = False) -> int:
    """Asks each source of a manifest what it offers now, and compares it with what was accepted.

    Exits with 100 when a tool changed, is gone or was never accepted, or a source can't be asked: such tools are not
    called.

    Parameters
    ----------
    manifest
        A YAML, JSON or TOML file with `imports`.
    diff
        Show what changed, and all of what was never accepted.
    allow_stdio
        A command that the manifest may start as an MCP server, with its arguments. Can be repeated.
    json
        One JSON object instead of a table.
    """
    registry, wrong = _read(manifest, allow_stdio)
    found = {name: _reviewed(source) for name, source in registry.sources.items()}
    ok = not wrong and all(_is_fine(registry.sources[name], one) for name, one in found.items())
    if json:
        listed = [_plain(registry.sources[name], one) for name, one in found.items()]
        _view.print_json({"ok": ok, "sources": listed, "problems": wrong})
    else:
        _show(registry, found, diff=diff)
        for problem in wrong:
            _view.print_(f"[red]problem[/]  {_view.safe(problem)}")
    return OK if ok else FOUND


def accept(
    tool: Annotated[str, Parameter(name="tool")],
    *,
    manifest: str,
    allow_stdio: Commands = None,
    json: Flag = False,
) -> int:
    """Accepts what a tool of a source is now: it is pinned, as a new version where it changed. Shows what was accepted.

    Parameters
    ----------
    tool
        SOURCE/TOOL, by the name that the source gives it; SOURCE for all that changed or are new.
    manifest
        A YAML, JSON or TOML file with `imports`.
    allow_stdio
        A command that the manifest may start as an MCP server, with its arguments. Can be repeated.
    json
        A JSON list instead of text.
    """
    registry, wrong = _read(manifest, allow_stdio)
    name, slash, wanted = tool.partition("/")
    if name not in registry.sources:
        raise next(
            (BadInput(one) for one in wrong if f": imports.{name}" in one),
            UnknownName("source", name, list(registry.sources)),
        )
    source = registry.sources[name]
    offered = [one for one in source.review() if one.now is not None]
    chosen = [one for one in offered if (one.tool == wanted if slash else one.state != "as pinned")]
    if slash and not chosen:
        source.accept(wanted)  # which says why it can't be
    done = [(one, source.accept(one.tool).label) for one in chosen]
    if json:
        _view.print_json([_tool(one) | {"accepted": label} for one, label in done])
        return OK
    for one, label in done:
        same = " (as it was)" if one.state == "as pinned" else ""
        _view.print_(f"[green]accepted[/] {_view.safe(f'{name}/{one.tool}')} as {_view.safe(label)}{same}")
        _view.print_(_view.safe(one.difference))
    if not done:
        _view.print_("nothing to accept: all is as pinned")
    return OK


def _read(manifest: str, allowed: list[str] | None) -> tuple[Registry, list[str]]:
    """The registry, and what is wrong with its sources other than that something wasn't accepted yet."""
    registry, problems = read(manifest, allowed)
    places = tuple(f"imports.{name}.tools" for name in registry.sources)
    rest = [one for one in problems if one.key not in places]
    for problem in rest:
        if not problem.key.startswith(("imports", "pins")):
            sys.stderr.write(f"warning: {problem}\n")
    return registry, [str(one) for one in rest if one.key.startswith(("imports", "pins"))]


def _reviewed(source: Source) -> list[Reviewed] | str:
    """Its tools, or why it can't be asked."""
    from escalade.registry.privacy import safe_line

    try:
        return source.review()
    except (ToolError, BadInput, TimeoutError) as error:
        return safe_line(error)


def _is_fine(source: Source, found: list[Reviewed] | str) -> bool:
    """New tools of a source that are taken as a whole are no problem: they aren't there until they are accepted."""
    return not isinstance(found, str) and all(
        one.state == "as pinned" or (one.state == "not accepted" and one.tool not in source.unaccepted) for one in found
    )


def _plain(source: Source, found: list[Reviewed] | str) -> dict[str, Any]:
    asked = not isinstance(found, str)
    return {
        "name": source.name,
        "where": source.where,
        "error": None if asked else found,
        "tools": [_tool(one) for one in found if not isinstance(one, str)],
    }


def _tool(one: Reviewed) -> dict[str, Any]:
    changed = [] if one.drift is None else one.drift.parts
    return {"tool": one.tool, "ours": one.ours, "state": one.state, "changed": changed, "difference": one.difference}


def _show(registry: Registry, found: dict[str, list[Reviewed] | str], *, diff: bool) -> None:
    if not registry.sources:
        _view.print_("no sources")
        return
    table = _view.new_table("source", "where", "tool", "ours", "", "")
    for name, reviewed in found.items():
        where = _view.safe(registry.sources[name].where)
        if isinstance(reviewed, str):
            table.add_row(name, where, "", "", "[red]can't be asked[/]", _view.safe(reviewed))
            continue
        for one in reviewed:
            parts = "" if one.drift is None or one.now is None else ", ".join(one.drift.parts)
            state = f"[{_COLOURS[one.state]}]{one.state}[/]"
            table.add_row(name, where, _view.safe(one.tool), one.ours, state, _view.safe(parts))
    _view.print_(table)
    for name, reviewed in found.items():
        for one in reviewed if diff and not isinstance(reviewed, str) else ():
            if one.state != "as pinned":
                _view.print_(f"\n[bold]{_view.safe(f'{name}/{one.tool}')}[/]\n{_view.safe(one.difference)}")
