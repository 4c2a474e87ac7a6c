"""What a question costs: for each policy how many questions cost how much, on one axis, with the mean marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals.reporting.cells import dollars
from escalade.evals.reporting.charts.scale import Scale, money_scale, money_tick
from escalade.evals.reporting.charts.svg import cut, figure, line, tag, text

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["histogram"]

W, ROW, LEFT, RIGHT, TOP, BOTTOM = 960.0, 58.0, 210.0, 84.0, 6.0, 46.0
BINS = 60


def histogram(costs: Mapping[str, NDArray[np.float64]]) -> str:
    """`costs`: name of a policy -> (n,) dollars per 1,000 questions like each, all known."""
    if not costs or not any(len(one) for one in costs.values()):
        return ""
    x = money_scale(np.concatenate(list(costs.values())).tolist(), LEFT, W - RIGHT)
    high = TOP + ROW * len(costs) + BOTTOM
    parts = [*_axis(x, high)]
    for row, (name, cost) in enumerate(costs.items()):
        parts += _row(name, cost, x, TOP + ROW * (row + 1))
    return figure(W, high, "How many questions cost how much, by policy", parts)


def _axis(x: Scale, high: float) -> Iterator[str]:
    for tick in x.ticks:
        yield line(x.at(tick), TOP, x.at(tick), high - BOTTOM, "grid")
        yield text(x.at(tick), high - BOTTOM + 17, money_tick(tick), "t dim", "middle")
    told = "dollars per 1,000 such questions" + (
        ", logarithmic; what cost nothing stands at the left end" if x.log else ""
    )
    yield text((LEFT + W - RIGHT) / 2, high - 8, told, "t dim", "middle")


def _row(name: str, cost: NDArray[np.float64], x: Scale, base: float) -> Iterator[str]:
    pixels = np.array([x.at(value) for value in cost.tolist()])
    counts, edges = np.histogram(pixels, bins=BINS, range=(LEFT, W - RIGHT))
    most = int(counts.max()) or 1
    yield line(LEFT, base, W - RIGHT, base, "axis")
    yield text(LEFT - 10, base - 8, cut(name, LEFT - 16), "t", "end")
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            high = max(1.5, (ROW - 14) * count / most)
            tip = tag("title", f"{count:,} of {len(cost):,} questions")
            yield tag("rect", tip, x=left + 0.5, y=base - high, width=right - left - 1, height=high, class_="bar")
    mean = float(cost.mean())
    yield line(x.at(mean), base - ROW + 10, x.at(mean), base, "mean")
    yield text(W - RIGHT + 8, base - 8, f"${dollars(mean)}", "t dim")
