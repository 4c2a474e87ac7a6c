"""Decisions of an access policy of 1,000 rules: uncached, cached, and with arguments; and a decision in Cedar.

Two policies: one as they are written (an area for each role, few patterns alike), one that gives the index as little to
hold on to as it gets (all rules in one role, all patterns with a star in front).
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

from escalade.registry.access import Roles
from escalade.scopes import Principal

RULES, CALLS = 1000, 2000
UNCACHED_US, CACHED_US = 20.0, 2.0
WHO = Principal("ana", "acme", frozenset({"caller"}))


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians over all decisions."""
    usual = Roles({"caller": [f"area{n}.*:{'call' if n % 2 else 'read'}" for n in range(RULES)]})
    hard = Roles({"caller": [f"*tool{n}.*:call" for n in range(RULES)]})
    when = {"amount": {"<=": 100}, "currency": {"in": ["EUR", "USD"]}}
    closer = Roles(
        {"caller": [*(f"area{n}.*:call" for n in range(RULES - 1)), {"permit": "pay.charge:call", "when": when}]}
    )
    args = {"amount": 50, "currency": "EUR"}
    asked = [f"area{n % RULES}.search:call" for n in range(CALLS)]
    figures = [
        _figure("decide, 1,000 rules, uncached", _uncached(usual, asked, repeats), UNCACHED_US),
        _figure("… with a star in front of all", _uncached(hard, asked, repeats), None),
        _figure("decide, cached", _each(lambda: usual.decide(WHO, asked[0], "read"), repeats), CACHED_US),
        _figure(
            "decide on arguments",
            _each(lambda: closer.decide_call(WHO, "pay.charge:call", "write", args), repeats),
            UNCACHED_US,
        ),
    ]
    return [*figures, *_cedar(repeats)]


def _uncached(policy: Roles, asked: list[str], repeats: int) -> list[float]:
    times = []
    policy.decide(WHO, "warm:call", "read")  # the index of the roles is made once per set of roles
    for _ in range(repeats):
        policy._plans.clear()
        for permission in asked[: CALLS // 2]:
            began = time.perf_counter()
            policy.decide(WHO, permission, "read")
            times.append(time.perf_counter() - began)
    return times


def _each(decide: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds per decision, of batches: the clock takes as long as one."""
    decide()
    times = []
    for _ in range(repeats * 20):
        began = time.perf_counter()
        for _ in range(100):
            decide()
        times.append((time.perf_counter() - began) / 100)
    return times


def _cedar(repeats: int) -> list[dict[str, Any]]:
    if importlib.util.find_spec("cedarpy") is None:
        return []
    from escalade.registry.access.cedar import CedarAccess

    policies = "\n".join(
        f'permit (principal in Role::"caller", action in Action::"call", resource in Namespace::"area{n}");'
        for n in range(RULES)
    )
    cedar = CedarAccess(policies)
    times = []
    for n in range(repeats * 20):
        began = time.perf_counter()
        cedar.decide(WHO, f"area{n}.search:call", "read")
        times.append(time.perf_counter() - began)
    return [
        _figure("Cedar, 1,000 policies, uncached", times, None),
        _figure("Cedar, cached", _each(lambda: cedar.decide(WHO, "area1.search:call", "read"), repeats), CACHED_US),
    ]


def _figure(name: str, times: list[float], limit: float | None) -> dict[str, Any]:
    value = statistics.median(times) * 1e6
    return {
        "name": name,
        "value": value,
        "unit": "us",
        "limit": "" if limit is None else f"<= {limit:g} us",
        "ok": limit is None or value <= limit,
        "ratio": None,
        "note": f"p99 {statistics.quantiles(times, n=100)[-1] * 1e6:.1f} us",
    }
