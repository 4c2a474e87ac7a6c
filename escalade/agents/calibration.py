"""Calibrators: from what a source says to how often it is right when it says so; and how to measure that.

    calibrator = Isotonic.fit(confidences, right)       # held-out rows: fitted on what it is judged on, it flatters
    calibrator(0.9)                                     # 0.71

    Identity      as it is
    Temperature   sigmoid(log_odds(c) / T): one number (Guo et al. 2017, arXiv 1706.04599)
    Platt         sigmoid(a log_odds(c) + b), a >= 0 (Platt 1999, with his smoothed targets)
    Isotonic      any rising curve (Zadrozny & Elkan 2002), by pooling adjacent violators

All are monotone: they never turn an order of confidences round, so that a threshold on the calibrated confidence means
a probability, and a sweep of thresholds takes the same decisions. An unknown confidence (nan) stays unknown, and isn't
fitted on. They are saved with the program.

Each has a least number of rows. On a simulated source that overstates (Brier score 0.255) the worst of 20 fits on just
so many, 20, 30 and 100, still improved it on held-out rows: to 0.251, 0.246 and 0.227.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from escalade.agents._saving import Saved, register
from escalade.agents._sigmoid import fit_logistic, log_odds, sigmoid
from escalade.errors import BadInput, DataError

__all__ = ["Calibrator", "Identity", "Isotonic", "Platt", "Temperature", "auroc", "brier", "ece"]


class Calibrator(Saved):
    """Base of the calibrators. Subclasses are frozen dataclasses; `fit` makes one, calling it applies it."""

    __slots__ = ()
    noun: ClassVar[str] = "calibrator"
    min_rows: ClassVar[int] = 0

    def __call__(self, confidence: float) -> float:
        """The calibrated confidence in 0..1; nan for nan."""
        return math.nan if math.isnan(confidence) else min(1.0, max(0.0, self.mapped(confidence)))

    def mapped(self, confidence: float) -> float:
        """What a known confidence becomes."""
        raise NotImplementedError

    @classmethod
    def fit(cls, confidences: Sequence[float], right: Sequence[float]) -> Self:
        """Fitted to n confidences in 0..1 and whether each was right (0..1). Raises DataError for too few rows."""
        return cls.fitted(*known_rows(confidences, right, cls.min_rows, cls.kind))

    @classmethod
    def fitted(cls, confidences: list[float], right: list[float]) -> Self:
        """`fit`, on rows that are known and enough."""
        raise NotImplementedError


@register
@dataclass(frozen=True)
class Identity(Calibrator):
    """Leaves confidences as they are."""

    kind: ClassVar[str] = "identity"

    def mapped(self, confidence: float) -> float:
        return confidence

    @classmethod
    def fitted(cls, confidences: list[float], right: list[float]) -> Self:
        del confidences, right
        return cls()


@register
@dataclass(frozen=True)
class Temperature(Calibrator):
    """`sigmoid(log_odds(c) / temperature)`: above 1 it is overconfidence that is taken back. Raises BadInput."""

    kind: ClassVar[str] = "temperature"
    min_rows: ClassVar[int] = 20
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise BadInput(f"a temperature is above 0, not {self.temperature!r}")

    def mapped(self, confidence: float) -> float:
        return sigmoid(log_odds(confidence) / self.temperature)

    @classmethod
    def fitted(cls, confidences: list[float], right: list[float]) -> Self:
        """The least log loss, by golden section over T from 0.01 to 100; the loss is convex in 1 / T.

        Raises DataError for rows that are all right or all wrong: any T would do, the sharpest best.
        """
        if min(right) == max(right):
            raise DataError(f"all {len(right)} rows are {'right' if right[0] else 'wrong'}: no temperature fits them")
        odds = [log_odds(c) for c in confidences]

        def loss(beta: float) -> float:
            return sum(_log_loss(beta * x, y) for x, y in zip(odds, right, strict=True))

        return cls(1 / _least(loss, 0.01, 100.0))


@register
@dataclass(frozen=True)
class Platt(Calibrator):
    """`sigmoid(slope * log_odds(c) + bias)`. A slope is never below 0: confidences that mislead become one constant."""

    kind: ClassVar[str] = "platt"
    min_rows: ClassVar[int] = 30
    slope: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.slope < math.inf or not math.isfinite(self.bias):
            raise BadInput(f"expected a slope of 0 or more and a bias, got {self}")

    def mapped(self, confidence: float) -> float:
        return sigmoid(self.slope * log_odds(confidence) + self.bias)

    @classmethod
    def fitted(cls, confidences: list[float], right: list[float]) -> Self:
        """The least log loss against Platt's targets, (n+ + 1)/(n+ + 2) and 1/(n- + 2), which keep it finite."""
        good = sum(right)
        high, low = (good + 1) / (good + 2), 1 / (len(right) - good + 2)
        targets = [low + (high - low) * y for y in right]
        slope, bias = 0.0, log_odds(sum(targets) / len(targets))
        if min(right) < max(right):
            found, (rise,) = fit_logistic([[log_odds(c)] for c in confidences], targets, ridge=1e-9)
            slope, bias = (rise, found) if rise >= 0 else (slope, bias)
        return cls(slope, bias)


