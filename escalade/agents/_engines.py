"""The engine pair of a gateway: attempts along a route, each in its lane and through the guard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from escalade.agents._asking import (
    Asked,
    asked_of,
    booked,
    events_answered,
    events_in_time,
    finished,
    in_time,
    metered,
    terms,
    within,
)
from escalade.agents._gateways import find_gateway
from escalade.agents._kept import Noted, kept
from escalade.agents._places import aplaced, placed
from escalade.agents._route import Route
from escalade.agents.lanes.priority import Priority, checked
from escalade.registry.guard import aadmit, admit
from escalade.registry.wall import govern

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

    from escalade.agents.gateway import Gateway
    from escalade.agents.models import Model
    from escalade.scopes import Scope


class _Engine:
    """What both engines share: capability hints of the model's transport, identity, persistence."""

    def __init__(self, gateway: Gateway, model: str, priority: Priority | None = None) -> None:
        self._gateway, self._model, self._priority = gateway, model, priority
        transport = gateway.model(model).transport
        self.supports_function_calling: bool = transport.supports_function_calling
        self.supports_response_schema: bool = transport.supports_response_schema
        self.supports_reasoning: bool = transport.supports_reasoning
        self.supported_params: frozenset[str] = frozenset(transport.supported_params)

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __copy__(self) -> Any:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).load_state, (self.dump_state(),)

    def dump_state(self) -> dict[str, str]:
        state = {"gateway": self._gateway.name, "model": self._model}
        return state if self._priority is None else {**state, "priority": self._priority}

    @classmethod
    def load_state(cls, state: dict[str, str]) -> Any:
        priority = checked(state["priority"]) if "priority" in state else None
        return cls(find_gateway(state["gateway"]), state["model"], priority)

    def _asked(self, request: Request, model: Model, scope: Scope, route: Route) -> Asked:
        return asked_of(request, model, scope, route, self._gateway.regions, self._priority)


@govern
class Engine(_Engine):
    """The sync half of the pair."""

    def complete(self, request: Request) -> Response:
        """One answer, by as many attempts as it takes, none of which outlasts the scope's deadline. Raises lm15 errors,
        and refusals in DSPy's form.
        """
        known = kept(self._gateway, self._model, request)
        return self._complete(request) if known is None else known.complete(self._complete)

    def _complete(self, request: Request, noted: Noted | None = None) -> Response:
        route, scope = self._gateway.route(request)
        for model in route:
            try:
                asked = self._asked(request, model, scope, route)
                with (
                    placed(asked) as place,
                    admit(model.resource, **terms(asked, place)) as use,
                    booked(use, asked, place),
                ):
                    ask = partial(model.transport.complete, asked.sent)
                    answer = finished(asked, use, place, within(model, scope, ask))
                    if noted is not None:
                        noted(answer)
                    return answer
            except BaseException as error:  # noqa: BLE001 - `failed` raises what no other attempt can help
                wait = route.failed(error)
            _sleep(wait)
        raise AssertionError("a route ends by raising")

    def stream(self, request: Request) -> Iterator[Any]:
        """Events of one answer. Falls back only before anything was shown: that can't be taken back."""
        known = kept(self._gateway, self._model, request)
        yield from self._stream(request) if known is None else known.stream(self._stream)

    def _stream(self, request: Request) -> Iterator[Any]:
        route, scope = self._gateway.route(request)
        for model in route:
            begun = False
            try:
                asked = self._asked(request, model, scope, route)
                with (
                    placed(asked) as place,
                    admit(model.resource, **terms(asked, place)) as use,
                    metered(use, asked, place) as meter,
                ):
                    for event in events_answered(model, scope, asked.sent):
                        for shown in meter.saw(event):
                            begun = True
                            yield shown
                    return
            except BaseException as error:  # noqa: BLE001 - `_broke_off` raises what no other attempt can help
                wait = _broke_off(error, route, begun=begun)
            _sleep(wait)


@govern
class AsyncEngine(_Engine):
    """The async half of the pair."""

    async def complete(self, request: Request) -> Response:
        """As `Engine.complete`; also ends an attempt at the model's timeout."""
        known = kept(self._gateway, self._model, request)
        return await (self._complete(request) if known is None else known.acomplete(self._complete))

    async def _complete(self, request: Request, noted: Noted | None = None) -> Response:
        route, scope = self._gateway.route(request)
        for model in route:
            try:
                asked = self._asked(request, model, scope, route)
                with await aplaced(asked) as place:
                    async with await aadmit(model.resource, **terms(asked, place)) as use:
                        with booked(use, asked, place):
                            answer = finished(asked, use, place, await in_time(model, scope, asked.sent))
                            if noted is not None:
                                noted(answer)
                            return answer
            except BaseException as error:  # noqa: BLE001 - `failed` raises what no other attempt can help
                wait = route.failed(error)
            if wait > 0:
                await asyncio.sleep(wait)
        raise AssertionError("a route ends by raising")

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """As `Engine.stream`."""
        known = kept(self._gateway, self._model, request)
        stream = self._stream(request) if known is None else known.astream(self._stream)
        async with aclosing(cast("AsyncGenerator[Any, None]", stream)) as events:
            async for event in events:
                yield event

    async def _stream(self, request: Request) -> AsyncIterator[Any]:
        route, scope = self._gateway.route(request)
        for model in route:
            begun = False
            try:
                asked = self._asked(request, model, scope, route)
                with await aplaced(asked) as place:
                    async with await aadmit(model.resource, **terms(asked, place)) as use:
                        with metered(use, asked, place) as meter:
                            async for event in events_in_time(model, scope, asked.sent):
                                for shown in meter.saw(event):
                                    begun = True
                                    yield shown
                            return
            except BaseException as error:  # noqa: BLE001 - `_broke_off` raises what no other attempt can help
                wait = _broke_off(error, route, begun=begun)
            if wait > 0:
                await asyncio.sleep(wait)


def _broke_off(error: BaseException, route: Route, *, begun: bool) -> float:
    if begun or not isinstance(error, Exception):
        raise Route.crossing(error)
    return route.failed(error)


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)
