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
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from escalade.agents._route import Retry, Route, billed, blames, timed_out
from escalade.agents.models import Model, prompt_size
from escalade.errors import BadInput, BudgetExceeded, NoScope, UnknownName
from escalade.registry.dspy_errors import for_dspy
from escalade.registry.guard import Admission, admit
from escalade.registry.wall import govern
from escalade.scopes import Scope, current

if TYPE_CHECKING:
    import dspy
    from dspy.lm15 import Request, Response

PREFIX = "escalade/"
"""What the model string of a governed LM begins with."""

_gateways: dict[str, Gateway] = {}
_lock = threading.Lock()


class Gateway:
    """Models by alias, and the LMs that reach them. `name` finds it again after pickling; the newest of a name wins."""

    def __init__(self, models: Iterable[Model], *, name: str = "default", retry: Retry | None = None) -> None:
        self.name, self.retry = name, retry or Retry()
        self._models: dict[str, Model] = {}
        for model in models:
            if model.name in self._models:
                raise BadInput(f"model {model.name!r} is there twice; aliases are unique in a gateway")
            self._models[model.name] = model
        if not self._models:
            raise BadInput("a gateway needs at least one model")
        self._routes = {name: self._with_fallbacks(name) for name in self._models}
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

    def lm(self, name: str, **options: Any) -> dspy.LM:
        """A `dspy.LM` on the model; `options` are its generation settings, like `temperature`. Raises UnknownName.

        DSPy's own cache is off unless you ask for it: its key knows no tenant.
        """
        from escalade.agents._lm import GatewayLM

        model = self.model(name)
        options.setdefault("cache", False)
        options.setdefault("max_tokens", model.max_output)
        pair = {"engine": Engine(self, name), "async_engine": AsyncEngine(self, name)}
        return GatewayLM(PREFIX + name, **pair, num_retries=0, **options)

    def route(self, request: Request) -> tuple[Route, Scope]:
        """The attempts for this request, and the scope that pays for them. Raises NoScope, UnknownName in DSPy's form."""
        scope = current()
        if scope is None:
            raise for_dspy(NoScope(f"calling model {request.model.removeprefix(PREFIX)!r}"))
        try:
            models = self._routes[self.model(request.model).name]
        except UnknownName as unknown:
            raise for_dspy(unknown) from None
        return Route(models, self.retry, scope), scope

    def check_affordable(self, name: str, size: int, n: int, max_tokens: int | None) -> None:
        """Refuse n > 1 candidates that don't fit together: the first ones would be paid and lost. Raises BudgetExceeded."""
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
                sent = _sent(request, model)
                with admit(model.resource, ceiling=_ceiling(model, sent), scope=scope) as use:
                    try:
                        return _finished(model, use, model.transport.complete(sent), route)
                    except BaseException as error:
                        _book(use, error)
                        raise
            except BaseException as error:  # noqa: BLE001 - route.failed raises what isn't handled here
                wait = route.failed(error)
            _sleep(wait)
        raise AssertionError("a route ends by raising")

    def stream(self, request: Request) -> Iterator[Any]:
        """Events of one answer. Falls back only before the first event: what was shown can't be taken back."""
        route, scope = self._gateway.route(request)
        for model in route:
            begun = False
            try:
                sent = _sent(request, model)
                with admit(model.resource, ceiling=_ceiling(model, sent), scope=scope) as use:
                    meter = _Meter(model, use, sent)
                    try:
                        for event in model.transport.stream(sent):
                            meter.saw(event)
                            begun = True
                            yield event
                        meter.ended()
                        return
                    except BaseException as error:
                        meter.broke(error)
                        raise
            except BaseException as error:
                if begun or not isinstance(error, Exception):
                    raise Route.crossing(error)  # noqa: B904 - the error itself, at most in DSPy's form
                wait = route.failed(error)
            _sleep(wait)


