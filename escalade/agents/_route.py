"""What happens after an attempt failed: retry it, fall back to another model, or give up. And what the failure cost.

| failure (dspy.lm15)                        | then               | billed             | blames the route |
| ------------------------------------------ | ------------------ | ------------------ | ---------------- |
| RateLimitError                             | wait, fall back    | 0                  | says nothing     |
| ServerError (5xx)                          | retry, fall back   | 0                  | yes              |
| TransportError, nothing was sent           | retry, fall back   | 0                  | yes              |
| TransportError, connection lost on the way | retry, fall back   | the reservation    | yes              |
| TimeoutError                               | retry, fall back   | the reservation    | yes              |
| AuthError, BillingError, NotConfigured     | fall back          | 0                  | yes              |
| UnsupportedModelError, ContextLengthError  | fall back          | 0                  | no               |
| StreamAssemblyError, other ProviderError   | fall back          | the reservation    | yes              |
| InvalidRequestError, CapabilityError       | raise              | 0                  | no               |
| CircuitOpen, RateLimited, Overloaded (ours) | fall back         | nothing was held   |                  |
| PermissionDenied on a fallback             | skip it            | nothing was held   |                  |
| any other refusal                          | raise              | nothing was held   |                  |
| DeadlineExceeded, on the way               | raise              | the reservation    | says nothing     |

"The reservation" is the honest answer where nobody knows whether the provider has billed: money that may be gone is
not given back to a hard budget. Retries wait for Retry-After when the provider sent one, else exponentially; a wait
longer than `Retry.patience`, or than the time left, falls back at once. A model with a lane waits there: a 429 stops
the lane for everybody. When all have failed, one error says why for each of them; see `_failures.py`.

A 429 is no failure but a queue: the provider works, and says when. Where another model can answer it counts as a retry;
where none is left it is waited out, again and again, for a minute in all. Neither a 429 nor a caller's own deadline
speaks against the route: else a burst, or one tenant in a hurry, would shut it for everybody.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy import lm15

from escalade.agents._failures import Failure, in_one
from escalade.errors import (
    BadInput,
    CircuitOpen,
    DeadlineExceeded,
    EscaladeError,
    Overloaded,
    PermissionDenied,
    RateLimited,
)
from escalade.registry.dspy_errors import for_dspy

if TYPE_CHECKING:
    from escalade.agents.models import Model
    from escalade.scopes import Scope

RETRYABLE = (lm15.RateLimitError, lm15.ServerError, lm15.TimeoutError, lm15.TransportError)
OURS_TO_SKIP = (CircuitOpen, RateLimited, Overloaded)
CALLERS_FAULT = (lm15.InvalidRequestError, lm15.CapabilityError)
FREE = (
    lm15.RateLimitError,
    lm15.ServerError,
    lm15.AuthError,
    lm15.BillingError,
    lm15.ConfigurationError,
    lm15.InvalidRequestError,
    lm15.CapabilityError,
)
_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror", "ClientConnectorError"})


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently: `retries` more attempts per model, waits of `base * 2**i` seconds up to `cap`.

    `patience`: the longest wait that is worth it when there is somebody to fall back to.
    """

    retries: int = 2
    base: float = 0.5
    cap: float = 8.0
    patience: float = 20.0

    def __post_init__(self) -> None:
        numbers = self.retries, self.base, self.cap, self.patience
        if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            raise BadInput(f"retry: expected numbers of 0 or more, got {self}")

    def delay(self, attempt: int, error: BaseException) -> float:
        """Seconds to wait after attempt number `attempt` (from 0): Retry-After, else half to all of the exponential."""
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, int | float) and math.isfinite(asked) and asked >= 0:
            return float(asked)
        return float(min(self.cap, self.base * 2**attempt) * (0.5 + random.random() / 2))


def billed(error: BaseException, held: int) -> int:
    """What a failed attempt is settled at, nano-dollars."""
    if isinstance(error, FREE):
        return 0
    return 0 if isinstance(error, lm15.TransportError) and _not_sent(error) else held


def blames(error: BaseException) -> bool | None:
    """Does the failure speak against the route? None: it says nothing about it."""
    if isinstance(error, lm15.InvalidRequestError | lm15.CapabilityError):
        return False
    if isinstance(error, lm15.RateLimitError | EscaladeError) or not isinstance(error, Exception):
        return None
    return True


