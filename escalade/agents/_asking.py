"""One attempt: the request as its model gets it, what it asks of the guard, and what it cost, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from contextvars import copy_context
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from escalade import events
from escalade.agents import _spans
from escalade.agents._allowed import Regions, check_allowed
from escalade.agents._bounds import check_bounded
from escalade.agents._places import Nowhere, Standing, count, pause, slows
from escalade.agents._route import Route, billed, blames, timed_out
from escalade.registry.guard import Admission
from escalade.registry.workers import Workers

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

    from escalade.agents.lanes.priority import Priority
    from escalade.agents.models import Model
    from escalade.scopes import Scope

T = TypeVar("T")

_askers = Workers(limit=100_000)  # whoever asks waits in a thread of his own: those are what is limited


class Asked(NamedTuple):
    """One attempt before it is made. `sent`: the request as it is sent; `ceiling`: nano-dollars, see `Model.most`."""

    model: Model
    sent: Request
    scope: Scope
    route: Route
    regions: Regions
    ceiling: int | None
    priority: Priority | None


def asked_of(
    request: Request, model: Model, scope: Scope, route: Route, regions: Regions, priority: Priority | None
) -> Asked:
    """The attempt on this model of the route."""
    sent = _sent(request, model)
    return Asked(model, sent, scope, route, regions, model.most(sent), priority)


def terms(asked: Asked, place: Standing) -> dict[str, Any]:
    """What is asked of the guard."""
    model, ceiling = asked.model, asked.ceiling
    refusal = place.refusal if isinstance(place, Nowhere) else None
    told = model.roles or asked.regions or model.context or refusal or ceiling is None
    check = partial(_check, asked, refusal) if told else None
    return {"ceiling": ceiling, "scope": asked.scope, "check": check}


def _check(asked: Asked, refusal: Exception | None) -> None:
    """What is asked of a request beyond what the guard asks of every use."""
    check_allowed(asked.model, asked.scope, asked.regions)
    check_bounded(asked.sent, asked.model, asked.scope)
    asked.model.check_fits(asked.sent)
    if refusal is not None:
        raise refusal


@contextmanager
def booked(use: Admission, asked: Asked, place: Standing, *, stream: bool = False) -> Iterator[None]:
    """Around one attempt, within its admission; books what a failure costs and whom it blames."""
    use.cost = 0
    place.sent()
    use.cost = None
    if use.span is not None:
        _spans.asked(use.span, asked.sent, asked.route.attempts + 1, stream=stream)
    try:
        yield
    except BaseException as error:
        if use.cost is None:
            use.cost = billed(error, use.held)
        if not billed(error, 1):  # nor has the provider counted its tokens
            place.used(0)
        if slows(error):
            place.refused(pause(error))
        use.blame = blames(error)
        if use.blame is None:
            use.say_nothing()
        raise


@contextmanager
def metered(use: Admission, asked: Asked, place: Standing) -> Iterator[Meter]:
    """`booked` for a stream: what was seen of it is what it costs, however it ends."""
    with booked(use, asked, place, stream=True):
        meter = Meter(asked.model, use, asked.sent)
        yield meter
        meter.ended(place)
        _announce(asked)


def _sent(request: Request, model: Model) -> Request:
    """The request as this model gets it: its own name, and no more output than was reserved for."""
    config = request.config
    allowed = model.clamp(config.max_tokens)
    if config.max_tokens != allowed:
        config = _changed(config, max_tokens=allowed)
    return _changed(request, model=model.id, config=config)


def within(model: Model, scope: Scope, ask: Callable[[], T]) -> T:
    """`in_time` for a thread: another thread asks (60 us) and is left when time is up. Its connection ends with the
    transport's own timeout, which is for each read of an answer, and so no bound; the use is settled now.
    """
    job = _askers.submit(ask)
    try:
        return cast("T", job.result(max(0.0, min(model.timeout, scope.time_left()))))
    except TimeoutError as error:
        if job.done():  # with an error of the transport's, or just now
            return cast("T", job.result())
        raise timed_out(scope, model, error) from error
    finally:
        if not job.done():
            _askers.leave(job)


def events_answered(model: Model, scope: Scope, sent: Request) -> Iterator[Any]:
    """The stream's events for a thread, each within the model's timeout and all before the deadline."""
    stream, context = model.transport.stream(sent), copy_context()  # one for all: what it sets it also takes back
    try:
        while (event := within(model, scope, partial(context.run, next, stream, None))) is not None:
            yield event
    finally:
        with suppress(ValueError, RuntimeError):  # left behind: it closes when its thread is through with it
            context.run(stream.close)


async def in_time(model: Model, scope: Scope, sent: Request) -> Response:
    """The transport's answer, within the model's timeout and before the deadline. Raises `lm15.TimeoutError`."""
    try:
        async with asyncio.timeout(min(model.timeout, scope.time_left())) as limit:
            return await model.transport.acomplete(sent)
    except TimeoutError as error:
        if limit.expired():
            raise timed_out(scope, model, error) from error
        raise


async def events_in_time(model: Model, scope: Scope, sent: Request) -> AsyncIterator[Any]:
    """The stream's events, each within the model's timeout and all before the deadline.

    The timeout is around each wait, not around the whole: one that spans a `yield` would cancel the consumer.
    """
    async with aclosing(model.transport.astream(sent)) as events:
        while True:
            try:
                async with asyncio.timeout(min(model.timeout, scope.time_left())) as limit:
                    event = await anext(events, None)
            except TimeoutError as error:
                if limit.expired():
                    raise timed_out(scope, model, error) from error
                raise
            if event is None:
                return
            yield event


def finished(asked: Asked, use: Admission, place: Standing, answer: Response) -> Response:
    """Settle by the provider's count (the reservation where it gave none) and write the bill on the answer."""
    use.cost = _bill(asked.model, use, answer)
    place.answered()
    count(place, answer.usage)
    asked.model.counted(answer.usage)
    if use.span is not None:
        _spans.answered(use.span, answer)
    if answer.finish_reason == "length":
        use.scope.note_truncated()
    _announce(asked)
    bill = {"model": asked.model.name, "cost": use.cost, "attempts": asked.route.attempts + 1}
    return _changed(answer, provider_data={**(answer.provider_data or {}), "escalade": bill})


