"""How a value of each kind is written, in every report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from escalade.evals.tables import Column, Kind

__all__ = ["UNKNOWN", "dollars", "is_number", "safe", "written", "written_cell"]

UNKNOWN = "\N{EN DASH}"
"""What stands where nothing is known, or nothing could be: never a zero."""

LEFT: tuple[Kind, ...] = ("text", "yes")


def written_cell(column: Column, row: Mapping[str, Any]) -> str:
    """The value of this column with its interval, as in "85.7% [83.7%, 87.4%]"."""
    value = written(row[column.name], column.kind)
    if column.low is None or column.high is None or value == UNKNOWN:
        return value
    low, high = row[column.low], row[column.high]
    if low is None and high is None:
        return value
    return f"{value} [{written(low, column.kind)}, {written(high, column.kind)}]"


def written(value: Any, kind: Kind) -> str:
    """A value for people.

    >>> written(0.857, "share"), written(-0.021, "points"), written(0.0474, "usd")
    ('85.7%', '-2.1', '$0.0474')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    if kind == "text":
        return safe(str(value))
    if kind == "yes":
        return "yes" if value else "no"
    if math.isinf(value):
        return "never" if value > 0 else "-∞"
    return _NUMBERS[kind](float(value))


def is_number(column: Column) -> bool:
    """Does it stand at the right?"""
    return column.kind not in LEFT


def safe(text: str) -> str:
    """One line, without what could steer a terminal or turn the direction of what stands behind it."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def dollars(amount: float) -> str:
    """Three significant digits: 3.75, 0.0474, 0."""
    return _three(amount)


def _three(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 9)}f}"


def _usd(value: float) -> str:
    return ("-$" if value < 0 else "$") + _three(abs(value))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


_NUMBERS = {
    "share": lambda value: f"{100 * value:.1f}%",
    "points": lambda value: f"{100 * value:+.1f}",
    "usd": _usd,
    "seconds": lambda value: f"{_three(value)} s",
    "count": _count,
    "figure": lambda value: f"{value:.3f}" if abs(value) < 100 else _three(value),
    "ratio": lambda value: f"{value:.3g}x",
    "p": _p,
}