@govern
class AsyncEngine(_Engine):
    """The async half of the pair."""

    async def complete(self, request: Request) -> Response:
        """As `Engine.complete`; also ends an attempt at the model's timeout and at the scope's deadline."""
        route, scope = self._gateway.route(request)
        for model in route:
            try:
                sent = _sent(request, model)
                with admit(model.resource, ceiling=_ceiling(model, sent), scope=scope) as use:
                    try:
                        answer = await _in_time(model, scope, sent)
                        return _finished(model, use, answer, route)
                    except BaseException as error:
                        _book(use, error)
                        raise
            except BaseException as error:  # noqa: BLE001 - route.failed raises what isn't handled here
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
                sent = _sent(request, model)
                with admit(model.resource, ceiling=_ceiling(model, sent), scope=scope) as use:
                    meter = _Meter(model, use, sent)
                    try:
                        async for event in model.transport.astream(sent):
                            meter.saw(event)
                            begun = True
                            yield event
                        meter.ended()
                        return
                    except BaseException as error:
                        meter.broke(error)
                        raise
            except BaseException as error:
                if begun or not isinstance(error, Exception):
                    raise Route.crossing(error)  # noqa: B904 - the error itself, at most in DSPy's form
                wait = route.failed(error)
            if wait > 0:
                await asyncio.sleep(wait)


def _sent(request: Request, model: Model) -> Request:
    """The request as this model gets it: its own name, and no more output than was reserved for."""
    config = request.config
    allowed = model.clamp(config.max_tokens)
    if config.max_tokens != allowed:
        config = replace(config, max_tokens=allowed)
    return replace(request, model=model.id, config=config)


def _ceiling(model: Model, sent: Request) -> int | None:
    return None if model.price is None else model.ceiling(prompt_size(sent), sent.config.max_tokens)


async def _in_time(model: Model, scope: Scope, sent: Request) -> Response:
    try:
        async with asyncio.timeout(min(model.timeout, scope.time_left())) as limit:
            return await model.transport.acomplete(sent)
    except TimeoutError as error:
        if limit.expired():
            raise timed_out(scope, model, error) from error
        raise


def _finished(model: Model, use: Admission, answer: Response, route: Route) -> Response:
    """Settle by the provider's count (the reservation where it gave none) and write the bill on the answer."""
    use.cost = _bill(model, use, answer)
    if answer.finish_reason == "length":
        use.scope.note_truncated()
    bill = {"model": model.name, "cost": use.cost, "attempts": route.attempts + 1}
    return replace(answer, provider_data={**(answer.provider_data or {}), "escalade": bill})


def _bill(model: Model, use: Admission, answer: Response) -> int:
    bill = model.bill(answer)
    return use.held if bill is None else bill


def _book(use: Admission, error: BaseException) -> None:
    if use.cost is None:
        use.cost = billed(error, use.held)
    use.blame = blames(error)


class _Meter:
    """Keeps the cost of a stream up to date, so that leaving it early settles what was really seen."""

    def __init__(self, model: Model, use: Admission, sent: Request) -> None:
        self._model, self._use = model, use
        self._size, self._seen, self._usage = prompt_size(sent), 0, None

    def saw(self, event: Any) -> None:
        if event.type == "delta":
            delta = event.delta
            self._seen += len((getattr(delta, "text", None) or getattr(delta, "input", None) or "").encode())
        elif event.type == "end":
            self._usage = event.usage

    def ended(self) -> None:
        """The stream came to its end: the provider's count, else the upper bound of what was seen."""
        usage, price = self._usage, self._model.price
        if price is not None and usage is not None and usage.input_tokens is not None:
            cached = min(usage.cache_read_tokens or 0, usage.input_tokens)
            self._use.cost = int(price.cost(usage.input_tokens, usage.output_tokens or 0, cached))
        else:
            self._use.cost = self._bound()

    def broke(self, error: BaseException) -> None:
        """It ended early: what was seen is billed; a failure before the first event is billed by its kind."""
        self._use.cost = self._bound() if self._seen or not isinstance(error, Exception) else billed(error, self._use.held)
        self._use.blame = blames(error)

    def _bound(self) -> int:
        if self._model.price is None:
            return 0
        return min(self._use.held, int(self._model.price.cost(self._model.bound(self._size), self._seen)))


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)
