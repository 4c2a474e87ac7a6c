"""Retries: another attempt after a failure, for tools that may be called twice. Each attempt passes the whole guard.

What failed is the tool: refusals, wrong arguments and other mistakes of the caller are not tried again. The pauses
double, with jitter; an exception that says `retry_after` (seconds) is believed instead. No pause outlasts the deadline.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from escalade.errors import EscaladeError, ToolFailed, ToolTimeout

_FIRST, _LONGEST = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Retries:
    """At most `times` further attempts. `chance`: where jitter comes from."""

    times: int
    chance: random.Random

    def pause(self, error: Exception, attempts: int, time_left: float) -> float | None:
        """Seconds to wait before the next attempt, after so many; None when there shall be none."""
        if attempts > self.times or (
            isinstance(error, EscaladeError) and not isinstance(error, ToolTimeout | ToolFailed)
        ):
            return None
        said = getattr(error, "retry_after", None)
        if isinstance(said, int | float) and said >= 0:
            pause = float(said)
        else:
            pause = min(_LONGEST, _FIRST * 2 ** (attempts - 1)) * self.chance.uniform(0.5, 1.0)
        return pause if pause < time_left else None
