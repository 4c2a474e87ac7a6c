"""How fast policies are replayed: in columns, and by the loop of a live climb."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from escalade.agents.climb import Policy, Rung
from escalade.agents.policies import Agreement, Budgeted, PromptLength, RandomMix, Threshold
from escalade.evals.outcomes import Outcomes
from escalade.evals.replay import replay, replay_one
from escalade.money import Money

QUESTIONS, CLIMBED = 20_000, 1_000
LIMIT = 200_000
"""Climbs per second that threshold-like policies must reach."""

POLICIES: dict[str, Policy] = {
    "threshold": Threshold(0.8, (0, 5)),
    "threshold, 6 rungs": Threshold(0.9),
    "agreement": Agreement((0, 1, 2), 5),
    "random": RandomMix(0.5, 0, 5),
    "prompt length": PromptLength(250, 0, 5),
    "threshold, budgeted": Budgeted(Threshold(0.8, (0, 5)), Money(2_000_000)),
}


def world(n: int = QUESTIONS, k: int = 6, seed: int = 0) -> Outcomes:
    """Random outcomes of n questions on k rungs, each twice as dear as the one before."""
    rng = np.random.default_rng(seed)
    cost = rng.integers(50_000, 150_000, (n, 1)) * 2 ** np.arange(k)
    return Outcomes(
        name="random",
        rungs=tuple(Rung(f"r{i}") for i in range(k)),
        keys=tuple(f"q{i}" for i in range(n)),
        features={"prompt_chars": rng.integers(50, 500, n)},
        quality=(rng.random((n, k)) < 0.7).astype(np.float64),
        answer=rng.integers(0, 3, (n, k)),
        confidence=rng.random((n, k)),
        cost=cost,
        price=cost,
        ceiling=cost * 2,
        latency=np.ones((n, k)),
        status=(rng.random((n, k)) < 0.02).astype(np.int8),
    )


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Climbs per second of each policy, median of interleaved repeats; `ratio` is over `climb_sync`."""
    data = world()
    figures = []
    for name, policy in POLICIES.items():
        columns, loop = [], []
        for _ in range(repeats):
            columns.append(QUESTIONS / _seconds(lambda p=policy: replay(p, data)))
            loop.append(CLIMBED / _seconds(lambda p=policy: [replay_one(p, data, i) for i in range(CLIMBED)]))
        value, base = statistics.median(columns), statistics.median(loop)
        figures.append(_figure(f"replay: {name}", value, value / base))
    policy, budget = POLICIES["threshold"], int(replay(POLICIES["threshold"], data).cost.sum()) // 2
    value = statistics.median(
        QUESTIONS / _seconds(lambda: replay(policy, data, per_run=budget)) for _ in range(repeats)
    )
    figures.append(_figure("replay: threshold, half the run's budget", value, None))
    small = world(1_319)
    value = statistics.median(1_319 / _seconds(lambda: replay(policy, small)) for _ in range(4 * repeats))
    return [*figures, _figure("replay: threshold, 1,319 questions", value, None)]


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _figure(name: str, value: float, ratio: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": "climbs/s",
        "limit": f">= {LIMIT:,}",
        "ok": value >= LIMIT,
        "ratio": ratio,
        "note": "" if ratio is None else "ratio to the loop of a live climb",
    }
