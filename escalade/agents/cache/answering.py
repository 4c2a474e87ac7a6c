"""One call on its way through the cache: memory, store, an equal call that runs already, and only then the model.

    look -> (hit) guard -> answer
         -> (miss) wait for an equal call, here or in another process, and look again
         -> (nobody makes it) make it -> keep it -> hand it to those who wait

Sync and async callers share entries and calls. What the one who makes the call is refused for, or cancelled, is his own
affair: the next one makes it. A failure of the model is shared with those who waited for it, and with nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from escalade.agents import _spans
from escalade.agents.cache._variants import asimilar_to, similar_to
from escalade.agents.cache.response import Asked, Found, ResponseCache, check_use
from escalade.errors import EscaladeError
from escalade.registry.dspy_errors import for_dspy
from escalade.registry.elsewhere import elsewhere
from escalade.registry.guard import aadmit, admit
from escalade.registry.idempotency import Flight, InFlight, Lead
from escalade.registry.joining import alanded, landed

if TYPE_CHECKING:
    from dspy.clients.call_result import CallResult
    from dspy.clients.execution import PreparedCall

    from escalade.agents.gateway import Gateway
    from escalade.agents.models import Model

POLL = 0.05
"""Seconds between looks at a call that another process makes."""

SLACK = 5.0
"""Seconds that a claim is good for beyond the model's own timeout."""


def answered(
    cache: ResponseCache, gateway: Gateway, model: Model, call: PreparedCall, make: Callable[[PreparedCall], CallResult]
) -> CallResult:
    """The answer to a call. `make`: asks the model."""
    asked = cache.asked(gateway, model, call)
    if asked is None:
        return make(replace(call, cache=False))  # nor does DSPy's cache, which knows no tenant
    found = cache.near(asked) or cache.far(asked) or similar_to(cache, asked)
    lead: Lead | None = None
    if found is None and _may_join(asked):
        found, lead = _joined(cache, asked)
    if found is not None:
        return _given(cache, asked, found)
    with _leading(lead) as land:
        found, token = _claimed(cache, asked) if lead is not None and asked.kept else (None, "")
        if found is not None:
            land(found.record.dumped())
            return _given(cache, asked, found)
        try:
            return _kept(cache, asked, make(replace(call, cache=False)), land)
        finally:
            if token:
                cache.shelf.release(asked.key, token)


async def aanswered(
    cache: ResponseCache,
    gateway: Gateway,
    model: Model,
    call: PreparedCall,
    make: Callable[[PreparedCall], Awaitable[CallResult]],
) -> CallResult:
    """`answered`, without blocking the event loop."""
    asked = cache.asked(gateway, model, call)
    if asked is None:
        return await make(replace(call, cache=False))
    found = cache.near(asked) or await _afar(cache, asked) or await asimilar_to(cache, asked)
    lead: Lead | None = None
    if found is None and _may_join(asked):
        found, lead = await _ajoined(cache, asked)
    if found is not None:
        return await _agiven(cache, asked, found)
    with _leading(lead) as land:
        found, token = await _aclaimed(cache, asked) if lead is not None and asked.kept else (None, "")
        if found is not None:
            land(found.record.dumped())
            return await _agiven(cache, asked, found)
        try:
            return await _akept(cache, asked, await make(replace(call, cache=False)), land)
        finally:
            if token:
                await elsewhere(partial(cache.shelf.release, asked.key, token))


async def _afar(cache: ResponseCache, asked: Asked) -> Found | None:
    return None if cache.shelf.store is None else await elsewhere(partial(cache.far, asked))


# -- hits


def _given(cache: ResponseCache, asked: Asked, found: Found) -> CallResult:
    """Through the guard, which may refuse; then it is recorded as an answer that cost nothing."""
    try:
        with admit(asked.model.resource, **_terms(asked)) as use:
            _spans.hit(use, found.level)
    except EscaladeError as refusal:
        raise for_dspy(refusal) from None
    return cache.hit(asked, found)


async def _agiven(cache: ResponseCache, asked: Asked, found: Found) -> CallResult:
    if not hasattr(asked.scope.recorder, "aintent"):
        return _given(cache, asked, found)
    try:
        async with await aadmit(asked.model.resource, **_terms(asked)) as use:
            _spans.hit(use, found.level)
    except EscaladeError as refusal:
        raise for_dspy(refusal) from None
    return cache.hit(asked, found)


def _terms(asked: Asked) -> dict[str, Any]:
    return {"ceiling": 0, "scope": asked.scope, "check": partial(check_use, asked), "shortcut": lambda *_: "cache"}


# -- misses


def _kept(cache: ResponseCache, asked: Asked, result: CallResult, land: Land) -> CallResult:
    result, text, seconds = cache.made(asked, result)
    land(text)
    if seconds > 0 and text is not None:
        cache.shelf.keep(asked.key, text, seconds, asked.tag)
    return result


