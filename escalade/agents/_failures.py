"""When no model answered: one error that says of each why, and when anything may work again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from escalade.errors import EscaladeError, Refused
from escalade.registry.breaker import Pass
from escalade.registry.privacy.outlets import safe_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from escalade.agents.models import Model


class Failure(NamedTuple):
    """How a model failed for good, and after how many attempts."""

    model: Model
    error: BaseException
    attempts: int


def in_one(failures: Sequence[Failure]) -> BaseException:
    """The error of the last one that was asked, else of the last; of several, with the reasons of all of them.

    It is of the class of that error. `retry_after`: seconds until the first of them may work again, None when nobody
    knows: its own Retry-After, what is left of the open circuit, of the pause of its lane. `__cause__` is the original.
    """
    asked = [failure.error for failure in failures if not isinstance(failure.error, Refused)]
    error = asked[-1] if asked else failures[-1].error
    if len(failures) == 1:
        return error
    waits = [wait for wait in map(_wait, failures) if wait is not None]
    wait = min(waits, default=None)
    again = "" if wait is None else f"; try again in {wait:.3g} s"
    text = f"none of {len(failures)} models answered: {'; '.join(map(_line, failures))}{again}"
    twin = type(error).__new__(type(error))
    Exception.__init__(twin, text)
    twin.__dict__.update({**error.__dict__, "retry_after": wait})
    if not isinstance(error, EscaladeError):  # it is a provider's: what is said now is of all of them
        twin.__dict__.update(message=text, provider=None, status=None, request_id=None)
    twin.__cause__ = error
    return twin


def _line(failure: Failure) -> str:
    times = f" ({failure.attempts} attempts)" if failure.attempts > 1 else ""
    told = safe_line(failure.error).partition(" To fix: ")[0].partition(" Retry advice: ")[0]  # advice of lm15's
    return f"{failure.model.name}: {type(failure.error).__name__}: {told.strip()}{times}"


def _wait(failure: Failure) -> float | None:
    """Seconds until this one may work again: all that stands in the way has to be over."""
    told = getattr(failure.error, "retry_after", None)
    waits = [float(told)] if isinstance(told, int | float) else []
    breaker = failure.model.breaker
    closed_for = breaker.allow()
    if isinstance(closed_for, Pass):
        breaker.forget(closed_for)
    else:
        waits.append(closed_for)
    if failure.model.lane is not None and (paused := failure.model.lane.paused) > 0:
        waits.append(paused)
    return max(waits, default=None)
