"""The lines of attempts of a run directory, looked at before anybody reckons with them: fields, kinds, ranges.

A block is looked at in columns; only one with something wrong is looked at line by line, to say which line it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from escalade.errors import DataError
from escalade.evals._codes import MOST_COST, STATUSES
from escalade.evals.studies.blocks import blocks

__all__ = ["attempts"]


class _Figure(NamedTuple):
    """A field that is a number. `kinds`: of numpy's types. `needed`: has every line to have it?"""

    name: str
    kinds: str
    most: float
    needed: bool
    expected: str


_SHARE, _SECONDS, _MONEY = (
    "a number from 0 to 1",
    "seconds, 0 or more",
    "whole nano-dollars from 0 to a million dollars",
)

_FIGURES = (
    _Figure("quality", "fi", 1.0, True, _SHARE),
    _Figure("confidence", "fi", 1.0, False, _SHARE),
    _Figure("latency", "fi", math.inf, False, _SECONDS),
    _Figure("epoch", "i", math.inf, True, "a whole number, 0 or more"),
    _Figure("spent", "i", MOST_COST, True, _MONEY),
    *(_Figure(name, "i", MOST_COST, False, _MONEY) for name in ("cost", "grading", "regrading")),
)


def attempts(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The lines of a file of attempts, parsed, block by block. Raises DataError, which names the line."""
    before = 0
    for rows in blocks(path):
        if _wrong(rows):
            at, why = next((at, why) for at, row in enumerate(rows, 1) if (why := _wrong([row])))
            raise DataError(f"{path}, line {before + at}: {why}; take it out, and its attempt is owed again")
        before += len(rows)
        yield rows


def _wrong(rows: Sequence[Any]) -> str:
    """What isn't as it should be in some of these lines; "" for nothing."""
    if set(map(type, rows)) != {dict}:
        return f"expected a JSON object, got {rows[0]!r:.40}"
    for name in ("key", "of", "status"):
        found = _all(rows, name)
        if set(map(type, found)) != {str} or len(found) < len(rows):
            return f"{name}: expected a text, got {rows[0].get(name)!r:.40}"
    if not set(found).issubset(STATUSES):
        return f"status: expected one of {', '.join(STATUSES)}, got {rows[0].get('status')!r:.40}"
    return next((why for figure in _FIGURES if (why := _off(figure, rows))), "")


def _off(figure: _Figure, rows: Sequence[dict[str, Any]]) -> str:
    found = _all(rows, figure.name)
    if figure.needed and len(found) < len(rows):
        return f"{figure.name}: expected {figure.expected}, got nothing"
    if not found or _within(figure, found):
        return ""
    return f"{figure.name}: expected {figure.expected}, got {found[0]!r:.40}"


def _all(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """A field of those that have it: mostly all lines of a block, or none."""
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row[name] for row in rows if name in row]


def _within(figure: _Figure, values: list[Any]) -> bool:
    try:
        column = np.array(values)
    except ValueError:  # lists of several lengths
        return False
    right = column.ndim == 1 and column.dtype.kind in figure.kinds
    return bool(right and column.min() >= 0 and column.max() <= figure.most)
