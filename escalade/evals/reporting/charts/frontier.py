"""Quality against cost: a point per policy with its intervals both ways, and the frontier as the stair that it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from escalade.evals.reporting.cells import dollars, safe
from escalade.evals.reporting.charts.labels import Box, Label, place
from escalade.evals.reporting.charts.scale import Scale, linear, money_scale, money_tick
from escalade.evals.reporting.charts.svg import cut, figure, line, path, tag, text

__all__ = ["Point", "frontier"]

W, H = 960.0, 520.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 14.0, 50.0
LONGEST = 260.0
"""Pixels of a name."""

Role = Literal["baseline", "frontier", "bound", "mix", "other"]
RANKS: tuple[Role, ...] = ("baseline", "frontier", "bound", "other", "mix")
"""In this order names get their places."""


@dataclass(frozen=True)
class Point:
    """A policy. `cost`: dollars per 1,000 questions; `quality`: 0..1; bounds of their intervals, None where unknown.

    `role`: "bound" is the oracle's, "mix" that of a random mix.
    """

    name: str
    cost: float
    quality: float
    cost_low: float | None = None
    cost_high: float | None = None
    quality_low: float | None = None
    quality_high: float | None = None
    role: Role = "other"
    on_frontier: bool = False


def frontier(points: Sequence[Point]) -> str:
    """The picture; nothing where no cost is known."""
    if not points:
        return ""
    x = money_scale([v for p in points for v in (p.cost, p.cost_low, p.cost_high) if v is not None], LEFT, W - RIGHT)
    bounds = [v for p in points for v in (p.quality, p.quality_low, p.quality_high) if v is not None]
    y = linear(100 * min(bounds), 100 * max(bounds), H - BOTTOM, TOP)
    ranked = sorted(points, key=lambda p: (RANKS.index(p.role), -p.quality))
    labels = _labels(ranked, x, y)
    parts = [*_axes(x, y), *_stair(points, x, y)]
    parts += [part for p in reversed(ranked) for part in _whiskers(p, x, y)]
    parts += [_leader(label) for label in labels if label.far]
    parts += [_dot(p, x, y) for p in reversed(ranked)]
    parts += [text(b.box.x, b.box.y + b.box.h - 3, b.name, "t label") for b in labels]
    return figure(W, H, f"Quality against cost of {len(points)} policies, with 95 % intervals", parts)


def _labels(ranked: Sequence[Point], x: Scale, y: Scale) -> list[Label]:
    lines = [Box(x.at(_or(p.cost_low, p.cost)), y.at(100 * p.quality) - 1, _wide(p, x), 2) for p in ranked]
    lines += [Box(x.at(p.cost) - 1, y.at(100 * _or(p.quality_high, p.quality)), 2, _high(p, y)) for p in ranked]
    named = [(cut(p.name, LONGEST), x.at(p.cost), y.at(100 * p.quality)) for p in ranked]
    return place(named, Box(LEFT + 2, TOP, W - LEFT - RIGHT - 2, H - TOP - BOTTOM - 2), lines)


def _wide(p: Point, x: Scale) -> float:
    return x.at(_or(p.cost_high, p.cost)) - x.at(_or(p.cost_low, p.cost))


def _high(p: Point, y: Scale) -> float:
    return y.at(100 * _or(p.quality_low, p.quality)) - y.at(100 * _or(p.quality_high, p.quality))


def _axes(x: Scale, y: Scale) -> Iterator[str]:
    for tick in y.ticks:
        yield line(LEFT, y.at(tick), W - RIGHT, y.at(tick), "grid")
        yield text(LEFT - 8, y.at(tick) + 4, f"{tick:g}%", "t dim", "end")
    for tick in x.ticks:
        yield line(x.at(tick), TOP, x.at(tick), H - BOTTOM, "grid")
        yield text(x.at(tick), H - BOTTOM + 18, money_tick(tick), "t dim", "middle")
    told = "dollars per 1,000 questions" + (", logarithmic" if x.log else "")
    yield text((LEFT + W - RIGHT) / 2, H - 8, told, "t dim", "middle")


def _stair(points: Sequence[Point], x: Scale, y: Scale) -> Iterator[str]:
    """From each policy of the frontier to the next dearer one: between them nothing is better than the cheaper one."""
    on = sorted((p for p in points if p.on_frontier), key=lambda p: p.cost)
    if not on:
        return
    steps = [(x.at(on[0].cost), y.at(100 * on[0].quality))]
    for p in on[1:]:
        steps += [(x.at(p.cost), steps[-1][1]), (x.at(p.cost), y.at(100 * p.quality))]
    yield path([*steps, (W - RIGHT, steps[-1][1])], "stair")


def _whiskers(p: Point, x: Scale, y: Scale) -> Iterator[str]:
    px, py = x.at(p.cost), y.at(100 * p.quality)
    if p.quality_low is not None and p.quality_high is not None:
        yield line(px, y.at(100 * p.quality_low), px, y.at(100 * p.quality_high), f"whisker {p.role}")
    if p.cost_low is not None and p.cost_high is not None:
        yield line(x.at(p.cost_low), py, x.at(p.cost_high), py, f"whisker {p.role}")


def _dot(p: Point, x: Scale, y: Scale) -> str:
    tip = tag("title", _tip(p))
    px, py, role = x.at(p.cost), y.at(100 * p.quality), f"dot {p.role}"
    if p.role == "mix":
        return tag("rect", tip, x=px - 4, y=py - 4, width=8, height=8, class_=role)
    if p.role == "bound":
        return tag("path", tip, d=f"M{px:.1f} {py - 6:.1f}l6 6l-6 6l-6 -6z", class_=role)
    return tag("circle", tip, cx=px, cy=py, r=6.0 if p.role == "baseline" else 5.0, class_=role)


def _tip(p: Point) -> str:
    return escape(safe(f"{p.name}: {100 * p.quality:.1f}% at ${dollars(p.cost)} per 1,000 questions"))


def _leader(label: Label) -> str:
    (x, y), box = label.point, label.box
    return line(x, y, min(max(x, box.x), box.x + box.w), min(max(y, box.y + 2), box.y + box.h - 2), "leader")


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
