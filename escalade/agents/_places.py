"""An attempt's place in its model's lane: taken before the guard is passed, so that nobody holds money in line.

A refusal of the lane is handed on to the guard, which raises it once it is clear that the caller may use the model at
all: who may not, learns nothing of its limits, and all refusals are recorded in one place. Who would be refused by the
guard as things are (closed scope, policy, breaker, budget) doesn't stand in line for that.
"""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from dspy import lm15

from escalade import telemetry
from escalade.agents._bounds import thinking
from escalade.agents.lanes.priority import current_priority
from escalade.agents.models import prompt_size
from escalade.errors import EscaladeError, Overloaded, RateLimited
from escalade.registry.elsewhere import is_remote

if TYPE_CHECKING:
    from dspy.lm15 import Request, Usage

    from escalade.agents._asking import Asked
    from escalade.agents.lanes.lane import Lane, Place
    from escalade.agents.models import Model


class Standing(Protocol):
    """What an attempt tells its place; see `lanes.lane.Place`."""

    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def sent(self) -> None: ...
    def used(self, tokens: int) -> None: ...
    def answered(self) -> None: ...
    def refused(self, retry_after: float | None) -> None: ...


class Nowhere:
    """No place: the model has no lane, or the lane refused (`refusal`), or there was no use in waiting (`vain`)."""

    __slots__ = ("refusal", "vain")

    def __init__(self, refusal: EscaladeError | None = None, vain: EscaladeError | None = None) -> None:
        self.refusal, self.vain = refusal, vain

    def __enter__(self) -> Nowhere:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to leave."""

    def sent(self) -> None:
        """Raises RateLimited where the guard lets somebody through all the same who didn't stand in line."""
        if self.vain is not None:
            raise self.vain

    def used(self, tokens: int) -> None:
        """Nobody counts."""

    def answered(self) -> None:
        """Nobody counts."""

    def refused(self, retry_after: float | None) -> None:
        """Nobody counts."""


NOWHERE = Nowhere()


def placed(asked: Asked) -> Place | Nowhere:
    """A place in the lane, waited for in this thread."""
    lane = asked.model.lane
    if lane is None:
        return NOWHERE
    place, seconds = _joined(asked, lane)
    if isinstance(place, Nowhere) or place.state == "in":
        return place
    began = time.perf_counter()
    try:
        mine = place.wait(seconds)
    except BaseException:
        lane.leave(place)
        raise
    telemetry.waited("model", asked.model.name, began)
    return place if mine else _late(lane, place, seconds)


async def aplaced(asked: Asked) -> Place | Nowhere:
    """`placed`, without blocking the event loop."""
    lane = asked.model.lane
    if lane is None:
        return NOWHERE
    place, seconds = _joined(asked, lane)
    if isinstance(place, Nowhere) or place.state == "in":
        return place
    began = time.perf_counter()
    try:
        mine = await place.await_(seconds)
    except BaseException:
        lane.leave(place)
        raise
    telemetry.waited("model", asked.model.name, began)
    return place if mine else _late(lane, place, seconds)


def _joined(asked: Asked, lane: Lane) -> tuple[Place | Nowhere, float]:
    """A place, or one in line, and how many seconds it may wait there."""
    route, scope = asked.route, asked.scope
    seconds = min(lane.patience, scope.time_left(), route.patience)
    if lane.paused > route.longest:  # the provider wants to be left alone for longer than any retry would wait
        seconds = min(seconds, route.longest)
    try:
        place = lane.join(
            scope.principal.tenant,
            priority=asked.priority or current_priority(),
            tokens=0 if lane.tpm is None else tokens_of(asked.model, asked.sent),
            first=route.again,
            seconds=seconds,
        )
    except (RateLimited, Overloaded) as refusal:
        return Nowhere(refusal), seconds
    try:
        if place.state == "in" or not _in_vain(asked):
            return place, seconds
    except BaseException:
        lane.leave(place)
        raise
    lane.leave(place)
    return Nowhere(vain=RateLimited(f"lane {lane.name!r} is full", lane.paused or None)), seconds


def _in_vain(asked: Asked) -> bool:
    """Will the guard refuse it, as things are?"""
    model, scope = asked.model, asked.scope
    if scope.closed or scope.time_left() <= 0 or model.breaker.state == "open":
        return True
    if not scope.permits(model.resource.permission).allowed:
        return True
    left = None if asked.ceiling is None or is_remote(scope.purse) else scope.purse.left()
    return left is not None and asked.ceiling is not None and left < asked.ceiling


def _late(lane: Lane, place: Place, seconds: float) -> Nowhere:
    lane.leave(place)
    return Nowhere(RateLimited(f"lane {lane.name!r}: no turn came within {seconds:.3g} s", lane.paused or None))


def tokens_of(model: Model, sent: Request) -> int:
    """What a request as it is sent is expected to use at most: four bytes per token, all of `max_tokens`."""
    return -(-prompt_size(sent) // 4) + model.clamp(sent.config.max_tokens) + thinking(sent)


def count(place: Standing, usage: Usage | None) -> None:
    """What the provider counted, where it did."""
    if usage is not None and usage.input_tokens is not None and usage.output_tokens is not None:
        place.used(usage.input_tokens + usage.output_tokens)


def slows(error: BaseException) -> bool:
    """Does the provider ask for fewer requests?"""
    return isinstance(error, lm15.RateLimitError) or (isinstance(error, lm15.ServerError) and pause(error) is not None)


def pause(error: BaseException) -> float | None:
    """Its Retry-After, seconds."""
    asked = getattr(error, "retry_after", None)
    return float(asked) if isinstance(asked, int | float) and math.isfinite(asked) and asked >= 0 else None
