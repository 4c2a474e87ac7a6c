"""A connection to an MCP server: opened when it is needed, shared, opened anew when it was lost.

All of this runs in the background loop. A task of its own enters and leaves the SDK's client, which wants both in one
task. The SDK gets no callbacks: a server that asks for a model, for files or for the user's input is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

from escalade.errors import EscaladeError, ToolError, ToolFailed
from escalade.registry.sources._background import shared
from escalade.registry.sources._wire import TOO_LARGE, Judged
from escalade.registry.sources.definitions import Definition

MOST_TOOLS = 2_000
"""Tools that a server may list."""

REFUSED, UNREACHABLE = -32091, -32090
"""Codes of our own, by which a request fails alone: an exception would end the connection, and all its calls."""

_GONE = "Session terminated"
_PARSE_ERROR, _CLOSED = -32700, -32000


class Connection:
    """`opened()`: an SDK client to enter. `connect_seconds`: for connecting and for listing."""

    def __init__(
        self, opened: Callable[[], AbstractAsyncContextManager[Any]], *, connect_seconds: float = 10.0
    ) -> None:
        self._opened, self._seconds = opened, connect_seconds
        self._task: asyncio.Task[None] | None = None
        self._client: Any = None
        self._ready, self._end = asyncio.Event(), asyncio.Event()

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """The SDK's CallToolResult. Raises ToolFailed when the server can't be reached, ToolError when it refuses."""
        return await self._during(lambda client: client.call_tool(tool, arguments))

    async def listing(self) -> dict[str, Definition]:
        """What the server offers now, by its names. Raises ToolFailed."""
        async with asyncio.timeout(self._seconds):
            return await self._during(_listed)  # type: ignore[no-any-return]

    async def close(self) -> None:
        """End it, and wait until it has ended."""
        task, self._task = self._task, None
        shared.forget(self.close)
        if task is None:
            return
        self._end.set()
        await asyncio.wait([task], timeout=self._seconds)
        task.cancel()

    async def _during(self, use: Callable[[Any], Any], *, again: bool = True) -> Any:
        """Use the client, and stop waiting when its connection ends first."""
        client, task = await self._open()
        using = asyncio.ensure_future(use(client))
        try:
            await asyncio.wait([using, task], return_when=asyncio.FIRST_COMPLETED)
            return using.result() if using.done() else _end(task)
        except EscaladeError:
            raise
        except Exception as error:
            gone = again and str(error) == _GONE  # the server has forgotten us, and so has run nothing
            if gone or getattr(error, "code", _CLOSED) == _CLOSED:
                await self.close()
            if not gone:
                raise _failure(error) from error
        finally:
            using.cancel()
        return await self._during(use, again=False)

    async def _open(self) -> tuple[Any, asyncio.Task[None]]:
        if self._task is None or self._task.done():
            self._ready, self._end = asyncio.Event(), asyncio.Event()
            self._task = asyncio.create_task(self._live(self._ready, self._end))
            shared.at_exit(self.close)
        task, ready = self._task, self._ready
        waiting = asyncio.ensure_future(ready.wait())
        try:
            await asyncio.wait([waiting, task], timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if task.done():
            _end(task)
        if not ready.is_set():
            await self.close()
            raise ToolFailed(f"the server did not answer within {self._seconds:g} s")
        return self._client, task

    async def _live(self, ready: asyncio.Event, end: asyncio.Event) -> None:
        async with self._opened() as client:
            client.session.validate_tool_result = _unchecked  # we do, with an engine of linear time
            self._client = client
            ready.set()
            await end.wait()


async def _unchecked(name: str, result: Any) -> None:
    """Nothing to do."""


async def _listed(client: Any) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            found[tool.name] = _definition(tool)
        if len(found) > MOST_TOOLS or (page.next_cursor is not None and not page.tools):
            raise ToolFailed(f"the server lists more than {MOST_TOOLS} tools")
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


def _definition(tool: Any) -> Definition:
    hints = tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {}
    return Definition(
        name=tool.name,
        description=tool.description or "",
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        hints=hints,
    )


def _end(task: asyncio.Task[None]) -> NoReturn:
    """Raise why a connection ended."""
    error = None if task.cancelled() else task.exception()
    raise _failure(error if isinstance(error, Exception) else ConnectionError("it was closed"))


def _failure(error: Exception) -> Exception:
    """One exception out of the groups that task groups make, as an error of ours; what it says is for developers."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, EscaladeError):
        return error
    code, words = getattr(error, "code", None), " ".join(str(error).split())[:200]
    if code == REFUSED or TOO_LARGE in words:
        return ToolError(words[max(words.find(TOO_LARGE), 0) :])
    if code in {UNREACHABLE, _PARSE_ERROR}:
        return ToolFailed(words)
    if code is not None and code != _CLOSED:
        return ToolError(f"the server refused: {words}")
    failed = ToolFailed(f"the connection to the server failed ({type(error).__name__})")
    failed.original = error
    return failed


class Answering(Judged):
    """For the SDK, whose connection ends with the first exception out of its HTTP client: failures become answers."""

    async def handle_async_request(self, request: Any) -> Any:
        try:
            return await super().handle_async_request(request)
        except self.http.TransportError as error:
            code, words = UNREACHABLE, f"the connection to the server failed ({type(error).__name__})"
        except EscaladeError as error:
            code, words = REFUSED, str(error)
        body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": words}}
        return self.http.Response(503, json=body)
