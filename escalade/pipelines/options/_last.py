"""What a node usually takes: seconds, or nano-dollars, of its last runs.

>>> seconds = Last()
>>> for took in (0.1, 0.2, 0.3, 0.4):
...     seconds.add(took)
>>> seconds.quantile(0.5)
0.2
"""

from __future__ import annotations

import math

_LAST = 128

FEW = 5
"""Runs after which it is known what something usually takes that one can do without."""


class Last:
    """A number of each of the last 128 runs of one node of one pipeline object, whichever thread they ran in."""

    __slots__ = ("_count", "_ring")

    def __init__(self) -> None:
        self._ring: list[float] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, number: float) -> None:
        """One more run."""
        self._count += 1  # two threads may count two runs as one: a number less, and nothing else
        if len(self._ring) < _LAST:
            self._ring.append(number)
        else:
            self._ring[self._count % _LAST] = number

    def quantile(self, share: float) -> float:
        """What this share of the runs (0 to 1) stayed within; nan without any run (nearest rank)."""
        known = sorted(self._ring[:])
        return known[max(0, math.ceil(share * len(known)) - 1)] if known else math.nan
