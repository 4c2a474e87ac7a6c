"""Uses of tools and models: a span for each physical attempt, one without duration for each refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from escalade.telemetry._spans import Spanning, here, parent, path_here
from escalade.telemetry._switch import switch
from escalade.telemetry.names import (
    CALL_ID,
    COST,
    MODEL,
    MODELS,
    NODE,
    OPERATION,
    OUTCOME,
    PRICED,
    PROVIDER,
    REQUEST_MODEL,
    RUN_ID,
    SOURCE,
    TOOL_NAME,
    TOOL_TYPE,
    TOOL_VERSION,
    TOOLS,
    UNCHECKED,
)

if TYPE_CHECKING:
    from escalade.scopes import Entry, Scope


def started(scope: Scope, entry: Entry, described: Mapping[str, Any]) -> Spanning:
    """It is about to be used. `described`: what is known of it besides its name.

    A model's span is not the current one: it may be a stream, whose consumer would work under it.
    """
    tool = entry.kind == "tool"
    facts = _of_tool(entry) if tool else _of_model(entry, described)
    facts |= {RUN_ID: switch.shown(entry.run_id), CALL_ID: entry.call_id}
    path = path_here()
    if path:
        facts[NODE] = path
    name = f"execute_tool {entry.resource}" if tool else f"{facts[OPERATION]} {facts[REQUEST_MODEL]}"
    return Spanning(name, facts, parent(scope), path=path, client=not tool, current=tool)


def ended(spanning: Spanning, entry: Entry) -> None:
    """It was used."""
    facts: dict[str, Any] = {OUTCOME: entry.outcome, COST: entry.cost, PRICED: entry.priced}
    if entry.source:
        facts[SOURCE] = entry.source
    if entry.unchecked:
        facts[UNCHECKED] = entry.unchecked
    spanning.end(facts, entry.error)
    around = here()
    if around is not None and not entry.source:
        around.count(TOOLS if entry.kind == "tool" else MODELS, entry.seconds)
    meters = switch.meters
    if meters is not None:
        meters.used(entry, spanning.facts)


def refused(scope: Scope, entry: Entry, described: Mapping[str, Any]) -> None:
    """The guard said no: a span without duration, so that traces show what was asked for."""
    spanning = started(scope, entry, described)
    spanning.end({OUTCOME: "refused"}, entry.outcome)
    meters = switch.meters
    if meters is not None:
        meters.refused(entry)


def _of_tool(entry: Entry) -> dict[str, Any]:
    return {
        OPERATION: "execute_tool",
        TOOL_NAME: entry.resource,
        TOOL_TYPE: "function",
        TOOL_VERSION: entry.version,
    }


def _of_model(entry: Entry, described: Mapping[str, Any]) -> dict[str, Any]:
    return {
        OPERATION: "chat",
        PROVIDER: "_OTHER",
        REQUEST_MODEL: entry.resource,
        MODEL: entry.resource,
        **described,
    }
