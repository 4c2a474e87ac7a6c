"""Joining a call that somebody else makes already: waiting for its end, in a thread or on an event loop.

A wait must not hold up what it waits for. A call that was awaited ends on its event loop; who blocks that loop, by
himself or by way of threads that it waits for, would wait for ever. So whoever waits asks the loop for a sign of life
now and then. Without one, he makes the call himself, if it may be made twice (`Flight.optional`).
A call that makes itself again, with the same arguments, would wait for itself: it is told apart by what is being made
around it (`making`), which reaches the threads of `dspy.Parallel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from functools import partial

from escalade.errors import BadInput, DeadlineExceeded
from escalade.registry.dspy_errors import for_model
from escalade.registry.idempotency import Flight, Flights, InFlight, Lead

MAKING = "escalade_making"
"""The key of `dspy.context` that carries the keys of the calls that are being made around here."""

_POLL = 0.05
"""Seconds between looks at a call that another process makes."""

_PULSE = 1.0
"""Seconds within which an event loop gives a sign of life."""


def landed(flight: Flight | None, limit: float, label: str) -> None:
    """Wait for the end of a call, `limit` seconds at most; None: of another process, which may not have come yet.

    Raises what the one who made it got, if he failed; DeadlineExceeded; BadInput where it can't be waited for.
    """
    if flight is None:
        time.sleep(max(0.0, min(_POLL, limit)))
        return
    if flight.loop is not None and flight.loop is _running():
        if flight.optional:
            return
        raise for_model(
            BadInput(f"{label} is being called by this very event loop, which a sync call would hold up: await it")
        )
    until = time.monotonic() + limit
    while True:
        pulse = _pulse(flight)
        done, _ = futures.wait([flight.landed], _slice(until))
        if _over(flight, bool(done), pulse, until, label):
            return


async def alanded(flight: Flight | None, limit: float, label: str) -> None:
    """`landed`, without blocking the event loop."""
    if flight is None:
        await asyncio.sleep(max(0.0, min(_POLL, limit)))
        return
    until, ended = time.monotonic() + limit, asyncio.Event()
    flight.landed.add_done_callback(partial(_wake, asyncio.get_running_loop(), ended))
    while True:
        pulse = _pulse(flight)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_slice(until)):
                await ended.wait()
        if _over(flight, ended.is_set(), pulse, until, label):
            return


def _wake(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, _: futures.Future[object]) -> None:
    with contextlib.suppress(RuntimeError):  # closed: nobody waits there any more
        loop.call_soon_threadsafe(ended.set)


@contextlib.contextmanager
def making(key: str) -> Iterator[None]:
    """Around the execution of a call that others may join."""
    import dspy

    with dspy.context(**{MAKING: (*_around(), key)}):
        yield


def boarded(flights: Flights, key: str, loop: asyncio.AbstractEventLoop | None, label: str) -> Flight | Lead | None:
    """The call to be made, by its lead, or one that was made; None for one within itself, which joins nobody.

    Raises InFlight, OutcomeUnknown; BadInput for one within itself that must not be made twice.
    """
    try:
        flight = flights.board(key, loop)
    except InFlight as busy:
        if key not in _around():
            raise
        if busy.flight is not None and busy.flight.optional:
            return None
    else:
        return Lead(flights, key) if flight is None else flight
    raise BadInput(f"{label} calls itself with the same arguments, and is used once; name the inner call by step(...)")


def _around() -> tuple[str, ...]:
    import dspy

    return tuple(dspy.settings.get(MAKING) or ())


def _over(flight: Flight, done: bool, pulse: threading.Event | None, until: float, label: str) -> bool:  # noqa: FBT001
    """Has the wait an end?"""
    if done:
        error = None if flight.landed.cancelled() else flight.landed.exception()
        if error is not None:
            raise error
        return True
    if time.monotonic() >= until:
        raise for_model(DeadlineExceeded(f"the deadline passed while the same call of {label} ran"))
    return flight.optional and flight.loop is not None and (pulse is None or not pulse.is_set())


def _pulse(flight: Flight) -> threading.Event | None:
    """Set as soon as the call's event loop turns; None for a loop that is closed."""
    turned = threading.Event()
    if flight.loop is not None:
        try:
            flight.loop.call_soon_threadsafe(turned.set)
        except RuntimeError:
            return None
    return turned


def _slice(until: float) -> float:
    return _PULSE if until == math.inf else max(0.0, min(_PULSE, until - time.monotonic()))


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
