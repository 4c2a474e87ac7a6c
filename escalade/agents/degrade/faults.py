"""Which failures may be degraded.

| failure                                                            | kind     | degraded    |
| ------------------------------------------------------------------ | -------- | ----------- |
| a provider's: 5xx, connection, key, quota, unknown model, nonsense | provider | always      |
| CircuitOpen                                                        | circuit  | always      |
| timeouts of models, tools, nodes; DeadlineExceeded                 | timeout  | always      |
| RateLimited, Overloaded, a provider's 429                          | limit    | always      |
| BudgetExceeded                                                     | budget   | where asked |
| StoreUnavailable                                                   | store    | where asked |
| an answer that doesn't parse                                       | format   | where asked |
| PermissionDenied, approvals, closed scopes, the caller's mistakes, |          | never       |
| AuditUnavailable, errors of programs, and all others               |          |             |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from escalade.errors import (
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    EscaladeError,
    NodeError,
    NodeTimeout,
    Overloaded,
    RateLimited,
    StoreUnavailable,
    ToolTimeout,
)

Kind = Literal["provider", "circuit", "timeout", "limit", "budget", "store", "format"]

ALWAYS: frozenset[Kind] = frozenset({"provider", "circuit", "timeout", "limit"})
ASKED: frozenset[Kind] = frozenset({"budget", "store", "format"})

_OURS: tuple[tuple[type[EscaladeError] | tuple[type[EscaladeError], ...], Kind], ...] = (
    (CircuitOpen, "circuit"),
    ((RateLimited, Overloaded), "limit"),
    ((DeadlineExceeded, ToolTimeout, NodeTimeout), "timeout"),
    (BudgetExceeded, "budget"),
    (StoreUnavailable, "store"),
)

_DEEP = 10


def kind_of(error: BaseException) -> Kind | None:
    """The kind of a failure; None for one that must not be masked. Of a group, that of the first, if all have one."""
    if isinstance(error, BaseExceptionGroup):
        kinds = [kind_of(one) for one in error.exceptions]
        return None if None in kinds else kinds[0]
    ours = next((kind for classes, kind in _OURS if isinstance(error, classes)), None)
    if ours is not None:
        return ours
    if isinstance(error, NodeError):
        return None if error.__cause__ is None else kind_of(error.__cause__)
    return None if isinstance(error, EscaladeError) else _foreign(error)


def _foreign(error: BaseException) -> Kind | None:
    from dspy import lm15
    from dspy.utils.exceptions import AdapterParseError, LMError

    if isinstance(error, LMError):
        return None if error.__cause__ is None else kind_of(error.__cause__)
    callers = (lm15.InvalidRequestError, lm15.CapabilityError, lm15.ContextLengthError, lm15.ConfigurationError)
    kinds: tuple[tuple[tuple[type[BaseException], ...], Kind | None], ...] = (
        ((AdapterParseError,), "format"),
        ((lm15.TimeoutError, TimeoutError), "timeout"),
        ((lm15.RateLimitError,), "limit"),
        ((lm15.UnsupportedModelError, lm15.NotConfiguredError), "provider"),
        (callers, None),
        ((lm15.LM15Error,), "provider"),
    )
    return next((kind for classes, kind in kinds if isinstance(error, classes)), None)


def retry_after(error: BaseException) -> float | None:
    """Seconds until another try may be worth it, as far as the error or one of its causes says so."""
    for one in _causes(error):
        told = getattr(one, "retry_after", None)
        if isinstance(told, int | float) and math.isfinite(told) and told >= 0:
            return float(told)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_DEEP):
        if error is None:
            return
        yield error
        error = error.__cause__
