"""How long a node usually takes: the durations of its last runs.

>>> durations = Durations()
>>> for seconds in (0.1, 0.2, 0.3, 0.4):
...     durations.add(seconds)
>>> durations.quantile(0.5)
0.2
"""

from __future__ import annotations

import math

_LAST = 128


class Durations:
    """The last 128 runs of one node of one pipeline object, in seconds, whichever thread they ran in."""

    __slots__ = ("_count", "_ring")

    def __init__(self) -> None:
        self._ring: list[float] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, seconds: float) -> None:
        """A run took so long."""
        self._count += 1  # two threads may count one run as one: a duration less, and nothing else
        if len(self._ring) < _LAST:
            self._ring.append(seconds)
        else:
            self._ring[self._count % _LAST] = seconds

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the runs (0 to 1) ended; nan without any run (nearest rank)."""
        known = sorted(self._ring[:])
        return known[max(0, math.ceil(share * len(known)) - 1)] if known else math.nan
