"""How durations, money and counts are written for people."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal

from escalade.money import NANO


def seconds(value: float) -> str:
    """Three digits, in the unit that fits.

    >>> [seconds(s) for s in (0.0, 0.0000042, 0.0123, 1.5, 75, 3700, 200_000)]
    ['0 s', '4.20 us', '12.3 ms', '1.50 s', '1 min 15 s', '1 h 01 min', '2 d 07 h']
    """
    if math.isnan(value):
        return ""
    if value < 59.995:
        unit, factor = (
            ("s", 1.0) if value >= 0.9995 or value <= 0 else ("ms", 1e3) if value >= 0.9995e-3 else ("us", 1e6)
        )
        return f"{_three(value * factor)} {unit}"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def _three(value: float) -> str:
    if value <= 0:
        return "0"
    places = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{places}f}"


def dollars(nanos: int | None) -> str:
    """With at least two digits that say something.

    >>> [dollars(n) for n in (None, 0, 12_340_000_000, 45_600_000, 1_234, 1)]
    ['', '$0', '$12.34', '$0.046', '$0.0000012', '$0.000000001']
    """
    if nanos is None:
        return ""
    if nanos == 0:
        return "$0"
    amount = Decimal(nanos) / NANO
    places = min(9, max(2, 1 - amount.adjusted()))
    return f"${amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):,f}"


def count(value: float) -> str:
    """
    >>> [count(n) for n in (0, 1234, 2.5)]
    ['0', '1,234', '2.5']
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"
