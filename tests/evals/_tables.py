"""Outcome tables for tests: by hand, and random ones with every kind of hole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from escalade.agents.climb import Policy, Rung
from escalade.agents.policies import Agreement, Budgeted, Constant, PromptLength, RandomMix, Threshold
from escalade.evals.outcomes import NO_ANSWER, STATUSES, UNKNOWN, Outcomes
from escalade.money import Money


def table(
    *,
    quality: Sequence[Sequence[float]],
    confidence: Any = None,
    answer: Any = None,
    cost: Any = None,
    price: Any = None,
    ceiling: Any = None,
    status: Any = None,
    chars: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
) -> Outcomes:
    """Outcomes from rows of lists. A row of `cost`, `price` or `ceiling` alone holds for all questions."""
    n, k = len(quality), len(quality[0])

    def column(values: Any, default: float, dtype: Any) -> Any:
        return np.broadcast_to(np.array(default if values is None else values, dtype=dtype), (n, k)).copy()

    costs = column(cost, 1, np.int64)
    return Outcomes(
        name="test",
        rungs=tuple(Rung(f"r{i}") for i in range(k)),
        keys=tuple(keys or (f"q{i}" for i in range(n))),
        features={"prompt_chars": np.array(chars or range(n), dtype=np.int64)},
        quality=np.array(quality, dtype=np.float64),
        answer=column(answer, 0, np.int64),
        confidence=column(confidence, math.nan, np.float64),
        cost=costs,
        price=costs if price is None else column(price, 0, np.int64),
        ceiling=costs if ceiling is None else column(ceiling, 0, np.int64),
        latency=column(None, 1.0, np.float64),
        status=column(status, 0, np.int8),
    )


AMOUNTS = st.sampled_from([UNKNOWN, 0, 1, 2, 3, 5, 8, 13, 40])
"""Few different ones, so that ties and exact fits are common."""

CONFIDENCES = st.sampled_from([math.nan, 0.0, 0.25, 0.5, 0.8, 1.0])


@st.composite
def outcomes(draw: st.DrawFn, *, priced: bool = False) -> Outcomes:
    """Random tables: nan confidences, failed attempts, no answers, unknown prices, ties."""
    n, k = draw(st.integers(0, 8)), draw(st.integers(1, 5))
    amounts = st.integers(0, 20) if priced else AMOUNTS

    def cells(values: st.SearchStrategy[Any], dtype: Any) -> Any:
        flat = draw(st.lists(values, min_size=n * k, max_size=n * k))
        return np.array(flat, dtype=dtype).reshape(n, k)

    return Outcomes(
        name="random",
        rungs=tuple(Rung(f"r{i}") for i in range(k)),
        keys=tuple(draw(st.lists(st.text("abc", max_size=3), min_size=n, max_size=n))),
        features={"prompt_chars": np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), dtype=np.int64)},
        quality=cells(st.sampled_from([0.0, 0.5, 1.0]), np.float64),
        answer=cells(st.sampled_from([NO_ANSWER, 0, 1]), np.int64),
        confidence=cells(CONFIDENCES, np.float64),
        cost=cells(amounts, np.int64),
        price=cells(amounts, np.int64),
        ceiling=cells(amounts, np.int64),
        latency=cells(st.sampled_from([math.nan, 0.5, 2.0]), np.float64),
        status=cells(st.sampled_from([0, 0, 0, *range(len(STATUSES))]), np.int8),
    )


KINDS = (Constant, Threshold, Agreement, RandomMix, PromptLength)


def policies(k: int, *, kinds: Sequence[type] = KINDS, deep: int = 2) -> st.SearchStrategy[Policy]:
    """Random policies for a ladder of k rungs, of these kinds, with budgets nested up to `deep` times."""
    rung = st.one_of(st.integers(0, k - 1), st.integers(0, k - 1).map(lambda i: f"r{i}"))
    ladder = st.lists(rung, min_size=1, max_size=4).map(tuple)
    members = st.permutations(range(k)).flatmap(lambda p: st.integers(1, k).map(lambda m: tuple(p[:m])))
    plain = {
        Constant: st.builds(Constant, rung),
        Threshold: st.builds(Threshold, st.sampled_from([0.0, 0.5, 0.8, 1.0]), st.none() | ladder),
        Agreement: members.flatmap(  # `then` may be one of them
            lambda m: st.builds(Agreement, st.just(m), rung, st.none() | st.integers(1, len(m)))
        ),
        RandomMix: st.builds(RandomMix, st.sampled_from([0.0, 0.4, 1.0]), rung, rung, st.integers(0, 3)),
        PromptLength: st.builds(PromptLength, st.integers(0, 9), rung, rung),
    }
    policy: st.SearchStrategy[Policy] = st.one_of([plain[kind] for kind in kinds])
    for _ in range(deep):
        policy = st.one_of(policy, st.builds(Budgeted, policy, st.none() | st.integers(0, 30).map(Money)))
    return policy
