"""Fake models: they answer what a test says, at a price and after a time that it says, and keep what they were asked.

    gateway = fake_gateway({"small": "42", "big": FakeModel(["first", "second"], latency=2.0, price_out="10.00")})

Behind the gateway everything is real: prompts, adapters, prices, budgets, retries, fallbacks, caches. A fake says
exactly what it is told; for models that are right more or less often there is `escalade.World`.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade.agents._prompt import read_prompt, render, size_of
from escalade.agents.transports import CHAT_PARAMS
from escalade.agents.transports._pieces import pieces
from escalade.errors import BadInput
from escalade.registry.prices import Price

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

    from escalade.agents.gateway import Gateway

CHUNK = 8
"""Characters of one streamed piece."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer in detail. `values`: text for all fields, or a dict by field. `text`: the raw text instead, also one
    that can't be parsed. `tool`, `args`: a native call of a tool instead. `finish`: why it ended ("length": cut off).
    `tokens`: (in, out) as billed, by default a quarter of the characters. `sure`: probability of its words, for log
    probabilities.
    """

    values: str | Mapping[str, Any] = ""
    text: str | None = None
    tool: str | None = None
    args: Mapping[str, Any] | None = None
    finish: str | None = None
    tokens: tuple[int, int] | None = None
    sure: float = 0.9


Said = str | Mapping[str, Any] | Reply | BaseException
"""What is answered: text for all fields, values by field, in detail, or an error that is raised."""

Answers = Said | Sequence[Said] | Callable[[dict[str, str]], Said]


class FakeModel:
    """A model of a `fake_gateway`.

    `answers`: text for every field; a dict, from a text that is one of the inputs (or `"*"`) to an answer; a list,
    which is answered in turn; a function of the inputs, as texts by name. An answer is a text, a dict by field, a
    `Reply`, or an error to raise. `price_in`, `price_out`: dollars per million tokens. `latency`: seconds, or a
    function of the number of the call, from 1. `per_token`: seconds between streamed tokens. Other options are fields
    of `escalade.Model`. `asked`: the inputs of each call so far. Thread-safe. Raises BadInput.

    >>> import dspy, escalade
    >>> gateway = fake_gateway({"m": {"capital of Peru?": "Lima", "*": "no idea"}})
    >>> with escalade.scope(), dspy.context(lm=gateway.lm("m")):
    ...     dspy.Predict("question -> answer")(question="capital of Peru?").answer
    'Lima'
    """

    name = "fake"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = CHAT_PARAMS

    def __init__(
        self,
        answers: Answers,
        *,
        price_in: object = "1.00",
        price_out: object = "2.00",
        latency: float | Callable[[int], float] = 0.0,
        per_token: float = 0.0,
        **options: Any,
    ) -> None:
        if not (callable(answers) or isinstance(answers, str | Mapping | Sequence | Reply | BaseException)):
            raise BadInput(f"answers: expected a text, a dict, a list or a function, got {answers!r}")
        if isinstance(answers, Mapping) and not answers:
            raise BadInput("answers: a dict needs at least one question, or '*'")
        self.answers, self.price, self.options = answers, Price.of(price_in, price_out), options
        self.latency, self.per_token = latency, per_token
        self.asked: list[dict[str, str]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"FakeModel({self.answers!r:.60})"

    # -- as a transport

    def complete(self, request: Request) -> Response:
        """The answer. Raises the error that it is told to be."""
        turn = self._begin(request)
        time.sleep(self._seconds(turn))
        return self._answer(request, turn)

    async def acomplete(self, request: Request) -> Response:
        """As `complete`."""
        turn = self._begin(request)
        await asyncio.sleep(self._seconds(turn))
        return self._answer(request, turn)

    def stream(self, request: Request) -> Generator[Any, None, None]:
        """As `complete`, in pieces."""
        turn = self._begin(request)
        time.sleep(self._seconds(turn))
        for event in pieces(self._answer(request, turn), CHUNK):
            if event.type == "delta":
                time.sleep(self.per_token * CHUNK / 4)
            yield event

    async def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        """As `complete`, in pieces."""
        turn = self._begin(request)
        await asyncio.sleep(self._seconds(turn))
        for event in pieces(self._answer(request, turn), CHUNK):
            if event.type == "delta":
                await asyncio.sleep(self.per_token * CHUNK / 4)
            yield event

    def _begin(self, request: Request) -> int:
        """The number of the call, from 1."""
        with self._lock:
            self.asked.append(dict(read_prompt(request).inputs))
            return len(self.asked)

    def _seconds(self, turn: int) -> float:
        return self.latency(turn) if callable(self.latency) else self.latency

    # -- what it says

    def _answer(self, request: Request, turn: int) -> Response:
        from dspy.lm15 import Message, Response, TextPart, ToolCallPart, Usage

        prompt = read_prompt(request)
        said = self._said(prompt.inputs, turn)
        if isinstance(said, BaseException):
            raise said
        reply = said if isinstance(said, Reply) else Reply(said)
        text = _text(prompt, reply)
        part: Any = TextPart(text)
        if reply.tool is not None:
            text, part = "", ToolCallPart(id=f"call_{turn}", name=reply.tool, input=dict(reply.args or {}))
        made = len(text) if reply.tool is None else len(repr(reply.args))
        given, written = reply.tokens or (-(-size_of(request) // 4), max(1, -(-made // 4)))
        return Response(
            id=f"fake-{turn}",
            model=request.model,
            message=Message.assistant([part]),
            finish_reason=reply.finish or ("stop" if reply.tool is None else "tool_call"),
            usage=Usage(input_tokens=given, output_tokens=written),
            logprobs=_logprobs(text, reply.sure, request.config.logprobs),
        )

    def _said(self, inputs: Mapping[str, str], turn: int) -> Any:
        answers = self.answers
        if isinstance(answers, str | Reply | BaseException):
            return answers
        if callable(answers):
            return answers(dict(inputs))
        if isinstance(answers, Mapping):
            for value in (*inputs.values(), "*"):
                if value in answers:
                    return answers[value]
            return BadInput(f"no answer to {dict(inputs)!r:.200}; there are: {', '.join(map(str, answers))!s:.200}")
        if turn > len(answers):
            return BadInput(f"call {turn}, and its script has {len(answers)} answers; asked {dict(inputs)!r:.200}")
        return answers[turn - 1]


def fake_gateway(models: Mapping[str, Answers | FakeModel], **options: Any) -> Gateway:
    """A gateway of fakes by name; what is no `FakeModel` is what one answers. Options are those of `Gateway`."""
    from escalade.agents.gateway import Gateway
    from escalade.agents.models import Model

    made = []
    for name, answers in models.items():
        fake = answers if isinstance(answers, FakeModel) else FakeModel(answers)
        carry: Any = fake
        made.append(Model(name, f"fake/{name}", carry, **{"price": fake.price, **fake.options}))
    return Gateway(made, **options)


def _text(prompt: Any, reply: Reply) -> str:
    if reply.text is not None:
        return reply.text
    outputs = list(prompt.form.outputs) or ["text"]
    values = reply.values
    return render(prompt, dict(values) if isinstance(values, Mapping) else dict.fromkeys(outputs, values))


def _logprobs(text: str, sure: float, asked: int | None) -> Any:
    """All words are equally likely, and multiply to `sure`."""
    if asked is None or not text:
        return None
    from dspy.lm15 import TokenLogprob

    tokens = [text[at : at + 4] for at in range(0, len(text), 4)]
    each = math.log(min(max(sure, 1e-9), 1.0)) / len(tokens)
    return tuple(TokenLogprob(token=token, logprob=each, top=()) for token in tokens)
