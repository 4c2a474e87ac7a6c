"""What `escalade compare` takes on the bundled data: loading, and the default line-up with intervals."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

LOAD_LIMIT, COMPARE_LIMIT = 0.3, 5.0
"""Seconds."""


def _seconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Median seconds after import; the first loading counts too."""
    from escalade.evals.compare import compare
    from escalade.evals.loaders import load_outcomes

    loading = statistics.median(_seconds(load_outcomes) for _ in range(repeats))
    comparison = compare()
    comparing = statistics.median(_seconds(compare) for _ in range(repeats))
    work = f"{comparison.n:,} questions x {len(comparison.rows)} policies, both gradings, with intervals"
    return [
        _figure("load the bundled outcomes", loading, LOAD_LIMIT, f"{comparison.n:,} questions"),
        _figure("compare the bundled outcomes", comparing, COMPARE_LIMIT, work),
    ]


def _figure(name: str, seconds: float, limit: float, note: str) -> dict[str, Any]:
    ok = seconds < limit
    return {"name": name, "value": seconds, "unit": "s", "limit": f"< {limit} s", "ok": ok, "ratio": None, "note": note}
