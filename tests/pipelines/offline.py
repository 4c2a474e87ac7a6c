"""A language model without a network, and probes that tests put into pipelines."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.lm15 import Message, Response, TextPart, Usage

FIELD = re.compile(r"^\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ## |\n\nRespond with|\Z)", re.DOTALL | re.MULTILINE)
ASKED = re.compile(r"`\[\[ ## (\w+) ## \]\]`")


def text_of(parts: Any) -> str:
    return parts if isinstance(parts, str) else "".join(getattr(part, "text", "") or "" for part in parts or ())


class Engine:
    """Answers each output field with `field(input, input, ...)`, or with what `answer(field, inputs)` says."""

    supports_function_calling = supports_response_schema = supports_reasoning = False
    supported_params = frozenset({"temperature", "max_tokens"})

    def __init__(self, answer: Callable[[str, dict[str, str]], str] | None, delay: float, asked: list[Any]) -> None:
        self.answer = answer or (lambda field, inputs: f"{field}({', '.join(inputs.values())})")
        self.delay = delay
        self.asked = asked

    def respond(self, request: Any) -> Response:
        user = text_of(request.messages[-1].parts)
        inputs = {name: value.strip() for name, value in FIELD.findall(user)}
        self.asked.append(inputs)
        fields = [name for name in ASKED.findall(user) if name != "completed"]
        body = "\n\n".join(f"[[ ## {name} ## ]]\n{self.answer(name, inputs)}" for name in fields)
        return Response(
            id="1",
            model=request.model,
            message=Message.assistant([TextPart(body + "\n\n[[ ## completed ## ]]")]),
            finish_reason="stop",
            usage=Usage(input_tokens=10, output_tokens=5),
        )

    def complete(self, request: Any) -> Response:
        time.sleep(self.delay)
        return self.respond(request)


class AsyncEngine(Engine):
    """The same, for `acall`."""

    async def complete(self, request: Any) -> Response:
        await asyncio.sleep(self.delay)
        return self.respond(request)


def offline_lm(
    answer: Callable[[str, dict[str, str]], str] | None = None, delay: float = 0.0, asked: list[Any] | None = None
) -> dspy.LM:
    """A `dspy.LM` over a pair of engines. `asked`: takes the inputs of each call."""
    asked = [] if asked is None else asked
    pair = Engine(answer, delay, asked), AsyncEngine(answer, delay, asked)
    return dspy.LM("offline/model", engine=pair[0], async_engine=pair[1], cache=False, num_retries=0)


class Gauge:
    """Counts who is inside, and how many were at once. Thread-safe."""

    def __init__(self) -> None:
        self.now = self.most = self.entered = 0
        self._lock = threading.Lock()

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.entered += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1


@contextmanager
def no_task_left() -> Iterator[None]:
    """The block leaves as many tasks alive as it found."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    assert not left, left


def after(seconds: float, value: Any = 1) -> Any:
    """A branch that returns `value`, or raises it, after some time."""

    async def branch() -> Any:
        await asyncio.sleep(seconds)
        if isinstance(value, BaseException):
            raise value
        return value

    return branch
