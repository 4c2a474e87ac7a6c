"""Usage figures: percentiles and bounded memory."""

from __future__ import annotations

import math

import hypothesis.strategies as st
from hypothesis import given

from escalade.registry.usage import Meter, percentile


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_percentiles_by_nearest_rank(values: list[float], share: float) -> None:
    """The smallest value that at least this share of the values doesn't exceed."""
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= math.ceil(round(share * 100) * len(values) / 100)
    assert all(sum(v <= value for v in values) < share * len(values) for value in values if value < found)


def test_nothing_has_no_percentile() -> None:
    """Before the first call the percentiles are unknown, not zero."""
    assert percentile([], 0.5) is None
    usage = Meter("a", "1.0.0").usage()
    assert (usage.p50, usage.p95, usage.calls) == (None, None, 0)


def test_percentiles_are_of_the_newest_calls() -> None:
    """The memory is bounded: 1,000 new calls push the old ones out of the percentiles, not out of the counts."""
    meter = Meter("a", "1.0.0")
    for seconds in [9.0] * 500 + [1.0] * 1_000:
        meter.add("ok", seconds, 1)
    usage = meter.usage()
    assert (usage.calls, usage.p95, usage.cost) == (1_500, 1.0, 1_500)


def test_outcomes_are_counted_apart() -> None:
    """Failed and cancelled are calls, each counted apart; an unknown price is counted, not added."""
    meter = Meter("a", "1.0.0")
    for outcome in ("ok", "failed", "failed", "cancelled"):
        meter.add(outcome, 1.0, None if outcome == "ok" else 2)
    usage = meter.usage()
    assert (usage.calls, usage.failures, usage.cancelled, usage.cost, usage.unpriced) == (4, 2, 1, 6, 1)