def _not_sent(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 10:
        if type(error).__name__ in _NOT_SENT:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


class Route:
    """The attempts for one request, in order: iterate it; after a failure call `failed` and sleep what it returns.

    for model in route: try ... except BaseException as e: wait = route.failed(e)
    """

    def __init__(self, models: tuple[Model, ...], retry: Retry, scope: Scope) -> None:
        self._models, self._retry, self._scope = models, retry, scope
        self._at, self._tries, self._waited = 0, 0, 0.0
        self._failures: list[Failure] = []
        self.attempts = 0

    @property
    def asked(self) -> str:
        """The model that the request is for."""
        return self._models[0].name

    def __iter__(self) -> Iterator[Model]:
        while self._at < len(self._models):
            yield self._models[self._at]
        raise self.crossing(in_one(self._failures))

    @property
    def again(self) -> bool:
        """Was this model tried for this request before?"""
        return self._tries > 0

    @property
    def patience(self) -> float:
        """Seconds that it is worth to wait for this model's lane."""
        return math.inf if self._last else self._retry.patience

    @property
    def longest(self) -> float:
        """Seconds that it is worth to wait before this model is asked again."""
        return max(self._retry.patience, 60.0) if self._last else self._retry.patience

    @property
    def _last(self) -> bool:
        """Is there nobody to fall back to?"""
        return self._at + 1 == len(self._models)

    def failed(self, error: BaseException) -> float:
        """Seconds to wait before the next attempt. Raises the error where no other attempt can help."""
        first = self._at == 0 and self._tries == 0
        if isinstance(error, PermissionDenied) and not first and self._tries == 0:
            self._next()
            return 0.0
        if isinstance(error, OURS_TO_SKIP):
            self._note(error)
            self._next()
            return 0.0
        if not isinstance(error, lm15.LM15Error) or not _may_fall_back(error):
            raise self.crossing(error)
        self._note(error)
        self.attempts += 1
        if isinstance(error, RETRYABLE):
            wait = self._retry.delay(self._tries, error)
            if wait < self._scope.time_left() and self._is_worth(wait, error):
                self._tries, self._waited = self._tries + 1, self._waited + wait
                return 0.0 if self._in_lane(error) else wait
        self._next()
        return 0.0

    def _is_worth(self, wait: float, error: BaseException) -> bool:
        """To wait so long before the next attempt? Failures are counted, a provider that is only busy is waited out."""
        if isinstance(error, lm15.RateLimitError) and self._last and self._retry.retries and wait > 0:
            return self._waited + wait <= self.longest
        return self._tries < self._retry.retries and wait <= self.longest

    def _in_lane(self, error: BaseException) -> bool:
        """Is the wait the lane's affair, which was stopped by this error for everybody?"""
        return self._models[self._at].lane is not None and isinstance(error, lm15.RateLimitError)

    def _note(self, error: BaseException) -> None:
        """The provider's word says more than ours that we leave it alone."""
        model = self._models[self._at]
        if self._failures and self._failures[-1].model is model:
            last = self._failures.pop()
            error = last.error if isinstance(error, OURS_TO_SKIP) else error
        self._failures.append(Failure(model, error, self._tries + 1))

    def _next(self) -> None:
        self._at, self._tries, self._waited = self._at + 1, 0, 0.0

    @staticmethod
    def crossing(error: BaseException) -> BaseException:
        """The error in a form that DSPy passes on."""
        return for_dspy(error) if isinstance(error, EscaladeError) else error


def _may_fall_back(error: lm15.LM15Error) -> bool:
    if isinstance(error, lm15.UnsupportedModelError | lm15.ContextLengthError | lm15.NotConfiguredError):
        return True
    return not isinstance(error, (*CALLERS_FAULT, lm15.ConfigurationError))


def timed_out(scope: Scope, model: Model, error: BaseException) -> Any:
    """A timeout of ours in the right form: DeadlineExceeded when the scope's time is up, else the provider's."""
    if scope.time_left() <= 0:
        return DeadlineExceeded(
            f"the deadline of scope {scope.shown_id} passed while model {model.name!r} was answering"
        )
    timeout = lm15.TimeoutError(f"model {model.name!r} did not answer within {model.timeout:g} s")
    timeout.__cause__ = error
    return timeout
