"""Quality per category: a bar for each of two policies, with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from escalade.evals.reporting.charts.scale import Scale, linear
from escalade.evals.reporting.charts.svg import cut, figure, line, tag, text

__all__ = ["Category", "Share", "categories"]

W, ROW, LEFT, RIGHT, TOP, BOTTOM = 960.0, 34.0, 230.0, 110.0, 6.0, 30.0
THICK = 9.0


@dataclass(frozen=True)
class Share:
    """A quality in 0..1 with its interval."""

    quality: float
    low: float
    high: float


@dataclass(frozen=True)
class Category:
    """`shares`: one for each policy, in the order of their names."""

    name: str
    n: int
    shares: tuple[Share, ...]


def categories(rows: Sequence[Category]) -> str:
    """The picture; the first policy's bars are dark, the second's light."""
    if not rows:
        return ""
    high = TOP + ROW * len(rows) + BOTTOM
    x = linear(0.0, 100.0, LEFT, W - RIGHT)
    parts = [*_axis(x, high)]
    for at, row in enumerate(rows):
        parts += _row(row, x, TOP + ROW * at)
    return figure(W, high, f"Quality in {len(rows)} categories, with 95 % intervals", parts)


def _axis(x: Scale, high: float) -> Iterator[str]:
    for tick in x.ticks:
        yield line(x.at(tick), TOP, x.at(tick), high - BOTTOM, "grid")
        yield text(x.at(tick), high - BOTTOM + 18, f"{tick:g}%", "t dim", "middle")


def _row(row: Category, x: Scale, top: float) -> Iterator[str]:
    yield text(LEFT - 10, top + ROW / 2 + 4, cut(row.name, LEFT - 16), "t", "end")
    yield text(W - RIGHT + 10, top + ROW / 2 + 4, f"{row.n:,} questions" if row.n != 1 else "1 question", "t dim")
    start = top + (ROW - THICK * len(row.shares) - 2) / 2
    for at, share in enumerate(row.shares):
        y = start + at * (THICK + 2)
        tip = tag("title", f"{100 * share.quality:.1f}% [{100 * share.low:.1f}%, {100 * share.high:.1f}%]")
        wide = max(1.0, x.at(100 * share.quality) - LEFT)
        yield tag("rect", tip, x=LEFT, y=y, width=wide, height=THICK, class_=f"bar s{at}")
        middle = y + THICK / 2
        yield line(x.at(100 * share.low), middle, x.at(100 * share.high), middle, "whisker on-bar")
