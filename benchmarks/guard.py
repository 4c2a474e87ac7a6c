"""The guard around a tool that does nothing, against a plain typed `dspy.Tool` around the same function.

Ours does more (roles, limits, breaker, reservation, journal, usage) and still has to be faster: it checks arguments
with a validator that was compiled once, where DSPy builds one at each call.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import dspy

from escalade.registry.access import Roles
from escalade.registry.catalogue import Registry
from escalade.registry.ledger import Budget, Ledger
from escalade.registry.opening import scope
from escalade.registry.tools import tool
from escalade.scopes import Principal

LIMIT_MS, CALLS, RESOLVED_US = 0.3, 400, 50.0


def idle(query: str, limit: int = 10, tags: list[str] | None = None) -> str:  # noqa: ARG001 - arguments to check
    """Does nothing."""
    return query


async def aidle(query: str, limit: int = 10, tags: list[str] | None = None) -> str:  # noqa: ARG001 - as above
    """Does nothing."""
    return query


ARGUMENTS: dict[str, Any] = {"query": "x", "limit": 3, "tags": ["a", "b"]}
SAID: dict[str, Any] = {"cost": "0.000001", "limits": "1000000/s, 100000000/min, 1000000000/day"}


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians over all calls of the interleaved repeats."""
    registry = Registry([tool(**SAID)(idle), tool(**SAID)(aidle)], name="benchmark")
    ours, aours = registry.tools(["idle", "aidle"])
    plain, aplain = dspy.Tool(idle), dspy.Tool(aidle)
    times: dict[str, list[float]] = {"ours": [], "plain": [], "aours": [], "aplain": [], "resolve": []}
    with _everything_on():
        for _ in range(repeats):
            times["ours"] += _calls(ours)
            times["plain"] += _calls(plain)
            times["aours"] += asyncio.run(_acalls(aours))
            times["aplain"] += asyncio.run(_acalls(aplain))
            times["resolve"] += _resolutions(registry)
    return [
        _figure("governed call of a sync tool, p50", times["ours"], times["plain"]),
        _figure("governed acall of an async tool, p50", times["aours"], times["aplain"]),
        _resolved(times["resolve"]),
    ]


def _everything_on() -> Any:
    """A scope with a policy of 200 rules, a principal, named budgets and one of its own."""
    grants = {f"role{n}": [f"area{n}.*:call", f"thing{n}:*"] for n in range(100)} | {"caller": ["*:call"]}
    budgets = [Budget(name, "1000000", period="day") for name in ("user:acme/ana", "tenant:acme", "everything")]
    return scope(
        budget="1000",
        principal=Principal("ana", "acme", frozenset({"caller"})),
        access=Roles(grants),
        ledger=Ledger(budgets),
    )


def _calls(called: Any) -> list[float]:
    """Seconds of each call."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        called(**ARGUMENTS)
        times.append(time.perf_counter() - began)
    return times


async def _acalls(called: Any) -> list[float]:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await called.acall(**ARGUMENTS)
        times.append(time.perf_counter() - began)
    return times


def _resolutions(registry: Registry) -> list[float]:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        registry.resolve("idle", "^1.0")
        times.append(time.perf_counter() - began)
    return times


def _figure(name: str, ours: list[float], plain: list[float]) -> dict[str, Any]:
    value, ratio = statistics.median(ours) * 1e3, statistics.median(ours) / statistics.median(plain)
    p99 = statistics.quantiles(ours, n=100)[-1] * 1e3
    return {
        "name": name,
        "value": value,
        "unit": "ms",
        "limit": f"<= {LIMIT_MS} ms, <= 1x",
        "ok": value <= LIMIT_MS and ratio <= 1,
        "ratio": ratio,
        "note": f"ratio to a plain typed dspy.Tool; p99 {p99:.3f} ms",
    }


def _resolved(times: list[float]) -> dict[str, Any]:
    value = statistics.median(times) * 1e6
    return {
        "name": "resolve a range, cached",
        "value": value,
        "unit": "us",
        "limit": f"<= {RESOLVED_US:g} us",
        "ok": value <= RESOLVED_US,
        "ratio": None,
        "note": "with a GovernedTool made of it",
    }