def _announce(asked: Asked) -> None:
    """It answered; in place of another one?"""
    if asked.scope.listeners and asked.model.name != asked.route.asked:
        events.emit(asked.scope, events.FellBack, model=asked.model.name, asked=asked.route.asked)


def _changed(value: T, **changes: Any) -> T:
    """`dataclasses.replace` without validating again what is valid: 2 us instead of 25 for a Request or a Response."""
    cls = type(value)
    names = _fields.get(cls)
    if names is None:
        names = _fields[cls] = tuple(field.name for field in fields(cls))  # type: ignore[arg-type]  # they are dataclasses
    twin = object.__new__(cls)
    for name in names:
        object.__setattr__(twin, name, changes[name] if name in changes else getattr(value, name))
    return twin


_fields: dict[type, tuple[str, ...]] = {}


def _bill(model: Model, use: Admission, answer: Response) -> int:
    bill = model.bill(answer.usage)
    return use.held if bill is None else bill


class Meter:
    """Keeps the cost of a stream up to date, so that one that is left or breaks off is settled at what was seen."""

    def __init__(self, model: Model, use: Admission, sent: Request) -> None:
        self._model, self._use = model, use
        self._given, self._seen = model.input_bound(sent), 0
        self._usage: Any = None
        self._cut = False
        self._waiting: tuple[Any, ...] = ()

    def saw(self, event: Any) -> tuple[Any, ...]:
        """Count it. Returns what to show now: the start waits for content, so that until then one may fall back."""
        if self._use.span is not None:
            _spans.saw(self._use.span, event)
        if event.type == "start":
            self._waiting = (event,)
            return ()
        if event.type == "delta":
            delta = event.delta
            self._seen += len((getattr(delta, "text", None) or getattr(delta, "input", None) or "").encode())
        elif event.type == "end":
            self._usage, self._cut = event.usage, event.finish_reason == "length"
        price = self._model.price
        if price is not None:
            self._use.cost = min(self._use.held, int(price.most(self._given, self._seen)))
        shown, self._waiting = (*self._waiting, event), ()
        return shown

    def ended(self, place: Standing) -> None:
        """The stream came to its end: the provider's count, where it gave one."""
        place.answered()
        count(place, self._usage)
        self._model.counted(self._usage)
        if self._cut:
            self._use.scope.note_truncated()
        bill = self._model.bill(self._usage)
        if bill is not None:
            self._use.cost = bill
