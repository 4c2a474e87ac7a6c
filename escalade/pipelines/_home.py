"""DSPy's `streamify` around a pipeline that is called synchronously.

It runs the program in a thread, and gives it a stream that belongs to the caller's event loop. The pipeline runs on a
loop of its own in that thread, where sending into the stream would wait for ever: a loop doesn't hear of another's
wake-ups. So what is sent goes by way of the caller's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dspy

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectSendStream


class Homeward:
    """A stream of another event loop. Waits, as its own `send` does, until there is room."""

    def __init__(self, stream: MemoryObjectSendStream[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._loop = stream, loop

    async def send(self, message: Any) -> None:
        """Send it, on the loop of the stream."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._stream.send(message), self._loop))


@contextlib.contextmanager
def homeward() -> Iterator[None]:
    """In here, in a thread that `streamify` made, streams lead home."""
    stream = dspy.settings.get("send_stream")
    if stream is None or type(stream).__module__ != "anyio.streams.memory":  # none, or one of ours
        yield
        return
    import anyio.from_thread

    try:
        loop = anyio.from_thread.run_sync(asyncio.get_running_loop)
    except RuntimeError:  # called on that very loop, or from a thread that it doesn't know
        yield
        return
    with dspy.context(send_stream=Homeward(stream, loop)):
        yield
