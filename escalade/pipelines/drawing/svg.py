"""A picture as SVG: without scripts, fonts or ids of its own, readable on light and on dark pages."""

from __future__ import annotations

from xml.sax.saxutils import escape

from escalade.pipelines.drawing.figure import Figure
from escalade.pipelines.drawing.layout import PAD, ROW, Box, Line, layout

_LINE, _CRITICAL = "#7d8590", "#d9730d"
"""Grey that can be seen on white (3.7 : 1) and on black (5.6 : 1), and what the critical path is marked by."""

_FILLS = {"function": "#eef2f7", "module": "#e6f0ff", "rest": "#f2f2f2"}
_TEXT, _SMALL, _RUN = "#1f2328", "#59636e", "#9a4b00"
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def svg(whole: Figure) -> str:
    """The picture, as one element that a page can hold or a file be."""
    picture = layout(whole)
    w, h = _number(picture.w), _number(picture.h)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img"',
        f' font-family="{_FONT}" font-size="12">',
        f"<title>{_text(whole.title)}</title>",
    ]
    parts += [_frame(box) for box in picture.boxes if box.figure.cluster]
    # Lines on the critical path last, over those that share a part of their way.
    parts += [_line(line) for line in sorted(picture.lines, key=lambda line: line.critical)]
    parts += [_node(box) for box in picture.boxes if not box.figure.cluster]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(box: Box) -> str:
    figure = box.figure
    words = "".join(
        _said(word, box.x + (0 if box.whole else PAD), box.y + PAD / 2 + ROW * (n + 0.5), n, figure, start=True)
        for n, word in enumerate(box.words)
    )
    if box.whole:
        return f"<g>{words}</g>"
    shape = _shape(box, fill=_LINE, opacity=' fill-opacity="0.08"', radius=8)
    return f"<g>{_tip(figure)}{shape}{words}</g>"


def _node(box: Box) -> str:
    figure = box.figure
    rows = "".join(
        _said(word, box.x + box.w / 2, box.y + 7 + ROW * (n + 0.5), n, figure, start=False)
        for n, word in enumerate(box.words)
    )
    radius = 3 if figure.kind == "function" else box.h / 2 if figure.kind == "rest" else 9
    faint = ' opacity="0.55"' if figure.ran is False else ""
    return f"<g{faint}>{_tip(figure)}{_shape(box, _FILLS.get(figure.kind, '#e6f0ff'), '', radius)}{rows}</g>"


def _shape(box: Box, fill: str, opacity: str, radius: float) -> str:
    figure = box.figure
    stroke, thick = (_CRITICAL, 2.5) if figure.critical else (_LINE, 1.2)
    dashes = ' stroke-dasharray="4 3"' if figure.optional or figure.kind == "rest" else ""
    size = f'x="{_number(box.x)}" y="{_number(box.y)}" width="{_number(box.w)}" height="{_number(box.h)}"'
    return (
        f'<rect {size} rx="{_number(radius)}" fill="{fill}"{opacity} stroke="{stroke}" stroke-width="{thick}"{dashes}/>'
    )


def _said(word: str, x: float, y: float, row: int, figure: Figure, *, start: bool) -> str:
    """A row of text on its middle line. What stands on the page itself is grey, what stands on a box is dark."""
    run = row and word == figure.run
    colour = _RUN if run else _TEXT if row == 0 else _SMALL
    if figure.cluster:
        colour = _CRITICAL if run else _LINE
    bold = ' font-weight="600"' if row == 0 else ""
    anchor = "" if start else ' text-anchor="middle"'
    return f'<text x="{_number(x)}" y="{_number(y + 4)}" fill="{colour}"{anchor}{bold}>{_text(word)}</text>'


def _tip(figure: Figure) -> str:
    """All of it, for who points at the node."""
    return f"<title>{_text(figure.full)}</title>" if figure.full else ""


def _line(line: Line) -> str:
    colour, thick = (_CRITICAL, 2.5) if line.critical else (_LINE, 1.2)
    dashes = ' stroke-dasharray="4 3"' if line.dashed else ""
    parts = []
    if line.points:
        points = " ".join(f"{_number(x)},{_number(y)}" for x, y in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{thick}"{dashes}/>')
    if line.arrow and len(line.points) > 1:
        parts.append(_arrow(line.points[-2], line.points[-1], colour))
    if line.label:
        x, y = line.at
        place = f'x="{_number(x)}" y="{_number(y + 4)}" text-anchor="middle"'
        parts.append(f'<text {place} fill="{colour}">{_text(line.label)}</text>')
    return "".join(parts)


def _arrow(before: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    (ax, ay), (bx, by) = before, end
    length = max(abs(bx - ax), abs(by - ay)) or 1.0
    dx, dy = (bx - ax) / length * 7, (by - ay) / length * 7
    corners = ((bx, by), (bx - dx - dy / 2, by - dy + dx / 2), (bx - dx + dy / 2, by - dy - dx / 2))
    return f'<polygon points="{" ".join(f"{_number(x)},{_number(y)}" for x, y in corners)}" fill="{colour}"/>'


def _text(text: str) -> str:
    """As XML may hold it: without the characters that it can't."""
    return escape("".join(c if c.isprintable() or c == "\n" else " " for c in text))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
