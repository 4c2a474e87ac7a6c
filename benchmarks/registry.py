"""The catalogue at size: resolving among 10,000 versions, what one may see of 1,000 tools, searching them, and tracing
when it is off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from escalade.registry.access import Roles
from escalade.registry.catalogue import Registry
from escalade.registry.opening import scope
from escalade.registry.subschema import misfits
from escalade.registry.tools import tool
from escalade.scopes import Principal

VERSIONS, TOOLS = 10_000, 1_000
RESOLVE_US, LIST_MS, SEARCH_MS, COMPARE_US = 50.0, 10.0, 20.0, 500.0


def idle(query: str, limit: int = 10) -> str:  # noqa: ARG001 - an argument to compare
    """Finds customers by name, city or the number of an order."""
    return query


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians."""
    many = Registry(name="versions", gate="off")
    began = time.perf_counter()
    for n in range(VERSIONS):
        many.register(tool(name="area7.tool", version=f"{n // 5_000}.{n % 5_000 // 10}.{n % 10}")(idle))
    registering = (time.perf_counter() - began) / VERSIONS
    tools = Registry((tool(name=f"area{n % 50}.tool{n}")(idle) for n in range(TOOLS)), name="tools")
    principal = Principal("ana", "acme", frozenset({"caller"}))
    access = Roles({"caller": [f"area{n}.*:call" for n in range(0, 50, 2)]})
    with scope():
        many.resolve("area7.tool", "^1.2")
        resolving = _median(lambda: many.resolve("area7.tool", "^1.2"), repeats, 200)
    cold = _cold(many, repeats)
    with scope(principal=principal, access=access):
        seen = len(tools.specs_for())
        listing = _median(tools.specs_for, repeats, 3)
        searching = _median(lambda: tools.search("customer order city"), repeats, 3)
    schema = tools.spec("area1.tool1").input_schema
    wider = {**schema, "properties": {**schema["properties"], "more": {"type": "boolean"}}}
    comparing = _median(lambda: misfits(schema, wider), repeats, 50)
    return [
        _figure(f"resolve among {VERSIONS:,} versions, cached", resolving * 1e6, "us", RESOLVE_US, "with its tool"),
        _figure(f"resolve among {VERSIONS:,} versions, first time", cold * 1e3, "ms", 20.0, "all of one tool"),
        _figure(f"list {TOOLS:,} tools by role", listing * 1e3, "ms", LIST_MS, f"{seen} of them may be called"),
        _figure(f"search {TOOLS:,} tools by role", searching * 1e3, "ms", SEARCH_MS, "three words"),
        _figure("compare two schemas for the gate", comparing * 1e6, "us", COMPARE_US, "two arguments against three"),
        _figure("register a version", registering * 1e3, "ms", 5.0, "with schema and validator"),
    ]


def _cold(registry: Registry, repeats: int) -> float:
    """Seconds to find a range that was never asked for."""
    times = []
    for n in range(repeats):
        began = time.perf_counter()
        registry.spec("area7.tool", f">=0.{n} <2")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _median(call: Callable[[], Any], repeats: int, each: int) -> float:
    times = []
    for _ in range(repeats * each):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _figure(name: str, value: float, unit: str, limit: float, note: str) -> dict[str, Any]:
    return {
        "name": name, "value": value, "unit": unit, "limit": f"<= {limit:g} {unit}", "ok": value <= limit,
        "ratio": None, "note": note,
    }  # fmt: skip
