"""What a metric says of an answer, as a number; a slow metric holds nobody up."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from typing import Any

from escalade.agents._threads import in_thread
from escalade.errors import DataError
from escalade.evals.studies.identity import metric_name

__all__ = ["Grader", "Metric"]

SLOW = 0.001
"""Seconds: a metric that takes longer is called in threads, so that the other questions go on."""

_IN_A_ROW = 2
"""Once may be a collection, or a busy machine."""

Metric = Callable[[Any, Any], Any]
"""(example, prediction) -> 0..1, as DSPy's metrics; may be async."""


class Grader:
    """One metric, asked for many answers. A metric that is no coroutine function and twice in a row took longer than
    `SLOW` runs in threads from then on.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric, self._slow = metric, 0

    async def grade(self, example: Any, answer: Any) -> float:
        """From 0 to 1. Raises what the metric raises, and DataError for what isn't a number from 0 to 1."""
        if self._slow >= _IN_A_ROW:
            said = await in_thread(self._metric, (example, answer), {})
        else:
            began = time.perf_counter()
            said = self._metric(example, answer)
            late = time.perf_counter() - began > SLOW and not inspect.isawaitable(said)
            self._slow = self._slow + 1 if late else 0
        return self._checked(await said if inspect.isawaitable(said) else said)

    def _checked(self, said: Any) -> float:
        try:
            quality = float(said)
        except (TypeError, ValueError):
            quality = math.nan
        if not 0 <= quality <= 1:
            raise DataError(f"metric {metric_name(self._metric)!r} gave {said!r}; expected a number from 0 to 1")
        return quality
