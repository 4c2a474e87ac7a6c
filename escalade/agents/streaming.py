"""Following an agent while it works: tokens, rungs, tools, the answer.

    async for event in qa.stream(question="…"):
        if isinstance(event, Token):
            print(event.text, end="")

A `Stream` is followed by `async for` or by `for`. It gives the events of its call, in order: `RungStarted`, `Token`,
`RungTried`, `Escalated`, `ToolCalled`, `Settled`, …; the last one is `Answered`. Whether a rung's answer is good enough
is known when it is complete, so tokens of a rung are `provisional`: a higher `draft` takes their place. The newest
draft of each text field is the answer's, when the stream has ended.

Leaving early (`break`, `aclose()`, cancellation, a timeout) cancels the call, settles it by what was seen of it, and
leaves the caller alone. After `break` that happens when the iterator is collected; `async with` (`with`) where the
moment matters.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import dspy

from escalade import events, scopes
from escalade.agents._fields import text_fields
from escalade.agents._pipe import Pipe, carried
from escalade.agents._sink import SINK, Sink, decides
from escalade.errors import BadInput
from escalade.events import RungStarted, Token

__all__ = ["Answered", "RungStarted", "Stream", "Token", "stream"]

AHEAD = 16
"""Tokens that may wait for the reader: a model isn't asked to write what nobody reads."""

_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(events.Event):
    """The call has ended. `result`: what it returns."""

    result: Any


class Stream:
    """One call, followed once, by `async for` or by `for`; made by `stream`. Raises what the call raises."""

    def __init__(self, program: Any, inputs: Mapping[str, Any], *, provisional: bool = True) -> None:
        self._program, self._inputs, self._provisional = program, dict(inputs), provisional
        self._events: AsyncGenerator[events.Event, None] | None = None
        self._thread: _Thread | None = None

    def __aiter__(self) -> AsyncGenerator[events.Event, None]:
        if self._events is not None:
            raise BadInput("a stream is followed once; call stream(...) again")
        self._events = _followed(self._program, self._inputs, provisional=self._provisional)
        return self._events

    def __iter__(self) -> Iterator[events.Event]:
        following = self.__aiter__()
        self._thread = thread = _Thread(following)
        try:
            while (event := thread.next()) is not _END:
                yield event
        finally:
            thread.close()

    async def aclose(self) -> None:
        """Cancel the call, if it hasn't ended, and wait until it is settled."""
        if self._events is not None:
            await self._events.aclose()

    def close(self) -> None:
        """`aclose`, for who follows it by `for`."""
        if self._thread is not None:
            self._thread.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Not methods: a generator that knows its Stream would keep it, and be kept by it, after a `break`.


async def _followed(
    program: Any, inputs: Mapping[str, Any], *, provisional: bool
) -> AsyncGenerator[events.Event, None]:
    pipe = Pipe(AHEAD)
    async with aclosing(carried(pipe, _work(pipe, program, inputs, provisional=provisional))) as told:
        async for event in told:
            yield event


async def _work(pipe: Pipe, program: Any, inputs: Mapping[str, Any], *, provisional: bool) -> None:
    scope = scopes.require("a stream")
    sink = Sink(pipe, scope.run_id, provisional=provisional)
    climbs = hasattr(program, "attempt_sync")  # a climb chooses itself what is shown
    receiver = None if climbs or not provisional or decides(program) else sink.receiver(program)
    heard = replace(scope, listeners=(*scope.listeners, pipe))
    with dspy.context(**{scopes.KEY: heard, SINK: sink, "send_stream": receiver}):
        result = await program.acall(**inputs)
    if isinstance(result, dspy.Prediction):
        sink.finish(dict(result.items()), _outputs(program), result.rung.name if climbs else "")
    events.send((pipe,), Answered, scope.run_id, events.here(), result=result)


def stream(program: Any, /, *, provisional: bool = True, **inputs: Any) -> Stream:
    """Follow one call of a program: a `ToolAgent`, an `Escalate`, a `dspy.Predict`, any module with an `aforward`.

    `provisional=False` shows nothing before it is certain to be the answer: of a climb, the text of the rung that
    answers, when it has ended.
    """
    return Stream(program, inputs, provisional=provisional)


def _outputs(program: Any) -> tuple[str, ...]:
    signature = getattr(program, "signature", None) or getattr(getattr(program, "predict", None), "signature", None)
    return () if signature is None else text_fields(signature)


class _Thread:
    """An event loop in a thread, for who follows a stream without one of his own, or while his own is running."""

    def __init__(self, following: AsyncGenerator[Any, None]) -> None:
        self._following = following
        self._loop = asyncio.new_event_loop()
        self._step: asyncio.Task[Any] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="escalade-stream", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def next(self) -> Any:
        """The next event, `_END` after the last. The caller's context is the call's."""
        return asyncio.run_coroutine_threadsafe(self._stepped(), self._loop).result()

    async def _stepped(self) -> Any:
        self._step = asyncio.current_task()
        return await anext(self._following, _END)

    def close(self) -> None:
        """Cancel the call and wait until it is settled."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _ended(self) -> None:
        if self._step is not None and not self._step.done():  # the caller was interrupted while he waited
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._following.aclose()
        await self._loop.shutdown_asyncgens()
