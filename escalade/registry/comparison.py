"""Is the new version worse than the old one? Two small exact-enough tests, one-sided, without numpy.

`fisher`: of failures. Fisher's exact test on the two by two table of failed and good calls.
`mann_whitney`: of durations and costs, whatever their distribution: the rank-sum test with the normal approximation,
corrected for ties and continuity (good from 8 values a side on). Both are tested against scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def fisher(new_failed: int, new_calls: int, old_failed: int, old_calls: int) -> float:
    """The chance of so many failures of the new version or more, if both fail equally often: a p-value.

    >>> round(fisher(8, 50, 1, 50), 4)
    0.0154
    """
    failed, calls = new_failed + old_failed, new_calls + old_calls
    most = min(failed, new_calls)
    if not new_calls or not old_calls or new_failed > most:
        return 1.0
    total = _log_choose(calls, failed)
    tail = math.fsum(
        math.exp(_log_choose(new_calls, k) + _log_choose(old_calls, failed - k) - total)
        for k in range(max(new_failed, failed - old_calls), most + 1)
    )
    return min(1.0, tail)


def mann_whitney(new: Sequence[float], old: Sequence[float]) -> float:
    """The chance of values as large as those of the new version, if both have the same distribution: a p-value.

    1 where a side has no values or all values are the same.
    """
    n, m = len(new), len(old)
    values = sorted([(value, True) for value in new] + [(value, False) for value in old], key=lambda pair: pair[0])
    if not n or not m or values[0][0] == values[-1][0]:
        return 1.0
    ranks = ties = 0.0
    start = 0
    while start < len(values):
        end = start
        while end < len(values) and values[end][0] == values[start][0]:
            end += 1
        ranks += (start + end + 1) / 2 * sum(is_new for _, is_new in values[start:end])
        ties += (end - start) ** 3 - (end - start)
        start = end
    above = ranks - n * (n + 1) / 2
    total = n + m
    spread = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    return 0.5 * math.erfc((above - n * m / 2 - 0.5) / spread / math.sqrt(2))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
