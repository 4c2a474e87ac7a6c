"""An interval in a cell of a table, all rows on one axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from escalade.evals.reporting.charts.svg import line, tag

__all__ = ["Axis", "interval"]

W, H = 150.0, 16.0


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`; `mark`: where the baseline stands, None for nowhere."""

    low: float
    high: float
    mark: float | None = None

    @classmethod
    def over(cls, values: Iterable[float | None], mark: float | None = None) -> Axis:
        """Over all of them."""
        known = [value for value in values if value is not None]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        return cls(low, high if high > low else low + 1.0, mark)

    def at(self, value: float) -> float:
        """Its pixel."""
        return 5 + (W - 10) * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def interval(value: float, low: float | None, high: float | None, axis: Axis, role: str) -> str:
    """A dot between its bounds; a table says the same in figures beside it."""
    parts = [] if axis.mark is None else [line(axis.at(axis.mark), 0, axis.at(axis.mark), H, "mark")]
    if low is not None and high is not None:
        parts.append(line(axis.at(low), H / 2, axis.at(high), H / 2, f"whisker {role}"))
    parts.append(tag("circle", cx=axis.at(value), cy=H / 2, r=3.5, class_=f"dot {role}"))
    inside = "".join(parts)
    return (
        f'<svg class="spark" viewBox="0 0 {W:g} {H:g}" width="{W:g}" height="{H:g}" aria-hidden="true">{inside}</svg>'
    )
