"""From figures to pixels: linear and logarithmic axes, and the round figures at which their ticks stand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "linear", "logarithmic", "money_scale", "money_tick"]

DECADES, ROOM = 1.3, 80.0
"""An axis of money is logarithmic where it spans more powers of ten than this; its ticks are so far apart."""


@dataclass(frozen=True)
class Scale:
    """`low`, `high`: figures at the pixels `start` and `end`. `log`: equal factors take equal room; what is 0 or less
    stands at the lower end.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Its pixel, kept between the ends."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        share = (value - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def linear(low: float, high: float, start: float, end: float, wanted: int = 6) -> Scale:
    """From a round figure at or below `low` to one at or above `high`."""
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    step = _round_step((high - low) / wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(i * step for i in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Both above 0. Ticks at 1, 2 and 5 times powers of ten, or at fewer of them, as there is room."""
    low, high = low / 1.25, high * 1.25
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps, every in (((1.0, 2.0, 5.0), 1), ((1.0, 3.0), 1), ((1.0,), 1), ((1.0,), 2), ((1.0,), 4)):
        found = (step * 10.0**power for power in powers if power % every == 0 for step in steps)
        ticks = tuple(tick for tick in found if low <= tick <= high)
        if len(ticks) * ROOM <= abs(end - start):
            break
    return Scale(low, high, start, end, ticks, log=True)


def money_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Of dollars: from 0 on, or logarithmic where they differ much."""
    known = list(values)
    positive = [value for value in known if value > 0]
    if not positive:
        return linear(0.0, 1.0, start, end)
    low, high = min(positive), max(positive)
    if math.log10(high / low) > DECADES:
        return logarithmic(low, high, start, end)
    return linear(0.0, high, start, end)


def money_tick(value: float) -> str:
    """Dollars of a tick, without zeros at the end."""
    told = f"{value:,.9f}".rstrip("0").rstrip(".")
    return f"${told}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= step * 0.999)
