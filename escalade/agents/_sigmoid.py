"""Log-odds and the logistic regression on them, small enough to be read, without numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from escalade.errors import DataError

EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1: a model that says 1.0 is sure, but not infinitely."""


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    e = math.exp(x)
    return e / (1 + e)


def log_odds(p: float) -> float:
    """ln(p / (1 - p)), of p within 1e-6 of 0 and 1."""
    p = min(max(p, EDGE), 1 - EDGE)
    return math.log(p / (1 - p))


def fit_logistic(
    rows: Sequence[Sequence[float]], right: Sequence[float], *, ridge: float = 1e-3
) -> tuple[float, tuple[float, ...]]:
    """(bias, coefficients) of the logistic regression, by Newton's method.

    `rows`: (n, m). `right`: n targets in 0..1. `ridge`: half of it times the squared coefficients (not the bias) is
    added to the summed loss, so that rows that one signal separates have a finite fit. Raises DataError for targets
    that are all the same.
    """
    if not min(right) < max(right):
        raise DataError(f"all {len(right)} rows are {'right' if right and right[0] else 'wrong'}: nothing to fit")
    m = len(rows[0])
    w = [0.0] * (m + 1)
    full = [(1.0, *row) for row in rows]
    loss = _loss(full, right, w, ridge)
    for _ in range(100):
        step = _newton(full, right, w, ridge)
        size = 1.0
        while (new := _loss(full, right, [a - size * d for a, d in zip(w, step, strict=True)], ridge)) > loss:
            size /= 2
            if size < 1e-10:
                return w[0], tuple(w[1:])
        w = [a - size * d for a, d in zip(w, step, strict=True)]
        if loss - new < 1e-12 * (1 + abs(loss)):
            break
        loss = new
    return w[0], tuple(w[1:])


def _loss(rows: Sequence[Sequence[float]], right: Sequence[float], w: Sequence[float], ridge: float) -> float:
    total = ridge / 2 * sum(a * a for a in w[1:])
    for row, y in zip(rows, right, strict=True):
        z = sum(a * x for a, x in zip(w, row, strict=True))
        total += max(z, 0.0) - y * z + math.log1p(math.exp(-abs(z)))
    return total


def _newton(rows: Sequence[Sequence[float]], right: Sequence[float], w: Sequence[float], ridge: float) -> list[float]:
    m = len(w)
    slope = [0.0] + [ridge * a for a in w[1:]]
    bend = [[(ridge if i == j and i else 0.0) for j in range(m)] for i in range(m)]
    for row, y in zip(rows, right, strict=True):
        p = sigmoid(sum(a * x for a, x in zip(w, row, strict=True)))
        for i in range(m):
            slope[i] += (p - y) * row[i]
            for j in range(i + 1):
                bend[i][j] += p * (1 - p) * row[i] * row[j]
    for i in range(m):
        bend[i][i] += 1e-12
        for j in range(i):
            bend[j][i] = bend[i][j]
    return _solved(bend, slope)


def _solved(a: list[list[float]], b: list[float]) -> list[float]:
    """The x with a x = b, by Gaussian elimination with pivots."""
    n = len(b)
    rows = [[*a[i], b[i]] for i in range(n)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(i + 1, n):
            factor = rows[r][i] / rows[i][i]
            rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
    x = [0.0] * n
    for i in reversed(range(n)):
        x[i] = (rows[i][n] - sum(rows[i][j] * x[j] for j in range(i + 1, n))) / rows[i][i]
    return x
