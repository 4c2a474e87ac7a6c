"""The two tests of a rollout, against scipy's."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from escalade.registry.comparison import fisher, mann_whitney


def test_fisher_is_scipys() -> None:
    """One-sided exact p-values of random tables, small and large."""
    rng = random.Random(1)
    for _ in range(300):
        n, m = rng.randint(1, rng.choice([10, 100, 3_000])), rng.randint(1, rng.choice([10, 100, 3_000]))
        a, b = rng.randint(0, n), rng.randint(0, m)
        expected = stats.fisher_exact([[a, n - a], [b, m - b]], alternative="greater").pvalue
        assert fisher(a, n, b, m) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_mann_whitney_is_scipys() -> None:
    """One-sided p-values with ties and without, sides of unequal size."""
    rng = random.Random(2)
    for _ in range(200):
        n, m = rng.randint(8, 80), rng.randint(8, 80)
        digits = rng.choice([0, 1, 6])
        new = [round(rng.lognormvariate(0.2, 1), digits) for _ in range(n)]
        old = [round(rng.lognormvariate(0, 1), digits) for _ in range(m)]
        if len({*new, *old}) == 1:
            continue
        expected = stats.mannwhitneyu(new, old, alternative="greater", method="asymptotic").pvalue
        assert mann_whitney(new, old) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_nothing_proves_nothing() -> None:
    """No calls on a side, or nothing but equal values: a p-value of 1."""
    assert fisher(0, 0, 3, 10) == fisher(3, 10, 0, 0) == 1.0
    assert mann_whitney([], [1.0]) == mann_whitney([1.0], []) == mann_whitney([2.0] * 9, [2.0] * 9) == 1.0
    assert fisher(0, 50, 0, 50) == pytest.approx(1.0)
