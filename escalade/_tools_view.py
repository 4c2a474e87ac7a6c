"""What `escalade tools` shows: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from escalade._cli_view import new_table, print_, print_json, safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from escalade.registry.catalogue import Registry
    from escalade.registry.tools import ToolSpec
    from escalade.registry.usage import ToolUsage


def plain_spec(registry: Registry, spec: ToolSpec) -> dict[str, Any]:
    """A version as JSON, with what became of it."""
    status = registry.status(spec.name, spec.version)
    deprecated = None if status.deprecated is None else asdict(status.deprecated)
    if deprecated is not None:
        deprecated["sunset"] = None if deprecated["sunset"] is None else str(deprecated["sunset"])
    return {**spec.model_dump(mode="json"), "deprecated": deprecated, "yanked": status.yanked}


def versions(registry: Registry, name: str) -> list[dict[str, Any]]:
    """All versions of a tool, oldest first."""
    return [
        {"version": spec.version, "warning": registry.status(name, spec.version).warning(spec.label)}
        for spec in registry.specs()
        if spec.name == name
    ]


def show_specs(registry: Registry, specs: list[ToolSpec]) -> None:
    """A table of tools."""
    if not specs:
        print_("no tools")
        return
    table = new_table("tool", "version", "effects", "cost", "owner", "tags", "")
    for spec in specs:
        status = registry.status(spec.name, spec.version)
        mark = "[yellow]deprecated[/] " if status.deprecated is not None else ""
        about = mark + safe(spec.description.partition("\n")[0])
        table.add_row(
            spec.name,
            spec.version,
            spec.side_effects,
            _cost(spec),
            safe(spec.owner),
            safe(", ".join(spec.tags)),
            about,
        )
    print_(table)


def _cost(spec: ToolSpec) -> str:
    if spec.cost is None:
        return "unknown" if spec.max_cost is None else f"<= {spec.max_cost}"
    return str(spec.cost) if spec.cost else "free"


def show_spec(registry: Registry, spec: ToolSpec) -> None:
    """All that is known of a version."""
    facts = {
        "side effects": spec.side_effects,
        "cost": _cost(spec),
        "limits": ", ".join(map(str, spec.limits)),
        "permission": spec.permission,
        "timeout": "" if spec.timeout is None else f"{spec.timeout:g} s",
        "owner": spec.owner,
        "tags": ", ".join(spec.tags),
        "versions": ", ".join(one["version"] for one in versions(registry, spec.name)),
        "warning": registry.status(spec.name, spec.version).warning(spec.label),
    }
    print_(f"[bold]{spec.label}[/]")
    print_(safe(spec.description))
    table = new_table("", "")
    for name, value in facts.items():
        if value:
            table.add_row(f"[bold]{name}[/]", safe(value))
    print_(table)
    print_(_arguments_of(spec))


def _arguments_of(spec: ToolSpec) -> Any:
    from json import dumps

    table = new_table("argument", "type", "", "description")
    required = spec.input_schema.get("required", ())
    for name, one in spec.input_schema.get("properties", {}).items():
        default = "" if "default" not in one else f"= {dumps(one['default'])}"
        needed = "required" if name in required else default
        table.add_row(name, safe(_type(one)), safe(needed), safe(str(one.get("description", ""))))
    return table if table.row_count else "no arguments"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " | ".join(map(_type, schema[word]))
    return str(schema.get("type", schema.get("$ref", "any"))).rpartition("/")[2]


def show_result(result: Any, label: str, spent: Any, *, json: bool) -> None:
    """What a call gave."""
    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(result, fallback=repr)
    if json:
        print_json({"tool": label, "result": plain, "cost": str(spent)})
    elif isinstance(plain, str):
        sys.stdout.write(plain + "\n")
    else:
        print_json(plain)


def show_usage(rows: list[ToolUsage]) -> None:
    """A table of usage."""
    if not rows:
        print_("no calls")
        return
    # What few tools have is a column where one of them has it.
    counted = [
        one for one in ("refusals", "invalid", "answered", "unchecked") if any(getattr(row, one) for row in rows)
    ]
    table = new_table("tool", "version", "calls", "ok", "failed", "refused", "p50", "p95", "cost", *counted)
    for column in table.columns[2:9]:
        column.justify = "right"
    for row in rows:
        figures = (row.calls, row.successes, row.failures, row.denied)
        times = ("" if seconds is None else f"{seconds * 1e3:,.1f} ms" for seconds in (row.p50, row.p95))
        counts = (_counts(getattr(row, one)) for one in counted)
        unpriced = f" + {row.unpriced} unpriced" if row.unpriced else ""
        texts = (*(f"{figure:,}" for figure in figures), *times, f"{row.cost}{unpriced}", *counts)
        table.add_row(safe(row.name), safe(row.version), *map(safe, texts))
    print_(table)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in counted.items())
