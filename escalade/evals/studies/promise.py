"""One promise of a replay, what came of it live, and how both are written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["CONFIRMED", "INSIDE", "OUTSIDE", "TOO_FEW", "UNKNOWN", "Promise", "figure", "in_print", "interval"]

CONFIRMED, INSIDE, OUTSIDE = "confirmed", "inside, but wide", "outside"
TOO_FEW, UNKNOWN = "too few", "unknown"
"""What becomes of a promise: the live mean is in the replay's interval, which is no wider than the margin; it is, but
the interval is wider; it isn't; no interval is shown to hold for so few questions; nothing is known, as of costs
without a price.
"""


@dataclass(frozen=True, slots=True)
class Promise:
    """One figure that a replay promised, and what it came to live, on the same questions.

    `what`: "quality" (0..1) or "cost" (dollars per question). `replayed`, `live`: means. `low`, `high`: where the live
    mean should lie: the replayed one, give or take the 95 % interval of the paired differences. `diff`, `diff_low`,
    `diff_high`: mean of live - replayed, question by question, and its interval. `margin`: how much is as good as
    nothing, in the same unit. nan is unknown. `few`: are these too few questions for any verdict?
    """

    what: str
    replayed: float
    live: float
    diff: float
    diff_low: float
    diff_high: float
    margin: float
    few: bool = field(default=False, kw_only=True)

    @property
    def low(self) -> float:
        low = self.replayed - (self.diff_high - self.diff)
        return low if math.isnan(low) else max(0.0, low)

    @property
    def high(self) -> float:
        high = self.replayed + (self.diff - self.diff_low)
        return min(1.0, high) if self.what == "quality" else high

    @property
    def inside(self) -> bool:
        """Does the live mean lie in the replay's interval? The same as: is zero in that of the differences?"""
        return self.diff_low <= 0.0 <= self.diff_high

    @property
    def verdict(self) -> str:
        if math.isnan(self.diff_low) or math.isnan(self.diff_high):
            return UNKNOWN
        if self.few:
            return TOO_FEW
        if not self.inside:
            return OUTSIDE
        return CONFIRMED if max(-self.diff_low, self.diff_high) <= self.margin else INSIDE

    @property
    def decided(self) -> bool:
        """Would more questions change nothing?"""
        return self.verdict in {CONFIRMED, OUTSIDE}


def in_print(promise: Promise, value: float) -> float:
    """Quality in percent, cost in dollars per 1,000 questions."""
    return value * (100.0 if promise.what == "quality" else 1000.0)


def figure(promise: Promise, value: float, *, signed: bool = False) -> str:
    """As it is written: "85.3 %", "$1.234 per 1k"."""
    if math.isnan(value):
        return "unknown"
    shown = in_print(promise, value)
    if promise.what == "quality":
        return f"{shown:+.1f} points" if signed else f"{shown:.1f} %"
    sign = ("-" if shown < 0 else "+" if signed else "") + "$"
    return f"{sign}{abs(shown):.4g} per 1k"


def interval(promise: Promise) -> str:
    """Where the live mean should lie: "83.8 to 89.2 %"."""
    low, high = figure(promise, promise.low), figure(promise, promise.high)
    if math.isnan(promise.low) or math.isnan(promise.high):
        return "unknown"
    return f"{low.split(' ')[0]} to {high}"
