"""The gateway: the one way to a model, as an engine pair under `dspy.LM`.

    gateway = Gateway([
        Model("small", "openai/gpt-4o-mini", transport=LM15(), fallbacks="big"),
        Model("big", "openai/gpt-4o", transport=LM15()),
    ])
    dspy.configure(lm=gateway.lm("small"))

An engine is the only place that sees every physical attempt: sync, async, streams, n > 1, adapter fallbacks, ReAct,
optimisers. Cache hits never reach it, so that they cost nothing. Each attempt is one pass through the guard; retries,
fallbacks and breakers live here once (`_route.py` has the table), never also in DSPy or in the transport.

The pair survives deepcopy and pickle by the gateway's name, so that budgets and breakers are never split.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import fields
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from escalade.agents import _spans
from escalade.agents._allowed import Regions, check_allowed, regions_of
from escalade.agents._bounds import check_bounded
from escalade.agents._chains import crossing
from escalade.agents._route import Retry, Route, billed, blames, timed_out
from escalade.agents._tokens import Turn
from escalade.agents.models import TIERS, Model
from escalade.agents.transports import preload
from escalade.errors import BadInput, BudgetExceeded, NoScope, PermissionDenied, UnknownName
from escalade.registry.dspy_errors import for_dspy
from escalade.registry.guard import Admission, aadmit, admit
from escalade.registry.wall import govern
from escalade.scopes import Scope, current

if TYPE_CHECKING:
    import dspy
    from dspy.lm15 import Request, Response

    from escalade.agents.cache import ResponseCache

T = TypeVar("T")

PREFIX = "escalade/"
"""What the model string of a governed LM begins with."""

_gateways: dict[str, Gateway] = {}
_lock = threading.Lock()


class Gateway:
    """Models by alias, and the LMs that reach them. `name` finds it again after pickling; the newest of a name wins.

    `regions`: who may use models of certain regions only, such as {"tenant:acme": "eu"}; see `_allowed.py`. `cache`: of
    responses, see `cache/`; LMs use it unless they are made, or called, with `cache=False`. A library that takes
    seconds to import (litellm) is imported in a thread from now on, so that no event loop waits for it.
    """

    def __init__(
        self,
        models: Iterable[Model],
        *,
        name: str = "default",
        retry: Retry | None = None,
        regions: Mapping[str, str | Iterable[str]] | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        self.name, self.retry, self.cache = name, retry or Retry(), cache
        self.regions = regions_of(regions)
        self._models: dict[str, Model] = {}
        for model in models:
            if model.name in self._models:
                raise BadInput(f"model {model.name!r} is there twice; aliases are unique in a gateway")
            self._models[model.name] = model
        if not self._models:
            raise BadInput("a gateway needs at least one model")
        self._routes = {name: self._with_fallbacks(name) for name in self._models}
        for route in self._routes.values():
            if wrong := crossing(route):
                raise BadInput(f"model {route[0].name!r}: {wrong}")
        preload(model.transport for model in self._models.values())
        with _lock:
            _gateways[name] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> Gateway:
        return self

    def __copy__(self) -> Gateway:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return find_gateway, (self.name,)

    @property
    def models(self) -> tuple[str, ...]:
        """Aliases, in the order in which they were given."""
        return tuple(self._models)

    def model(self, name: str) -> Model:
        """The model of an alias. Raises UnknownName."""
        found = self._models.get(name.removeprefix(PREFIX))
        if found is None:
            raise UnknownName("model", name.removeprefix(PREFIX), list(self._models))
        return found

    def tier(self, tier: int) -> tuple[Model, ...]:
        """The models of a tier, 1 to 4, in the order in which they were given; may be none. Raises BadInput."""
        if tier not in TIERS:
            raise BadInput(f"expected a tier from 1 to 4, got {tier!r}")
        return tuple(model for model in self._models.values() if model.tier == tier)

    def allows(self, name: str, scope: Scope) -> bool:
        """May the model be used in this scope, by policy, roles and regions? Raises UnknownName."""
        model = self.model(name)
        try:
            check_allowed(model, scope, self.regions)
        except PermissionDenied:
            return False
        return scope.permits(model.resource.permission).allowed

    @classmethod
    def from_file(cls, *paths: str | PathLike[str], name: str = "default", **options: Any) -> Gateway:
        """The gateway that `models.yaml` describes; see `models_file.py`. Of several files, later ones override.

        `options`: `transport=` carries all models instead of what the files say; the others as for `Gateway`. Raises
        BadInput: `FILE:LINE: KEY: what is wrong`.
        """
        from escalade.agents.models_file import load_models

        models, settings = load_models(*paths, transport=options.pop("transport", None))
        return cls(models, name=name, **{**settings, **options})

    def lm(self, name: str, **options: Any) -> dspy.LM:
        """A `dspy.LM` on the model; `options` are its generation settings, like `temperature`. Raises UnknownName.

        Without a cache of the gateway, `cache=True` is DSPy's own, whose key knows no tenant; it is off by default.
        """
        from escalade.agents._lm import GatewayLM

        model = self.model(name)
        options.setdefault("cache", self.cache is not None)
        options.setdefault("max_tokens", model.max_output)
        pair = {"engine": Engine(self, name), "async_engine": AsyncEngine(self, name)}
        return GatewayLM(PREFIX + name, **pair, num_retries=0, **options)

    def route(self, request: Request) -> tuple[Route, Scope]:
        """The attempts for this request, and the scope that pays. Raises NoScope, UnknownName in DSPy's form."""
        scope = current()
        if scope is None:
            raise for_dspy(NoScope(f"calling model {request.model.removeprefix(PREFIX)!r}"))
        try:
            models = self._routes[self.model(request.model).name]
        except UnknownName as unknown:
            raise for_dspy(unknown) from None
        return Route(models, self.retry, scope), scope

    def check_affordable(self, name: str, size: int, n: int, max_tokens: int | None) -> None:
        """Raise BudgetExceeded for n > 1 candidates that don't fit together: the first would be paid and lost."""
        scope, model = current(), self.model(name)
        ceiling = model.ceiling(size, max_tokens)
        if scope is None or ceiling is None or n < 2:
            return
        try:
            scope.purse.reserve(n * ceiling, f"{n} candidates of {name}").release()
        except BudgetExceeded as refusal:
            raise for_dspy(refusal) from None

    def _with_fallbacks(self, name: str) -> tuple[Model, ...]:
        chain, todo = [], [name]
        while todo:
            model = self.model(todo.pop(0))
            if model not in chain:
                chain.append(model)
                todo.extend(model.fallbacks)
        return tuple(chain)


