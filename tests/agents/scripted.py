"""A transport that does what a script says: an answer, an error, or a wait. One item is used up by each attempt."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from dspy import lm15
from dspy.lm15 import Message, Response, StreamDeltaEvent, StreamEndEvent, StreamStartEvent, TextDelta, TextPart, Usage

ANSWER = "[[ ## answer ## ]]\n42\n\n[[ ## completed ## ]]"


class Scripted:
    """Items: a text to answer with, an exception to raise, a number of seconds to take before `ANSWER`.

    `at_once`: how many answers it was waiting with, at most. When the script has ended, `ANSWER` follows for ever.
    `usage=None` leaves the token counts out.
    """

    name = "scripted"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = frozenset({"temperature", "max_tokens"})

    def __init__(self, script: Iterable[Any] = (), *, tokens: tuple[int, int] | None = (100, 20)) -> None:
        self._script, self._lock = iter(script), threading.Lock()
        self.tokens, self.requests = tokens, []
        self.at_once = self._inside = 0

    def _next(self, request: Any) -> Any:
        with self._lock:
            self.requests.append(request)
            return next(self._script, ANSWER)

    def _response(self, request: Any, text: str, finish: str = "stop") -> Response:
        usage = Usage() if self.tokens is None else Usage(input_tokens=self.tokens[0], output_tokens=self.tokens[1])
        message = Message.assistant([TextPart(text)])
        return Response(id="1", model=request.model, message=message, finish_reason=finish, usage=usage)

    @contextlib.contextmanager
    def _taking_time(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            self.at_once = max(self.at_once, self._inside)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1

    def complete(self, request: Any) -> Response:
        item = self._next(request)
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, int | float):
            with self._taking_time():
                time.sleep(item)
        return self._response(request, item if isinstance(item, str) else ANSWER)

    async def acomplete(self, request: Any) -> Response:
        item = self._next(request)
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, int | float):
            with self._taking_time():
                await asyncio.sleep(item)
        return self._response(request, item if isinstance(item, str) else ANSWER)

    def _events(self, request: Any) -> Iterable[Any]:
        item = self._next(request)
        if isinstance(item, BaseException):
            raise item
        text, cut = (item, None) if isinstance(item, str) else item if isinstance(item, tuple) else (ANSWER, None)
        yield StreamStartEvent(id="1", model=request.model)
        for at in range(0, len(text), 5):
            yield StreamDeltaEvent(delta=TextDelta(text=text[at : at + 5], part_index=0))
        if cut is not None:
            raise cut
        yield StreamEndEvent(finish_reason="stop", usage=self._response(request, "").usage)

    def stream(self, request: Any) -> Iterable[Any]:
        yield from self._events(request)

    async def astream(self, request: Any) -> Any:
        for event in self._events(request):
            await asyncio.sleep(0)
            yield event


def rate_limited(after: float | None = None) -> lm15.RateLimitError:
    """A 429, with Retry-After in seconds."""
    return lm15.RateLimitError("slow down", provider="scripted", retry_after=after)
