"""Names beside points, so that none lies on another, on a point or outside of the picture.

The names are placed in the order of their importance; each takes the first place around its point that is free, the
nearest first, among equals the one that crosses the fewest lines. A name that finds no place is left out: the point
still tells it to who points at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from escalade.evals.reporting.charts.svg import width

__all__ = ["Box", "Label", "place"]

HEIGHT, GAP = 13.0, 2.0
RADII = (9.0, 20.0, 34.0, 50.0, 68.0, 90.0)
SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1), (2, -1), (2, 1), (-2, -1), (-2, 1))


@dataclass(frozen=True)
class Box:
    """From its corner at the upper left."""

    x: float
    y: float
    w: float
    h: float

    def meets(self, other: Box, gap: float = GAP) -> bool:
        return (
            self.x < other.x + other.w + gap
            and other.x < self.x + self.w + gap
            and self.y < other.y + other.h + gap
            and other.y < self.y + self.h + gap
        )

    def within(self, other: Box) -> bool:
        right, bottom = other.x + other.w, other.y + other.h
        return other.x <= self.x and other.y <= self.y and self.x + self.w <= right and self.y + self.h <= bottom


@dataclass(frozen=True)
class Label:
    """`box`: where the name stands. `far`: is it so far from its point that a line has to lead there?"""

    name: str
    box: Box
    point: tuple[float, float]
    far: bool


def place(points: Sequence[tuple[str, float, float]], frame: Box, lines: Iterable[Box] = ()) -> list[Label]:
    """`points`: (name, x, y), the most important first. `lines`: what had better not be crossed."""
    dots = [Box(x - 5, y - 5, 10, 10) for _, x, y in points]
    crossed = list(lines)
    placed: list[Label] = []
    for name, x, y in points:
        found = _free(name, x, y, frame, [*dots, *(label.box for label in placed)], crossed)
        if found is not None:
            placed.append(found)
    return placed


def _free(name: str, x: float, y: float, frame: Box, taken: Sequence[Box], lines: Sequence[Box]) -> Label | None:
    w = width(name)
    for radius in RADII:
        boxes = (_beside(x, y, w, radius, side) for side in SIDES)
        free = [box for box in boxes if box.within(frame) and not any(box.meets(other) for other in taken)]
        if free:
            best = min(free, key=lambda box: sum(box.meets(line, 0) for line in lines))
            return Label(name, best, (x, y), far=radius > RADII[0])
    return None


def _beside(x: float, y: float, w: float, radius: float, side: tuple[int, int]) -> Box:
    across, down = side
    left = x + radius if across > 0 else x - radius - w if across < 0 else x - w / 2
    top = (
        y
        - HEIGHT / 2
        + down * (radius if across in {-1, 0, 1} else radius / 2)
        + (down * HEIGHT / 2 if not across else 0)
    )
    return Box(left, top, w, HEIGHT)
