"""Tests that hold for any bounded loss and any sample size, by betting against it.

Sources: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS-B 86:1 (the wealth
and the predictable bets); Angelopoulos, Bates, Candes, Jordan & Lei 2021, "Learn then Test", arXiv 2110.01052 (fixed
sequence testing: candidates are tested in an order that was set beforehand, each at the full level, up to the first
that fails; the chance of passing any bad one stays below the level).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STAKE = 0.9
"""At most this share of the wealth is lost by the worst outcome."""


def p_values(losses: Any, epsilon: float, delta: float) -> Floats:
    """P values, `(m,)`, of "the mean loss of this candidate is above epsilon", for losses in -1..1, `(m, n)`.

    `delta`: the level that the bets are sized for; the p values are valid whatever it is. The n questions have to be
    drawn independently, or come in random order.
    """
    import numpy as np

    x = (np.atleast_2d(np.asarray(losses, dtype=np.float64)) + 1.0) / 2.0
    bound, n = (epsilon + 1.0) / 2.0, x.shape[1]
    count = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(x, axis=1)) / (count + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2, axis=1)) / (count + 1)
    before = np.hstack([np.full((x.shape[0], 1), 0.25), variance[:, :-1]])  # a bet is made before its outcome
    bets = np.minimum(np.sqrt(2.0 * math.log(1.0 / delta) / (n * before)), STAKE / (1.0 - bound))
    wealth = np.cumsum(np.log1p(bets * (bound - x)), axis=1).max(axis=1)
    p: Floats = np.minimum(1.0, np.exp(-wealth))
    return p


def last_safe(losses: Any, epsilon: float, delta: float) -> int:
    """Index of the last candidate that passes, in the order given, before the first that fails; -1 if none does."""
    import numpy as np

    failed = np.flatnonzero(~(p_values(losses, epsilon, delta) <= delta))  # a nan has shown nothing
    return int(failed[0]) - 1 if len(failed) else len(losses) - 1


def rows_needed(epsilon: float, delta: float) -> int:
    """The fewest rows on which a candidate without any loss passes."""
    import numpy as np

    low, high = 0, 16
    while float(p_values(np.zeros(high), epsilon, delta)[0]) > delta:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p_values(np.zeros(middle), epsilon, delta)[0] <= delta else (middle, high)
    return high
