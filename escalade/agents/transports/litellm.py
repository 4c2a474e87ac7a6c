"""Every provider, through litellm: one attempt, no retry, no cache, and errors that say what really happened.

What litellm makes of failures is put right here (observed with 1.106): it calls a refused connection, a connection lost
on the way and a broken body all a server error 500; drops Retry-After; and ends a stream that was cut off as if it were
complete, with usage of its own invention. The same fault is the same `dspy.lm15` error as on `LM15`; a table in
`tests/agents/test_transports_http.py` holds that.

This is the only file that uses private helpers of DSPy's litellm engine. A contract test pins them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy import lm15
from dspy.clients._http import retry_after_seconds  # private in 3.4
from dspy.clients._litellm import get_litellm  # private in 3.4
from dspy.clients.engines.base import validate_request
from dspy.clients.engines.lifecycle import aclosing_stream, closing_stream  # private in 3.4
from dspy.clients.engines.litellm_engine import _ChatStream  # private in 3.4
from dspy.clients.engines.litellm_errors import to_lm15_error  # private in 3.4
from dspy.clients.lm15_boundary import request_kwargs, response_value  # private in 3.4

from escalade.agents.transports import CHAT_PARAMS, Embedded, revealed_key
from escalade.registry.secrets import Secret, revealed, sealed

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror", "ClientConnectorError"})
_LOST = frozenset(
    {
        "RemoteProtocolError",
        "ReadError",
        "WriteError",
        "ConnectionResetError",
        "BrokenPipeError",
        "ServerDisconnectedError",
        "ClientPayloadError",
        "ClientOSError",
        "TransferEncodingError",
        "IncompleteRead",
    }
)
_TIMED_OUT = frozenset({"ReadTimeout", "WriteTimeout", "PoolTimeout", "APITimeoutError", "ServerTimeoutError"})
_UNREADABLE = frozenset({"JSONDecodeError", "APIResponseValidationError"})
"""What the HTTP clients below litellm (httpx, openai, aiohttp) call it, anywhere in the chain of causes."""

_BELOW: tuple[tuple[frozenset[str], Any], ...] = (
    (_NOT_SENT, lm15.TransportError),
    (_TIMED_OUT, lm15.TimeoutError),
    (_LOST, lm15.TransportError),
    (_UNREADABLE, lm15.ProviderError),
)

_NO_KEY = re.compile(r"missing\b[\w -]{0,40}(?:credentials|api[ _-]key)", re.IGNORECASE)
_ENV_KEY = re.compile(r"\b[A-Z][A-Z0-9_]*_(?:KEY|TOKEN)\b")
_NO_PROVIDER, _HEAD = "LLM Provider NOT provided", 500
"""What litellm says where there is no key (as an error 500, 401, or of the connection), or no such provider."""


_LATE = ("openai.resources", "litellm.proxy.openai_files_endpoints.common_utils")
"""What litellm imports in its first call to most providers: 500 modules, which would stall the loop for 0.3 s."""


class LiteLLM:
    """One attempt per call through litellm.

    `api_key`: a `Secret`, a reference like `"env:NAME"`, or the key itself; None leaves it to litellm, which reads the
    provider's own variable. `api_base`: the URL of the API. `timeout`: seconds for an answer, or for each next
    piece of a stream. `extra`: more arguments of `litellm.completion`, like `api_version` or `extra_headers`; what is
    secret of them may be a `Secret`, too.

    litellm takes seconds to import. It is imported by the first call, which on an event loop would stall everything:
    async calls import it in a thread, and `preload()` does so ahead of time.
    """

    name = "litellm"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = CHAT_PARAMS

    def __init__(
        self, api_key: Secret | str | None = None, api_base: str | None = None, timeout: float = 60.0, **extra: Any
    ) -> None:
        self._api_key = Secret.of(api_key) if api_key else None
        self._api_base, self._timeout, self._extra = api_base, timeout, sealed(extra)
        self._module: Any = None

    def __repr__(self) -> str:
        return f"LiteLLM(api_base={self._api_base!r}, timeout={self._timeout:g})"

    @staticmethod
    def preload() -> threading.Thread:
        """Import litellm in a thread, to have it when the first call comes; `join()` the thread to wait for it.

        A gateway does so when it is made. Asked again, it gives the same thread.
        """
        return _preloading()

    def complete(self, request: Request) -> Response:
        """One answer."""
        litellm = self._litellm()
        arguments = self._arguments(request)
        with _errors(request.model):
            return response_value(litellm.completion(**arguments), "chat", request)

    async def acomplete(self, request: Request) -> Response:
        """One answer."""
        litellm = await self._alitellm()
        arguments = self._arguments(request)
        with _errors(request.model):
            raw = await litellm.acompletion(**arguments)
            return response_value(raw, "chat", request)

    def stream(self, request: Request) -> Generator[Any, None, None]:
        """The events of one answer. Raises `lm15.StreamAssemblyError` when it breaks off without a finish reason."""
        litellm = self._litellm()
        arguments = self._arguments(request, stream=True)
        with _errors(request.model):
            source = litellm.completion(**arguments)
        codec = _ChatStream(request)
        with closing_stream(source), _errors(request.model):
            for chunk in source:
                yield from codec.feed(chunk)
            yield _end(codec, source, litellm)

    async def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        """As `stream`."""
        litellm = await self._alitellm()
        arguments = self._arguments(request, stream=True)
        with _errors(request.model):
            source = await litellm.acompletion(**arguments)
        codec = _ChatStream(request)
        async with aclosing_stream(source):
            with _errors(request.model):
                async for chunk in source:
                    for event in codec.feed(chunk):
                        yield event
                yield _end(codec, source, litellm)

    def embed(self, model: str, texts: list[str]) -> Embedded:
        """Vectors of texts, in one call."""
        litellm = self._litellm()
        with _errors(model):
            return _embedded(litellm.embedding(model=model, input=texts, **self._settings()))

    async def aembed(self, model: str, texts: list[str]) -> Embedded:
        """As `embed`."""
        litellm = await self._alitellm()
        with _errors(model):
            return _embedded(await litellm.aembedding(model=model, input=texts, **self._settings()))

    def _settings(self) -> dict[str, Any]:
        """Of each call: one attempt, no cache, our connection."""
        settings = {"api_key": revealed_key(self._api_key), "api_base": self._api_base}
        return {
            **revealed(self._extra),
            **{name: value for name, value in settings.items() if value is not None},
            "timeout": self._timeout,
            "num_retries": 0,
            "max_retries": 0,  # of the SDKs below litellm
            "cache": {"no-cache": True, "no-store": True},
        }

    def _litellm(self) -> Any:
        if self._module is None:
            self._module = _load()
        return self._module

    async def _alitellm(self) -> Any:
        if self._module is None:
            import asyncio

            self._module = await asyncio.to_thread(_load)
        return self._module

    def _arguments(self, request: Request, *, stream: bool = False) -> dict[str, Any]:
        validate_request(request)
        arguments: dict[str, Any] = request_kwargs(request, "chat")
        if request.config.top_k is not None:
            # OpenAI's dialect, which the conversion speaks, has no top_k; litellm passes it to those who do.
            arguments["top_k"] = request.config.top_k
        arguments.update(
            self._settings(),
            model=request.model,
            _skip_mcp_handler=True,  # or litellm imports the mcp package on every call with tools
        )
        if stream:
            arguments.update(stream=True, stream_options={"include_usage": True})
        return arguments


@functools.cache
def _preloading() -> threading.Thread:
    thread = threading.Thread(target=_preload, name="escalade-litellm-preload", daemon=True)
    thread.start()
    return thread


def _preload() -> None:
    # The process may end meanwhile, and no import works then. What can't be imported, the first call tells.
    with contextlib.suppress(Exception):
        _load()


def _load() -> Any:
    # Or the import fetches a price map from GitHub, and waits for it. Prices are the registry's, and frozen.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    module = get_litellm(feature="the litellm transport")
    for late in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(late)
    return module


def _embedded(answer: Any) -> Embedded:
    """Vectors in the order of the texts, and the tokens that were counted."""
    rows = sorted(answer.data, key=lambda row: row.get("index") or 0)
    tokens = getattr(answer.usage, "prompt_tokens", None)
    usage = None if not tokens else lm15.Usage(input_tokens=tokens, output_tokens=0)
    return Embedded([row["embedding"] for row in rows], usage)


def _end(codec: Any, source: Any, litellm: Any) -> Any:
    """The end event, if the provider sent a finish reason. litellm makes one up where the stream was cut off."""
    told = (getattr(source, name, "unknown") for name in ("received_finish_reason", "intermittent_finish_reason"))
    if not any(told):
        raise lm15.StreamAssemblyError("the stream ended without a finish reason", provider="litellm")
    event = codec.finish(litellm)
    counted = any(getattr(chunk, "usage", None) for chunk in getattr(source, "chunks", ()))
    # Where the provider counted nothing, litellm guesses; unknown is the honest word, and the gateway bills its bound.
    return event if counted else replace(event, usage=None)


@contextmanager
def _errors(model: str) -> Iterator[None]:
    try:
        yield
    except lm15.LM15Error:
        raise
    except Exception as error:
        mapped = _mapped(error, model)
        if mapped is error:
            raise
        raise mapped from error


def _mapped(error: Exception, model: str) -> Any:
    """What happened, by the causes below litellm's own class where that class is known to be wrong."""
    chain = list(_causes(error))
    names = {type(e).__name__ for e in chain}
    provider, said = getattr(error, "llm_provider", None), str(getattr(error, "message", None) or error)
    if _NO_KEY.search(said[:_HEAD]):
        return lm15.NotConfiguredError(said, env_keys=tuple(dict.fromkeys(_ENV_KEY.findall(said[:_HEAD]))))
    if _NO_PROVIDER in said[:_HEAD]:
        return lm15.UnknownModelError(
            f"litellm knows no provider of {model!r}; its name goes first, as in openai/{model}"
        )
    for below, kind in _BELOW:
        if names & below:
            return kind(said, provider=provider)
    mapped = to_lm15_error(error, model=model, provider=provider)
    if isinstance(mapped, lm15.LM15Error) and mapped.retry_after is None:
        mapped.retry_after = _retry_after(chain)
    return mapped


def _retry_after(chain: list[BaseException]) -> float | None:
    """Seconds that the provider asked for: litellm drops the header from its own errors, but keeps the SDK's below."""
    for error in chain:
        for holder in (error, getattr(error, "response", None)):
            for name in ("litellm_response_headers", "headers"):
                headers: Any = getattr(holder, name, None)
                for key, value in headers.items() if hasattr(headers, "items") else ():
                    if str(key).lower() == "retry-after" and (seconds := retry_after_seconds(value)) is not None:
                        return float(seconds)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
