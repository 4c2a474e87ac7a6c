"""How often a rung is right at what it says: one small picture per rung, with the diagonal that would be perfect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from escalade.evals.reporting.charts.scale import Scale
from escalade.evals.reporting.charts.svg import cut, figure, line, path, tag, text

if TYPE_CHECKING:
    from escalade.evals.metrics.confidence import Bin

__all__ = ["Reliability", "reliability"]

W, H = 236.0, 268.0
LEFT, RIGHT, TOP, BOTTOM, BARS = 34.0, 10.0, 40.0, 30.0, 30.0
TICKS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Reliability:
    """Of one rung. `told`: what stands under its name, such as its calibration error."""

    rung: str
    bins: tuple[Bin, ...]
    told: str = ""


def reliability(curve: Reliability) -> str:
    """The picture."""
    x = Scale(0.0, 1.0, LEFT, W - RIGHT, TICKS)
    y = Scale(0.0, 1.0, H - BOTTOM - BARS, TOP, TICKS)
    parts = [text(LEFT, 14, cut(curve.rung, W - LEFT - RIGHT), "t strong"), text(LEFT, 29, curve.told, "t dim")]
    parts += [*_axes(x, y), *_bars(curve.bins, x), *_points(curve.bins, x, y)]
    return figure(W, H, f"Reliability of {curve.rung}: quality by stated confidence", parts, "chart small")


def _axes(x: Scale, y: Scale) -> Iterator[str]:
    for tick in TICKS:
        yield line(LEFT, y.at(tick), W - RIGHT, y.at(tick), "grid")
        yield text(LEFT - 5, y.at(tick) + 4, f"{tick:g}", "t dim", "end")
        yield text(x.at(tick), H - BOTTOM + 12, f"{tick:g}", "t dim", "middle")
    yield line(x.at(0), y.at(0), x.at(1), y.at(1), "diagonal")
    yield text((LEFT + W - RIGHT) / 2, H - 4, "stated confidence", "t dim", "middle")


def _bars(bins: Sequence[Bin], x: Scale) -> Iterator[str]:
    """How many answers were that sure."""
    most = max((one.n for one in bins), default=0) or 1
    for one in bins:
        high = max(1.0, (BARS - 8) * one.n / most)
        yield tag("rect", x=x.at(one.confidence) - 4, y=H - BOTTOM - high, width=8, height=high, class_="bar faint")


def _points(bins: Sequence[Bin], x: Scale, y: Scale) -> Iterator[str]:
    ordered = sorted(bins, key=lambda one: one.confidence)
    if len(ordered) > 1:
        yield path([(x.at(one.confidence), y.at(one.quality)) for one in ordered], "curve")
    for one in ordered:
        px = x.at(one.confidence)
        if one.quality_low <= one.quality_high:  # unknown bounds are nan
            yield line(px, y.at(one.quality_low), px, y.at(one.quality_high), "whisker frontier")
        tip = tag("title", f"said {one.confidence:.2f}, came to {one.quality:.2f} of {one.n:,}")
        yield tag("circle", tip, cx=px, cy=y.at(one.quality), r=3.5, class_="dot frontier")
