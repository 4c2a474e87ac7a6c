"""DSPy's native route: lm15, which ships inside DSPy. Fewer providers than litellm, a tenth of its time per call.

Model strings are DSPy's, `provider/model` as for `dspy.LM`. What lm15 has no route for raises
`lm15.UnknownModelError` before anything is sent.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy import lm15
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine
from dspy.lm15 import RouterConfig, Timeouts

from escalade.agents.transports import CHAT_PARAMS, revealed_key
from escalade.agents.transports._loops import PerLoop
from escalade.registry.secrets import Secret

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

_TIMEOUTS = frozenset({"ReadTimeout", "ConnectTimeout", "WriteTimeout", "TimeoutError"})
"""lm15's network layer keeps its timeouts apart by class, and hides them under `TransportError` on the way up."""

_REASONING_APART = frozenset({"gemini", "vertex", "vertex-express", "xai"})
"""Providers whose output tokens don't include reasoning. The same list as in `dspy.clients.call_result.usage_dict`."""


class LM15:
    """One attempt per call through lm15.

    `api_key`: a `Secret`, a reference like `"env:NAME"`, or the key itself; None leaves it to lm15, which reads the
    provider's own variable. `api_base`: the URL of the API. `timeout`: seconds to wait for a
    connection, and for each next piece of the answer.

    Sync calls share one connection pool; each event loop has one of its own, which is closed with the loop.
    """

    name = "lm15"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = CHAT_PARAMS

    def __init__(self, api_key: Secret | str | None = None, api_base: str | None = None, timeout: float = 60.0) -> None:
        self._api_key = Secret.of(api_key) if api_key else None
        self._api_base, self._timeout = api_base, timeout
        self._lock = threading.Lock()
        self._sync: dict[str, Any] = {}
        self._async: PerLoop[dict[str, Any]] = PerLoop(dict, _closed)

    def __repr__(self) -> str:
        return f"LM15(api_base={self._api_base!r}, timeout={self._timeout:g})"

    def complete(self, request: Request) -> Response:
        """One answer."""
        engine, provider = self._engine(request.model)
        with _timeouts():
            return _normalised(engine.complete(request), provider)

    async def acomplete(self, request: Request) -> Response:
        """One answer."""
        engine, provider = await self._async_engine(request.model)
        with _timeouts():
            return _normalised(await engine.complete(request), provider)

    def stream(self, request: Request) -> Generator[Any, None, None]:
        """The events of one answer."""
        engine, provider = self._engine(request.model)
        with _timeouts(), closing(engine.stream(request)) as events:
            for event in events:
                yield _normalised_end(event, provider)

    async def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        """The events of one answer."""
        engine, provider = await self._async_engine(request.model)
        async with aclosing(engine.stream(request)) as events:
            with _timeouts():
                async for event in events:
                    yield _normalised_end(event, provider)

    def close(self) -> None:
        """Close the sync connections. Those of event loops close with their loop."""
        with self._lock:
            engines, self._sync = list(self._sync.values()), {}
        for engine in engines:
            engine.close()

    def _engine(self, model: str) -> tuple[Any, str]:
        with self._lock:
            return self._made(self._sync, LM15Engine, model)

    async def _async_engine(self, model: str) -> tuple[Any, str]:
        """lm15's async connections belong to the loop that opened them: an engine per loop."""
        engines = await self._async.get()
        with self._lock:
            return self._made(engines, AsyncLM15Engine, model)

    def _made(self, engines: dict[str, Any], kind: Any, model: str) -> tuple[Any, str]:
        """The engine for the model's provider: keys and URLs are settings of a provider in lm15."""
        head = model.split("/", 1)[0]
        if head not in engines:
            provider = _provider(model)
            key = revealed_key(self._api_key)
            config = RouterConfig(
                api_keys={provider: key} if key else None,
                base_urls={provider: self._api_base} if self._api_base else None,
                timeouts=Timeouts(connect=self._timeout, read=self._timeout, write=self._timeout, pool=self._timeout),
            )
            engines[head] = kind(config)
            engines[head].escalade_provider = provider
        return engines[head], engines[head].escalade_provider


async def _closed(engines: dict[str, Any]) -> None:
    for engine in engines.values():
        await engine.aclose()


def _provider(model: str) -> str:
    """lm15's name of the model's provider. Raises lm15.UnknownModelError."""
    provider: str = LM15Engine(RouterConfig(env={})).resolve(model).provider
    return provider


@contextmanager
def _timeouts() -> Iterator[None]:
    """A timeout of the client is a timeout, no broken connection. One while connecting sent nothing: it stays apart."""
    try:
        yield
    except lm15.TransportError as error:
        names = {type(e).__name__ for e in _causes(error)}
        if names & _TIMEOUTS and "ConnectTimeout" not in names:
            raise lm15.TimeoutError(str(error), provider=error.provider) from error
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _normalised(response: Response, provider: str) -> Response:
    return replace(response, usage=_usage(response.usage, provider))


def _normalised_end(event: Any, provider: str) -> Any:
    return replace(event, usage=_usage(event.usage, provider)) if event.type == "end" and event.usage else event


def _usage(usage: Any, provider: str) -> Any:
    """In OpenAI's convention: input includes cached tokens, output reasoning. DSPy does so for its own routes."""
    given, made = usage.input_tokens, usage.output_tokens
    if "anthropic" in provider and given is not None:
        given += (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    if provider in _REASONING_APART and made is not None:
        made += usage.reasoning_tokens or 0
    if (given, made) == (usage.input_tokens, usage.output_tokens):
        return usage
    total = given + made if given is not None and made is not None else usage.total_tokens
    return replace(usage, input_tokens=given, output_tokens=made, total_tokens=total)
