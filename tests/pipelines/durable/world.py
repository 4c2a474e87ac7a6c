"""A small world for runs that are interrupted: a model, tools and functions that count what they do, and a fuse."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from typing import Any

from dspy.lm15 import Message, Response, TextPart, Usage

import escalade
from escalade import Gateway, Model, Price
from escalade.registry.idempotency import step_path
from escalade.registry.journal import Journal
from tests.pipelines.offline import text_of

PRICE = Price.of("10", "10")


class Crash(BaseException):
    """As if the process had died: nothing may catch it."""


class Echo:
    """Answers by what it is asked, after a random moment, and counts what it has served."""

    name = "echo"
    supports_function_calling = supports_response_schema = supports_reasoning = False
    supported_params = frozenset({"temperature", "max_tokens"})

    def __init__(self, world: World) -> None:
        self.world = world

    def _answer(self, request: Any) -> Response:
        text = text_of(request.messages[-1].parts)
        self.world.served[text] += 1
        said = hashlib.sha256(text.encode()).hexdigest()[:12]
        usage = Usage(input_tokens=10, output_tokens=5)
        return Response(
            id="1", model=request.model, message=Message.assistant([TextPart(said)]), finish_reason="stop", usage=usage
        )

    def complete(self, request: Any) -> Response:
        return self._answer(request)

    async def acomplete(self, request: Any) -> Response:
        await self.world.moment()
        return self._answer(request)


class World:
    """`fuse`: after how many finished calls it crashes; `seed`: of the moments that things take."""

    def __init__(self, seed: int = 0, fuse: int | None = None) -> None:
        self.random = random.Random(seed)
        self.fuse, self.done = fuse, 0
        self.served: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.recorder = Journal(keep=100_000)
        self.gateway = Gateway([Model("m", "echo/m", Echo(self), price=PRICE)], name=f"world-{id(self)}")
        self.lm = self.gateway.lm("m", max_tokens=50)
        world = self

        @escalade.tool(side_effects="write", idempotent=True, cost="0.002")
        async def book(what: str) -> dict[str, str]:
            """Book it."""
            await world.moment()
            world.served[f"book {what}"] += 1
            return {"booked": what}

        @escalade.tool(side_effects="read", cost="0.001")
        async def look(what: str) -> str:
            """Look it up."""
            await world.moment()
            world.served[f"look {what}"] += 1
            return what.upper()

        self.registry = escalade.Registry()
        for one in (book, look):
            self.registry.register(one)
        self.book, self.look = self.registry.resolve("book"), self.registry.resolve("look")

    async def moment(self) -> None:
        await asyncio.sleep(self.random.random() * 0.003)

    def count(self, what: str) -> None:
        """A call is finished, as its caller sees it. May be the last that this process does."""
        self.finished[what] += 1
        self.done += 1
        if self.fuse is not None and self.done >= self.fuse:
            self.fuse = None
            raise Crash

    async def ask(self, question: str) -> str:
        """One call of the model."""
        (said,) = await self.lm.acall(question)
        self.count(f"{step_path()} {question}")
        text = said if isinstance(said, str) else said["text"]
        return str(text)

    def agent(self, rounds: int, name: str) -> Any:
        """A node that makes several calls, each by what the last one said: the same function in each branch."""

        async def act(x: str) -> dict[str, str]:
            said = x
            for number in range(rounds):
                said = await self.ask(f"{number} {said}")
                if number % 2:
                    await self.book.acall(what=f"{name} {said}")
                    self.count(f"{step_path()} book {name} {said}")
            await self.look.acall(what=f"{name} {said}")
            return {"x": f"{name}({said})"}

        return act

    @property
    def paid(self) -> int:
        """Nano-dollars, by the record of all uses."""
        return sum(entry.cost for entry in self.recorder.entries())
