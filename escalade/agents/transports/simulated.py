"""The transport of the simulated world: no network, no key, the same answers on every run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from escalade.agents.transports import CHAT_PARAMS
from escalade.agents.transports._pieces import pieces

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

    from escalade.agents.world import World

CHUNK = 8
"""Characters of one streamed piece: two simulated tokens."""


class Simulated:
    """Carries requests to a `World`. Its models take the time that they are said to take, and fail when told to.

    A call counts as soon as it is sent; its tokens count when the answer is complete, or, in a stream that was closed
    early, for what was streamed until then.
    """

    name = "simulated"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = CHAT_PARAMS

    def __init__(self, world: World) -> None:
        self.world = world

    def __repr__(self) -> str:
        return f"Simulated({self.world!r})"

    def complete(self, request: Request) -> Response:
        """One answer. Raises what the model's faults say, `lm15.UnsupportedModelError` for a model of another world."""
        world = self.world
        wait = world.begin(request)
        if wait > 0:
            time.sleep(wait)
        return world.finish(world.answer(request))

    async def acomplete(self, request: Request) -> Response:
        """As `complete`."""
        world = self.world
        wait = world.begin(request)
        if wait > 0:
            await asyncio.sleep(wait)
        return world.finish(world.answer(request))

    def stream(self, request: Request) -> Generator[Any, None, None]:
        """The events of one answer, `CHUNK` characters at a time."""
        world = self.world
        time.sleep(world.begin(request))
        answer = world.answer(request)
        pause, seen = world.pause(request.model), 0
        try:
            for event in pieces(answer, CHUNK):
                if event.type == "end":
                    seen = -1
                elif event.type == "delta":
                    time.sleep(pause)
                    seen += CHUNK
                yield event
        finally:
            world.finish(answer, seen=None if seen < 0 else seen)

    async def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        """As `stream`."""
        world = self.world
        await asyncio.sleep(world.begin(request))
        answer = world.answer(request)
        pause, seen = world.pause(request.model), 0
        try:
            for event in pieces(answer, CHUNK):
                if event.type == "end":
                    seen = -1
                elif event.type == "delta":
                    await asyncio.sleep(pause)
                    seen += CHUNK
                yield event
        finally:
            world.finish(answer, seen=None if seen < 0 else seen)
