"""Where everything of a picture stands: top down, branches side by side, what belongs together in a frame.

A pipeline is made of pipelines, so its picture is made of theirs: each becomes a block with an axis, by which it is
entered at the top and left at the bottom, and blocks are put under or beside one another. So nothing can overlap, and
lines run in the gaps between blocks. The letters are all of one width, so that it is known how wide a text is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from escalade.pipelines.drawing.figure import Figure, joined

LETTER, ROW = 7.3, 16.0
"""A letter of 12 px of a monospaced font, which takes up to 0.605 of its size; a row of text."""

PAD = 10.0
GAP, SIDE = 26.0, 22.0
"""Between blocks under one another, and beside one another."""

RAIL = 14.0
"""From a block to the line that gathers its branches."""


@dataclass(slots=True)
class Box:
    """A frame on the picture, `whole` for that of the pipeline itself. `words`: its rows, from `top` on, `left` or
    centred.
    """

    figure: Figure
    x: float
    y: float
    w: float
    h: float
    words: list[str] = field(default_factory=list)
    whole: bool = False


@dataclass(slots=True)
class Line:
    """A line through points, with an arrow at its end where `arrow`. `label`: a text whose centre is at `at`."""

    points: list[tuple[float, float]]
    arrow: bool = True
    dashed: bool = False
    critical: bool = False
    label: str = ""
    at: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Block:
    """Boxes and lines within a width and a height. `axis`: where it is entered and left."""

    w: float
    h: float
    axis: float
    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def put(self, other: Block, x: float, y: float) -> None:
        """Take over what is in another block, at a place in this one."""
        self.boxes += [replace(box, x=box.x + x, y=box.y + y) for box in other.boxes]
        for line in other.lines:
            points = [(px + x, py + y) for px, py in line.points]
            self.lines.append(replace(line, points=points, at=(line.at[0] + x, line.at[1] + y)))

    def line(self, *points: tuple[float, float], critical: bool, arrow: bool = True, dashed: bool = False) -> Line:
        """One more line; points that change nothing are left out."""
        kept = [point for number, point in enumerate(points) if number == 0 or point != points[number - 1]]
        made = Line(kept, arrow, dashed, critical)
        self.lines.append(made)
        return made


def width(text: str) -> float:
    """Pixels of a text: East Asian letters and pictures take two places, combining ones none.

    >>> width("ab"), width("日本") == 2 * width("ab")
    (14.6, True)
    """
    places = 0
    for letter in text:
        if unicodedata.combining(letter):
            continue
        places += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
    return places * LETTER


def layout(whole: Figure) -> Block:
    """The picture of a pipeline, with a margin."""
    inner = _framed(whole, whole_=True)
    picture = Block(inner.w + 2 * PAD, inner.h + 2 * PAD, inner.axis + PAD)
    picture.put(inner, PAD, PAD)
    return picture


def _block(figure: Figure) -> Block:
    made = _framed(figure) if figure.cluster else _leaf(figure)
    return made if figure.fallback is None else _with_fallback(made, figure, figure.fallback)


def _leaf(figure: Figure) -> Block:
    words = [figure.title, *figure.lines, *([figure.run] if figure.run else [])]
    w = max(64.0, _widest(words) + 2 * PAD)
    h = len(words) * ROW + 2 * 7.0
    return Block(w, h, w / 2, [Box(figure, 0, 0, w, h, words)])


def _framed(figure: Figure, *, whole_: bool = False) -> Block:
    """A frame around what is inside, with its title and what is known of it in the corner."""
    inner = _inside(figure)
    words = [figure.title, *figure.lines, *([figure.run] if figure.run else [])]
    side, top = (0.0, 2 * PAD) if whole_ else (1.4 * PAD, PAD)
    head = len(words) * ROW + top
    left = max(inner.axis, (_widest(words) + PAD) / 2) + side
    right = max(inner.w - inner.axis, (_widest(words) + PAD) / 2) + side
    made = Block(left + right, head + inner.h + (0.0 if whole_ else 1.4 * PAD), left)
    made.boxes.append(Box(figure, 0, 0, made.w, made.h, words, whole_))
    made.put(inner, left - inner.axis, head)
    return made


def _inside(figure: Figure) -> Block:
    if figure.kind == "chain":
        return _stacked([_block(part) for part in figure.inside], figure.inside)
    if figure.kind == "loop":
        return _looped(figure)
    if figure.kind == "branch":
        return _branched(figure)
    joins = figure.of_role("join")
    parts = [part for part in figure.inside if part not in joins]
    beside = _beside(parts, labels=False, merge=joined(figure))
    return _stacked([beside, *map(_block, joins)], [None, *joins]) if joins else beside


def _stacked(blocks: list[Block], figures: Iterable[Figure | None]) -> Block:
    """One under the other, their axes in one line."""
    axis = max(block.axis for block in blocks)
    made = Block(axis + max(block.w - block.axis for block in blocks), 0.0, axis)
    before: Figure | None = None
    for number, (block, figure) in enumerate(zip(blocks, figures, strict=True)):
        if number:
            critical = (before is None or before.critical) and (figure is None or figure.critical)
            made.line((axis, made.h), (axis, made.h + GAP), critical=critical)
            made.h += GAP
        made.put(block, axis - block.axis, made.h)
        made.h += block.h
        before = figure
    return made


def _beside(parts: list[Figure], *, labels: bool, merge: str = "") -> Block:
    """Beside one another, between two lines that spread and gather them; one alone needs none."""
    blocks = [_block(part) for part in parts]
    if len(blocks) == 1 and not labels:
        return blocks[0]
    named = [part.label or part.title if labels else "" for part in parts]
    lefts = [max(block.axis, width(name) / 2) for block, name in zip(blocks, named, strict=True)]
    rights = [max(block.w - block.axis, width(name) / 2) for block, name in zip(blocks, named, strict=True)]
    w = sum(lefts) + sum(rights) + SIDE * (len(blocks) - 1)
    top = RAIL + GAP - 8 + (ROW + 4 if labels else 0)
    low = top + max(block.h for block in blocks) + RAIL
    told = "" if merge in ("", "all") else merge
    made = Block(w, low + RAIL, w / 2)
    x = 0.0
    for part, block, name, left, right in zip(parts, blocks, named, lefts, rights, strict=True):
        at = x + left
        _spread(made, part, at, top, name)
        made.put(block, at - block.axis, top)
        bottom, axis = (at, top + block.h), made.axis
        made.line(bottom, (at, low), (axis, low), (axis, made.h), critical=part.critical, arrow=False)
        x += left + right + SIDE
    if told:
        _tell(made, told, low)
    return made


def _spread(made: Block, part: Figure, at: float, top: float, name: str) -> None:
    """The line from the axis to the top of a branch, with what the branch is for in the middle of it."""
    axis = made.axis
    if not name:
        made.line((axis, 0), (axis, RAIL), (at, RAIL), (at, top), critical=part.critical)
        return
    words = RAIL + 6
    first = made.line((axis, 0), (axis, RAIL), (at, RAIL), (at, words), critical=part.critical, arrow=False)
    first.label, first.at = name, (at, words + ROW / 2)
    made.line((at, words + ROW), (at, top), critical=part.critical)


def _tell(made: Block, told: str, low: float) -> None:
    """Which of them are waited for, under the line that gathers them."""
    words = Line([], label=told, at=(made.axis, low + RAIL + ROW / 2))
    made.lines.append(words)
    made.h = low + RAIL + ROW
    short = made.w - made.axis < width(told) / 2
    if short:
        made.w = made.axis + width(told) / 2


def _branched(figure: Figure) -> Block:
    """What chooses, and under it the cases, each with what it is chosen by."""
    choosers = figure.of_role("chooser", "predicate")
    cases = _beside([part for part in figure.inside if part not in choosers], labels=True)
    if not choosers:
        return cases
    chain = _stacked([_block(part) for part in choosers], choosers)
    axis = max(chain.axis, cases.axis)
    w = axis + max(chain.w - chain.axis, cases.w - cases.axis)
    made = Block(w, chain.h + cases.h, axis)
    made.put(chain, axis - chain.axis, 0)
    made.put(cases, axis - cases.axis, chain.h)
    return made


def _looped(figure: Figure) -> Block:
    """The body, and a line back from its end to its beginning."""
    inner = _stacked([_block(part) for part in figure.inside], figure.inside)
    back = "again"
    made = Block(inner.w + RAIL + 6 + width(back), inner.h + 2 * GAP, inner.axis)
    made.put(inner, 0, GAP)
    right, low = inner.w + RAIL, GAP + inner.h + GAP / 2
    critical = any(part.critical for part in figure.inside)
    made.line((inner.axis, 0), (inner.axis, GAP), critical=critical)
    made.line((inner.axis, GAP + inner.h), (inner.axis, made.h), critical=critical, arrow=False)
    line = made.line(
        (inner.axis, low), (right, low), (right, GAP / 2), (inner.axis, GAP / 2), critical=False, dashed=True
    )
    line.label, line.at = back, (right + 6 + width(back) / 2, made.h / 2)
    return made


def _with_fallback(block: Block, figure: Figure, fallback: Figure) -> Block:
    """Beside it what stands in when it fails; both lead on."""
    other, said = _block(fallback), "fails"
    between = width(said) + 2 * SIDE
    high = max(block.h, other.h)
    low = high + RAIL
    made = Block(block.w + between + other.w, low + RAIL, block.axis)
    made.put(block, 0, 0)
    x = block.w + between
    made.put(other, x, 0)
    level = min(block.h, other.h, 40.0) / 2
    words = block.w + between / 2
    first = made.line((block.w, level), (words - width(said) / 2 - 4, level), critical=False, arrow=False, dashed=True)
    first.label, first.at = said, (words, level)
    made.line((words + width(said) / 2 + 4, level), (x, level), critical=False, dashed=True)
    made.line((block.axis, block.h), (block.axis, made.h), critical=figure.critical, arrow=False)
    at = x + other.axis
    made.line((at, other.h), (at, low), (block.axis, low), critical=False, arrow=False, dashed=True)
    return made


def _widest(words: Iterable[str]) -> float:
    return max((width(word) for word in words), default=0.0)