@register
@dataclass(frozen=True)
class Isotonic(Calibrator):
    """The rising curve with the least squared error; between its corners it is straight, beyond them constant.

    `corners`: (confidence, probability), both rising. It needs more rows than the others: it may take any form.
    Raises BadInput.
    """

    kind: ClassVar[str] = "isotonic"
    min_rows: ClassVar[int] = 100
    corners: tuple[tuple[float, float], ...] = ((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        corners = tuple((float(x), float(y)) for x, y in self.corners)
        object.__setattr__(self, "corners", corners)
        if not corners or sorted(corners) != list(corners) or sorted(y for _, y in corners) != [y for _, y in corners]:
            raise BadInput(f"an isotonic curve needs corners that rise, got {corners!r}")

    def mapped(self, confidence: float) -> float:
        at = bisect.bisect_left(self.corners, (confidence, -math.inf))
        if at == len(self.corners):
            return self.corners[-1][1]
        (x1, y1) = self.corners[at]
        if at == 0 or x1 == confidence:
            return y1
        (x0, y0) = self.corners[at - 1]
        return y0 + (y1 - y0) * (confidence - x0) / (x1 - x0)

    @classmethod
    def fitted(cls, confidences: list[float], right: list[float]) -> Self:
        corners = []
        for xs, y in pooled(confidences, right):
            corners += [(xs[0], y)] if xs[0] == xs[1] else [(xs[0], y), (xs[1], y)]
        return cls(tuple(corners))


def pooled(confidences: Sequence[float], right: Sequence[float]) -> list[tuple[tuple[float, float], float]]:
    """Blocks of the isotonic regression: (lowest and highest confidence, probability), by pooling adjacent violators.

    Rows of the same confidence are one point, weighed by their number.
    """
    blocks: list[tuple[float, float, float, int]] = []  # lowest, highest, sum of right, rows
    for c, y in sorted(zip(confidences, right, strict=True)):
        if blocks and blocks[-1][0] == blocks[-1][1] == c:
            _, _, good, n = blocks.pop()
            blocks.append((c, c, good + y, n + 1))
        else:
            _merge(blocks)
            blocks.append((c, c, y, 1))
    _merge(blocks)
    return [((low, high), good / n) for low, high, good, n in blocks]


def _merge(blocks: list[tuple[float, float, float, int]]) -> None:
    """Pool the last blocks while they don't rise."""
    while len(blocks) > 1 and blocks[-2][2] * blocks[-1][3] >= blocks[-1][2] * blocks[-2][3]:
        _, high, good, n = blocks.pop()
        low, _, before, m = blocks.pop()
        blocks.append((low, high, before + good, m + n))


# ------------------------------------------------------------------------------------------------------------ measures


def ece(confidences: Sequence[float], right: Sequence[float], bins: int = 10) -> float:
    """Expected calibration error: mean distance of confidence and share of right, over bins of equal width.

    Weighed by rows (Naeini et al. 2015); unknown confidences are left out. It depends on the bins and is biased upward
    on few rows. Raises DataError without known rows.
    """
    c, y = known_rows(confidences, right, 1, "an ECE")
    sums: dict[int, float] = {}
    for p, r in zip(c, y, strict=True):
        at = min(bins - 1, int(p * bins))
        sums[at] = sums.get(at, 0.0) + p - r
    return sum(abs(s) for s in sums.values()) / len(c)


def brier(confidences: Sequence[float], right: Sequence[float]) -> float:
    """Mean squared distance of confidence and truth (Brier 1950), without unknown confidences. Raises DataError."""
    c, y = known_rows(confidences, right, 1, "a Brier score")
    return sum((p - r) ** 2 for p, r in zip(c, y, strict=True)) / len(c)


def auroc(confidences: Sequence[float], right: Sequence[float]) -> float:
    """Probability that a right answer is given more confidence than a wrong one, ties half (Mann & Whitney 1947).

    Right is 1/2 or more. nan where all are right or all wrong. A monotone calibrator changes it only by making ties.
    Unknown confidences are left out. Raises DataError without known rows.
    """
    c, y = known_rows(confidences, right, 1, "an AUROC")
    ranks, i = 0.0, 0
    rows = sorted(zip(c, y, strict=True))
    good = sum(r >= 0.5 for _, r in rows)
    while i < len(rows):
        j = i
        while j < len(rows) and rows[j][0] == rows[i][0]:
            j += 1
        ranks += sum(r >= 0.5 for _, r in rows[i:j]) * (i + 1 + j) / 2
        i = j
    bad = len(rows) - good
    return (ranks - good * (good + 1) / 2) / (good * bad) if good and bad else math.nan


def known_rows(confidences: Any, right: Any, least: int, what: str) -> tuple[list[float], list[float]]:
    """The rows whose confidence is known, as floats. Raises DataError for fewer than `least`, or values out of 0..1."""
    c, y = [float(p) for p in confidences], [float(r) for r in right]
    if len(c) != len(y):
        raise DataError(f"{len(c)} confidences and {len(y)} truths: expected as many")
    rows = [(p, r) for p, r in zip(c, y, strict=True) if not (math.isnan(p) or math.isnan(r))]
    if any(not (0 <= p <= 1 and 0 <= r <= 1) for p, r in rows):
        raise DataError(f"{what}: confidences and truths lie between 0 and 1")
    if len(rows) < max(1, least):
        unknown = f" ({len(c) - len(rows)} more are unknown)" if len(rows) < len(c) else ""
        raise DataError(f"{what} needs at least {max(1, least)} rows with a known confidence, got {len(rows)}{unknown}")
    return [p for p, _ in rows], [r for _, r in rows]


def _log_loss(z: float, y: float) -> float:
    return max(z, 0.0) - y * z + math.log1p(math.exp(-abs(z)))


def _least(loss: Any, low: float, high: float) -> float:
    """Where a convex function is least, by golden section on a logarithmic scale."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = math.log(low), math.log(high)
    for _ in range(80):
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        if loss(math.exp(c)) <= loss(math.exp(d)):
            b = d
        else:
            a = c
    return math.exp((a + b) / 2)
