"""How often somebody who looks after every question finds a difference that isn't there: at most 5 % of runs.

Simulated paired differences without any effect, looked at after each of 500 questions: the intervals that a live run
peeks with (`inference.sequential`), and beside them Student's, which hold for one look at a fixed number of questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from escalade.evals.inference.sequential import Asymptotic, Betting, Sequence
from escalade.evals.statistics import t_quantile

RUNS, QUESTIONS, FIRST, LEVEL = 500, 500, 10, 0.05

Make = Callable[[], Sequence]


def worlds(seed: int) -> dict[str, tuple[Make, Any]]:
    """Name -> (interval, (runs, questions) differences whose mean is 0)."""
    draw, shape = np.random.default_rng(seed), (RUNS, QUESTIONS)
    signs = np.array([-1.0, 0.0, 1.0])
    rare, often = (draw.choice(signs, p=[p / 2, 1 - p, p / 2], size=shape) for p in (0.05, 0.4))
    graded = draw.beta(0.4, 0.4, size=shape) - draw.beta(0.4, 0.4, size=shape)
    first, second = draw.lognormal(size=shape), draw.lognormal(size=shape)

    def bet() -> Sequence:
        return Betting(-1.0, 1.0, points=21)

    return {
        "0/1 grades, 5 % differ": (bet, rare),
        "0/1 grades, 40 % differ": (bet, often),
        "grades between 0 and 1": (bet, graded),
        "dollars with a long tail": (Asymptotic, first - second),
    }


def alarmed(make: Make, run: list[float]) -> bool:
    """Was zero outside at any moment?"""
    seen = make()
    for value in run:
        seen.add(value)
        if seen.low > 0 or seen.high < 0:
            return True
    return False


def fixed(draws: Any) -> float:
    """The same share for Student's interval, looked at from the tenth question on."""
    n = np.arange(1, draws.shape[1] + 1)
    mean = draws.cumsum(axis=1) / n
    variance = np.maximum((draws**2).cumsum(axis=1) / n - mean**2, 0) * n / np.maximum(n - 1, 1)
    t = np.array([math.inf if k < FIRST else t_quantile(0.975, k - 1) for k in n.tolist()])
    return float((np.abs(mean) > t * np.sqrt(np.maximum(variance, 1e-12) / n)).any(axis=1).mean())


def run(repeats: int = 1) -> list[dict[str, Any]]:
    """Shares of false alarms; `repeats` times 500 runs each."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(repeats):
        for name, (make, draws) in worlds(seed).items():
            ours = sum(alarmed(make, one) for one in draws.tolist()) / RUNS
            found.setdefault(name, []).append((ours, fixed(draws)))
    results = []
    for name, shares in found.items():
        ours, students = (float(np.mean(column)) for column in zip(*shares, strict=True))
        note = f"within {QUESTIONS} questions; Student's interval: {students:.1%}"
        results.append(
            {
                "name": f"false alarms, {name}",
                "value": ours * 100,
                "unit": "%",
                "limit": f"<= {LEVEL:.0%}",
                "ok": ours <= LEVEL,
                "ratio": None,
                "note": note,
            }
        )
    return results