def find_gateway(name: str) -> Gateway:
    """The gateway of that name in this process. Raises UnknownName."""
    with _lock:
        if name not in _gateways:
            raise UnknownName("gateway", name, list(_gateways))
        return _gateways[name]


class _Engine:
    """What both engines share: capability hints of the model's transport, identity, persistence."""

    def __init__(self, gateway: Gateway, model: str) -> None:
        self._gateway, self._model = gateway, model
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
        return {"gateway": self._gateway.name, "model": self._model}

    @classmethod
    def load_state(cls, state: dict[str, str]) -> Any:
        return cls(find_gateway(state["gateway"]), state["model"])


@govern
class Engine(_Engine):
    """The sync half of the pair."""

    def complete(self, request: Request) -> Response:
        """One answer, by as many attempts as it takes. Raises lm15 errors, and refusals in DSPy's form."""
        route, scope = self._gateway.route(request)
        for model in route:
            try:
                asked = _asked(request, model, scope, self._gateway.regions)
                with asked.turn, admit(model.resource, **asked.terms) as use, _booked(use, asked, route):
                    return _finished(model, use, model.transport.complete(asked.sent), route, asked.turn)
            except BaseException as error:  # noqa: BLE001 - `failed` raises what no other attempt can help
                wait = route.failed(error)
            _sleep(wait)
        raise AssertionError("a route ends by raising")

    def stream(self, request: Request) -> Iterator[Any]:
        """Events of one answer. Falls back only before anything was shown: that can't be taken back."""
        route, scope = self._gateway.route(request)
        for model in route:
            begun = False
            try:
                asked = _asked(request, model, scope, self._gateway.regions)
                with (
                    asked.turn,
                    admit(model.resource, **asked.terms) as use,
                    _metered(use, model, asked, route) as meter,
                ):
                    for event in model.transport.stream(asked.sent):
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
        """As `Engine.complete`; also ends an attempt at the model's timeout and at the scope's deadline."""
        route, scope = self._gateway.route(request)
        for model in route:
            try:
                asked = _asked(request, model, scope, self._gateway.regions)
                with asked.turn:
                    async with await aadmit(model.resource, **asked.terms) as use:
                        with _booked(use, asked, route):
                            return _finished(model, use, await _in_time(model, scope, asked.sent), route, asked.turn)
            except BaseException as error:  # noqa: BLE001 - `failed` raises what no other attempt can help
                wait = route.failed(error)
            if wait > 0:
                await asyncio.sleep(wait)
        raise AssertionError("a route ends by raising")

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """As `Engine.stream`."""
        route, scope = self._gateway.route(request)
        for model in route:
            begun = False
            try:
                asked = _asked(request, model, scope, self._gateway.regions)
                with asked.turn:
                    async with await aadmit(model.resource, **asked.terms) as use:
                        with _metered(use, model, asked, route) as meter:
                            async for event in _events_in_time(model, scope, asked.sent):
                                for shown in meter.saw(event):
                                    begun = True
                                    yield shown
                            return
            except BaseException as error:  # noqa: BLE001 - `_broke_off` raises what no other attempt can help
                wait = _broke_off(error, route, begun=begun)
            if wait > 0:
                await asyncio.sleep(wait)


