"""Elements of SVG as text. Everything that comes from data is escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from html import escape

from escalade.evals.reporting.cells import safe

__all__ = ["LETTER", "cut", "figure", "line", "path", "tag", "text", "width"]

LETTER = 6.75
"""Pixels of a letter of the pictures' font: monospaced, 11 px, of which it takes up to 0.605, and a little more."""


def tag(name: str, *inside: str, **attributes: object) -> str:
    """An element; `class_` and `text_anchor` become `class` and `text-anchor`. None is left out."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{told}>{''.join(inside)}</{name}>" if inside else f"<{name}{told}/>"


def text(x: float, y: float, words: str, class_: str = "t", anchor: str | None = None) -> str:
    """A text; `anchor`: start, middle or end."""
    return tag("text", escape(safe(words)), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """From one point to another."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str) -> str:
    """Through all of them."""
    told = "L".join(f"{_written(float(x))} {_written(float(y))}" for x, y in points)
    return tag("path", d=f"M{told}", class_=class_)


def figure(w: float, h: float, title: str, parts: Iterable[str], class_: str = "chart") -> str:
    """The whole picture, which is told by its title to who can't see it."""
    return (
        f'<svg class="{class_}" viewBox="0 0 {w:g} {h:g}" width="{w:g}" height="{h:g}" role="img" '
        f'aria-label="{escape(safe(title))}">{"".join(parts)}</svg>'
    )


def width(words: str) -> float:
    """Pixels of a text in the pictures' font: East Asian letters and pictures take two places, combining ones none."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in words)
    none = sum(bool(unicodedata.combining(letter)) for letter in words)
    return (len(words) + wide - none) * LETTER


def cut(words: str, pixels: float) -> str:
    """As much of it as has room."""
    words = safe(words)
    if width(words) <= pixels:
        return words
    while words and width(words) > pixels - LETTER:
        words = words[:-1]
    return words + "\N{HORIZONTAL ELLIPSIS}"


def _written(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
