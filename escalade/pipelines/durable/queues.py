"""Queues of runs: which pipelines are executed how many at once, and how often.

    queues={"nightly": RunQueue(concurrency=2, rate="20/min", pipelines=("report",))}

What no queue names is in the queue `default`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from escalade.errors import BadInput
from escalade.registry.elsewhere import elsewhere
from escalade.registry.limits import RateLimit, RateLimiter, parse_limits

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class RunQueue:
    """`concurrency`: runs that one process executes at once. `rate`: how often runs are begun, by all processes
    together, like `"5/s, 100/min"`. `pipelines`: names of those whose runs are in it.
    """

    concurrency: int = 8
    rate: str | None = None
    pipelines: tuple[str, ...] = ()
    limits: tuple[RateLimit, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if isinstance(self.concurrency, bool) or not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise BadInput(f"concurrency: expected runs at once, 1 or more, got {self.concurrency!r}")
        if isinstance(self.pipelines, str):
            raise BadInput(f"pipelines: expected a list of names, got {self.pipelines!r}")
        object.__setattr__(self, "pipelines", tuple(self.pipelines))
        object.__setattr__(self, "limits", parse_limits(self.rate))


def checked(queues: Mapping[str, RunQueue] | None, concurrency: int = 8) -> dict[str, RunQueue]:
    """The queues, with the default one. Raises BadInput."""
    found = {DEFAULT: RunQueue(concurrency), **(queues or {})}
    seen: dict[str, str] = {}
    for name, queue in found.items():
        if re.fullmatch(r"[A-Za-z][\w-]{0,60}", name) is None:
            raise BadInput(f"queue {name!r}: expected letters, digits, '-' and '_'")
        if not isinstance(queue, RunQueue):
            raise BadInput(f"queue {name!r}: expected a RunQueue(concurrency=...), got {queue!r}")
        for pipeline in queue.pipelines:
            if seen.setdefault(pipeline, name) != name:
                raise BadInput(f"pipeline {pipeline!r} is in two queues, {seen[pipeline]!r} and {name!r}")
    return found


def queue_of(queues: Mapping[str, RunQueue], pipeline: str) -> str:
    """The name of the queue of a pipeline."""
    return next((name for name, queue in queues.items() if pipeline in queue.pipelines), DEFAULT)


class Admission:
    """Has runs wait until their queue's rate lets them begin. DBOS has limits of its own: in SQLite they are a second
    coarse, and let twice as many begin.
    """

    def __init__(self, url: str, queues: Mapping[str, RunQueue]) -> None:
        self._queues = queues
        limited = any(queue.limits for queue in queues.values())
        self._limiter: RateLimiter | None = _limiter(url) if limited else None

    async def wait(self, queue: str) -> None:
        """Until a run of this queue may begin. Raises StoreUnavailable."""
        windows = tuple((f"runs of queue {queue}", limit) for limit in self._limits(queue))
        while windows and self._limiter is not None:
            taken: Any = await elsewhere(partial(self._limiter.take_all, windows))
            if not isinstance(taken, float):
                return
            await asyncio.sleep(taken)

    def _limits(self, queue: str) -> Iterable[RateLimit]:
        return self._queues[queue].limits if queue in self._queues else ()


def _limiter(url: str) -> RateLimiter:
    from escalade.registry.stores.opened import open_limiter

    return open_limiter(f"{url}.limits" if url.startswith("sqlite:") else url)