class _Asked(NamedTuple):
    """One attempt before it is made: the request as sent, its tokens per minute, what it asks of the guard."""

    sent: Request
    turn: Turn
    terms: dict[str, Any]


def _asked(request: Request, model: Model, scope: Scope, regions: Regions) -> _Asked:
    sent = _sent(request, model)
    turn, ceiling = model.turn(sent), model.most(sent)
    told = model.roles or regions or model.context or model.tpm or ceiling is None
    check = partial(_check, sent, model, scope, turn, regions) if told else None
    return _Asked(sent, turn, {"ceiling": ceiling, "scope": scope, "check": check})


def _check(sent: Request, model: Model, scope: Scope, turn: Turn, regions: Regions) -> None:
    """What is asked of a request beyond what the guard asks of every use."""
    check_allowed(model, scope, regions)
    check_bounded(sent, model, scope)
    model.check_fits(sent)
    turn.begin(f"model {model.name!r}")


@contextmanager
def _booked(use: Admission, asked: _Asked, route: Route, *, stream: bool = False) -> Iterator[None]:
    """Around one attempt, within its admission; books what a failure costs and whom it blames."""
    turn = asked.turn
    turn.sent()
    if use.span is not None:
        _spans.asked(use.span, asked.sent, route.attempts + 1, stream=stream)
    try:
        yield
    except BaseException as error:
        if use.cost is None:
            use.cost = billed(error, use.held)
        if not billed(error, 1):  # nor has the provider counted its tokens
            turn.used(0)
        use.blame = blames(error)
        raise


@contextmanager
def _metered(use: Admission, model: Model, asked: _Asked, route: Route) -> Iterator[_Meter]:
    """`_booked` for a stream: what was seen of it is what it costs, however it ends."""
    with _booked(use, asked, route, stream=True):
        meter = _Meter(model, use, asked.sent)
        yield meter
        meter.ended(asked.turn)


def _broke_off(error: BaseException, route: Route, *, begun: bool) -> float:
    if begun or not isinstance(error, Exception):
        raise Route.crossing(error)
    return route.failed(error)


def _sent(request: Request, model: Model) -> Request:
    """The request as this model gets it: its own name, and no more output than was reserved for."""
    config = request.config
    allowed = model.clamp(config.max_tokens)
    if config.max_tokens != allowed:
        config = _changed(config, max_tokens=allowed)
    return _changed(request, model=model.id, config=config)


async def _in_time(model: Model, scope: Scope, sent: Request) -> Response:
    try:
        async with asyncio.timeout(min(model.timeout, scope.time_left())) as limit:
            return await model.transport.acomplete(sent)
    except TimeoutError as error:
        if limit.expired():
            raise timed_out(scope, model, error) from error
        raise


async def _events_in_time(model: Model, scope: Scope, sent: Request) -> AsyncIterator[Any]:
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


def _finished(model: Model, use: Admission, answer: Response, route: Route, turn: Turn) -> Response:
    """Settle by the provider's count (the reservation where it gave none) and write the bill on the answer."""
    use.cost = _bill(model, use, answer)
    turn.counted(answer.usage)
    if use.span is not None:
        _spans.answered(use.span, answer)
    if answer.finish_reason == "length":
        use.scope.note_truncated()
    bill = {"model": model.name, "cost": use.cost, "attempts": route.attempts + 1}
    return _changed(answer, provider_data={**(answer.provider_data or {}), "escalade": bill})


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


class _Meter:
    """Keeps the cost of a stream up to date, so that one that is left or breaks off is settled at what was seen."""

    def __init__(self, model: Model, use: Admission, sent: Request) -> None:
        self._model, self._use = model, use
        self._given, self._seen = model.input_bound(sent), 0
        self._usage: Any = None
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
            self._usage = event.usage
        price = self._model.price
        if price is not None:
            self._use.cost = min(self._use.held, int(price.cost(self._given, self._seen)))
        shown, self._waiting = (*self._waiting, event), ()
        return shown

    def ended(self, turn: Turn) -> None:
        """The stream came to its end: the provider's count, where it gave one."""
        turn.counted(self._usage)
        bill = self._model.bill(self._usage)
        if bill is not None:
            self._use.cost = bill


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)
