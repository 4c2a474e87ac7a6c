"""Retries of a node: which failures may pass, and how long to wait before another attempt.

| failure                                                              | another attempt          |
| -------------------------------------------------------------------- | ------------------------ |
| a timeout: of the node, of one inside, of a tool, `TimeoutError`     | yes                      |
| a rate limit, an open breaker, an overload, a store that is down     | yes, after `retry_after` |
| a lost connection; a status of 408, 425, 429 or 5xx                  | yes                      |
| BadInput, wrong arguments, an unknown outcome, any other refusal     | no                       |
| a quota that is used up                                              | no                       |
| the scope's deadline or budget, a closed scope, cancellation         | never, whatever `on` says |
| anything else                                                        | no                       |

An error out of a pipeline or a tool is judged by what it was before. Models and tools have retries of their own, which
are cheaper: they repeat one call and not the whole node. Each attempt is in the same step, so what is used `once` is
not used a second time by another attempt.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from escalade.agents._route import Retry
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    EscaladeError,
    NodeError,
    NodeTimeout,
    Overloaded,
    RateLimited,
    Refused,
    ScopeError,
    ToolFailed,
    ToolTimeout,
)

_NEVER = (BudgetExceeded, DeadlineExceeded, ScopeError)
_PASSING = (RateLimited, CircuitOpen, Overloaded, NodeTimeout, ToolTimeout)
_STATUSES = frozenset({408, 425, 429})
_NAMES = frozenset(
    {
        "TransportError",  # httpx, and lm15's own
        "RateLimitError",
        "ServerError",
        "LMTransportError",
        "LMRateLimitError",
        "LMServerError",
        "LMTimeoutError",
        "APIConnectionError",
        "ClientConnectionError",
        "Timeout",
    }
)
"""Classes of clients that are not imported for it. A class with one of these among its bases counts, too."""

_LASTING = frozenset({"LMBillingError", "BillingError"})
"""A quota that is used up, which providers tell by 429, too."""


@dataclass(frozen=True, slots=True)
class NodeRetry(Retry):
    """How often and how patiently a node is tried again: `retries` more attempts, waits of `base * 2**i` seconds up to
    `cap`, half of it by chance; a `retry_after` of the failure is believed instead, up to `patience`.

    `on`: classes of errors, or a function that says whether this one may pass; by default see `may_pass`. `within`:
    seconds from the first attempt's start, after which none begins. The scope's deadline holds besides. Raises
    BadInput.

    >>> NodeRetry(3, base=0.1, on=ValueError, within=20.0).retries
    3
    """

    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] | None = None
    within: float = math.inf

    def __post_init__(self) -> None:
        Retry.__post_init__(self)  # no super(): a dataclass with slots is another class than the one written here
        if not self.within > 0:
            raise BadInput(f"retry: expected within= more than 0 seconds, got {self.within!r}")
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        classes = all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds)
        if not (self.on is None or classes or (callable(self.on) and not isinstance(self.on, type))):
            raise BadInput(f"retry: expected on= classes of exceptions or a function, got {self.on!r}")

    def pause(self, error: Exception, tries: int, time_left: float) -> float | None:
        """Seconds to wait before another attempt, after `tries` attempts; None when there shall be none. `time_left`:
        seconds in which one could still begin and end.
        """
        if tries > self.retries or isinstance(error, _NEVER) or not self._worth(error):
            return None
        pause = self.delay(tries - 1, error)
        return pause if pause < time_left and pause <= self.patience else None

    def _worth(self, error: Exception) -> bool:
        on: Any = self.on
        if on is None:
            return may_pass(error)
        return isinstance(error, on) if isinstance(on, type | tuple) else bool(on(error))


def may_pass(error: BaseException) -> bool:
    """May the same call work a little later? See the table above.

    >>> may_pass(ConnectionResetError()), may_pass(ValueError())
    (True, False)
    """
    if isinstance(error, EscaladeError):
        return _ours_may_pass(error)
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    names, status = {kind.__name__ for kind in type(error).__mro__}, _status(error)
    if names & _LASTING:
        return False
    if status is not None:
        return status in _STATUSES or 500 <= status < 600
    return bool(names & _NAMES)


def _ours_may_pass(error: EscaladeError) -> bool:
    if isinstance(error, _PASSING):
        return True
    before = error.original if isinstance(error, ToolFailed) else error.__cause__
    if isinstance(error, ToolFailed | NodeError) and before is not None and may_pass(before):
        return True
    said = isinstance(error, ToolFailed | Refused) and error.retry_after is not None
    return said and not isinstance(error, _NEVER)


def _status(error: BaseException) -> int | None:
    """The status of HTTP that an error carries, by the names that clients give it."""
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status", "status_code"):
            found = getattr(holder, name, None)
            if isinstance(found, int) and not isinstance(found, bool):
                return found
    return None


async def retried(
    attempt: Callable[[], Awaitable[Any]],
    pause: Callable[[Exception, int], float | None],
    tell: Callable[[int, Exception, float], None],
    sleep: Callable[[float], Awaitable[None]],
) -> Any:
    """The result of the first attempt that works. `pause(error, tries)`: seconds, None to give up. Raises the last
    attempt's error.
    """
    tries = 1
    while True:
        try:
            return await attempt()
        except Exception as error:
            seconds = pause(error, tries)
            if seconds is None:
                raise
            tell(tries + 1, error, seconds)
        await sleep(seconds)
        tries += 1