async def _akept(cache: ResponseCache, asked: Asked, result: CallResult, land: Land) -> CallResult:
    result, text, seconds = cache.made(asked, result)
    land(text)
    if seconds > 0 and text is not None and cache.shelf.store is not None:
        await elsewhere(partial(cache.shelf.keep, asked.key, text, seconds, asked.tag))
    return result


def _joined(cache: ResponseCache, asked: Asked) -> tuple[Found | None, Lead | None]:
    """The answer of an equal call, or the lead; neither where waiting for it would be waiting for oneself."""
    joined: Flight | None = None
    while True:
        try:
            cache.flights.board(asked.key)
        except InFlight as busy:
            if joined is not None and joined is busy.flight and not joined.landed.done():
                return None, None
            joined = busy.flight
        else:
            return _led(cache, asked)
        landed(joined, asked.scope.time_left(), asked.model.name)
        if (found := _of(cache, asked, joined)) is not None:
            return found, None


async def _ajoined(cache: ResponseCache, asked: Asked) -> tuple[Found | None, Lead | None]:
    joined: Flight | None = None
    while True:
        try:
            cache.flights.board(asked.key, asyncio.get_running_loop())
        except InFlight as busy:
            if joined is not None and joined is busy.flight and not joined.landed.done():
                return None, None
            joined = busy.flight
        else:
            return _led(cache, asked)
        await alanded(joined, asked.scope.time_left(), asked.model.name)
        if (found := _of(cache, asked, joined)) is not None:
            return found, None


def _of(cache: ResponseCache, asked: Asked, flight: Flight | None) -> Found | None:
    """What a call that was waited for brought, if it can be shared."""
    if flight is None or not flight.landed.done() or flight.landed.cancelled():
        return None
    return cache.read(asked, flight.landed.result(), "joined")


def _led(cache: ResponseCache, asked: Asked) -> tuple[Found | None, Lead | None]:
    """The lead, unless one that ended between the two looks has left an answer."""
    lead = Lead(cache.flights, asked.key)
    found = cache.near(asked)
    if found is not None:
        lead.ended(lambda key: lead.flights.crash(key, None))
        return found, None
    return None, lead


Land = Callable[[bytes | None], None]


@contextmanager
def _leading(lead: Lead | None) -> Iterator[Land]:
    """Around the call that others wait for. What is handed to `land` is theirs."""

    def land(text: bytes | None) -> None:
        if lead is not None:
            lead.ended(lambda key: lead.flights.deliver(key, text))

    try:
        yield land
    except BaseException as error:
        if lead is not None and not lead.over:
            mine = not isinstance(error, Exception) or isinstance(error, EscaladeError)
            lead.ended(partial(_crash, lead, None if mine else error))
        raise


def _crash(lead: Lead, error: BaseException | None, key: str) -> None:
    lead.flights.crash(key, error)


# -- other processes


def _claimed(cache: ResponseCache, asked: Asked) -> tuple[Found | None, str]:
    """The token of the claim to make this call, or the answer of the process that had it. Blocks."""
    for until in _patience(asked):
        token = cache.shelf.claim(asked.key, asked.model.timeout + SLACK)
        if token == "" or (token is None and time.monotonic() >= until):
            return None, ""
        if (found := cache.far(asked)) is not None:
            if token:
                cache.shelf.release(asked.key, token)
            return found, ""
        if token:
            return None, token
        time.sleep(POLL)
    raise AssertionError("patience has no end")


async def _aclaimed(cache: ResponseCache, asked: Asked) -> tuple[Found | None, str]:
    if cache.shelf.store is None:
        return None, ""
    for until in _patience(asked):
        took = partial(cache.shelf.claim, asked.key, asked.model.timeout + SLACK)
        token = await elsewhere(took, partial(_untake, cache, asked))
        if token == "" or (token is None and time.monotonic() >= until):
            return None, ""
        if (found := await _afar(cache, asked)) is not None:
            if token:
                await elsewhere(partial(cache.shelf.release, asked.key, token))
            return found, ""
        if token:
            return None, token
        await asyncio.sleep(POLL)
    raise AssertionError("patience has no end")


def _untake(cache: ResponseCache, asked: Asked, token: str | None) -> None:
    if token:
        cache.shelf.release(asked.key, token)


def _patience(asked: Asked) -> Iterator[float]:
    """When to give up waiting for another process, again and again; past the deadline the guard refuses."""
    until = time.monotonic() + min(asked.model.timeout + SLACK, asked.scope.time_left())
    while True:
        yield until


def _may_join(asked: Asked) -> bool:
    """Who may not use the model is refused by the guard at once, and hears nothing of equal calls."""
    return asked.joins and not _streams() and asked.gateway.allows(asked.model.name, asked.scope)


def _streams() -> bool:
    """Does somebody watch the answer come in? Then there is nothing to wait for together."""
    import dspy

    return dspy.settings.get("send_stream") is not None
