"""Which of a thousand patterns match a permission, without trying a thousand patterns.

Patterns are filed by what stands before their first star and after their last one. A look-up asks once for each pair of
lengths that occurs; only patterns with something between two stars are then searched for it, from left to right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class _Filed(NamedTuple):
    """A pattern: its number, what stands between its stars, and the shortest text that it could match."""

    number: int
    middle: tuple[str, ...]
    least: int


class Index:
    """Patterns in which `*` stands for any run of characters, by number.

    >>> Index(["crm.*:call", "mail.send:call", "*"]).find("crm.search:call")
    [0, 2]
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: dict[str, list[int]] = {}
        self._filed: dict[tuple[int, int], dict[tuple[str, str], list[_Filed]]] = {}
        for number, pattern in enumerate(patterns):
            if "*" not in pattern:
                self._exact.setdefault(pattern, []).append(number)
                continue
            head, *middle, tail = pattern.split("*")
            filed = _Filed(number, tuple(filter(None, middle)), len(head) + sum(map(len, middle)) + len(tail))
            same_lengths = self._filed.setdefault((len(head), len(tail)), {})
            same_lengths.setdefault((head, tail), []).append(filed)

    def find(self, text: str) -> list[int]:
        """The numbers of all patterns that match the whole text, in order."""
        found = list(self._exact.get(text, ()))
        length = len(text)
        for (first, last), patterns in self._filed.items():
            near = patterns.get((text[:first], text[length - last :]))
            if near is not None:
                found += [f.number for f in near if f.least <= length and _within(f.middle, text, first, length - last)]
        found.sort()
        return found


def _within(middle: tuple[str, ...], text: str, start: int, end: int) -> bool:
    """Do the pieces occur between these places, one after the other? The leftmost places are as good as any."""
    for piece in middle:
        start = text.find(piece, start, end)
        if start < 0:
            return False
        start += len(piece)
    return True
