"""Answers of models, embedders and tools in a durable run: given again as they were, under the guard, and paid once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.lm15 import Message, Response, TextPart, TokenLogprob, Usage

import escalade
from escalade import Chain, Gateway, Model, Principal, Roles, Runs
from escalade.agents.transports import Embedded
from escalade.errors import RunError
from escalade.registry.journal import Journal
from tests.agents.scripted import Scripted
from tests.pipelines.durable.world import PRICE


class Server(Scripted):
    """Answers each request with its number, so that no two answers are alike."""

    def _response(self, request: Any, text: str, finish: str = "stop") -> Response:
        said = f"[[ ## answer ## ]]\nanswer {len(self.requests)}\n\n[[ ## completed ## ]]"
        return Response(
            id=str(len(self.requests)),
            model=request.model,
            message=Message.assistant([TextPart(said)]),
            finish_reason="stop",
            usage=Usage(input_tokens=100, output_tokens=20),
            logprobs=(TokenLogprob(token="a", logprob=-0.5),),
        )

    def embed(self, model: str, texts: list[str]) -> Embedded:
        self.requests.append(texts)
        return Embedded(np.array([[len(self.requests), len(text)] for text in texts], "float32"), Usage(input_tokens=9))

    async def aembed(self, model: str, texts: list[str]) -> Embedded:
        return self.embed(model, texts)


class Place:
    """A run whose node makes calls, notes what it was given, and fails until it is mended."""

    def __init__(self, path: Path, calls: Callable[[Place], Any], **options: Any) -> None:
        self.server, self.recorder, self.given = Server(), Journal(), list[list[Any]]()
        models = [
            Model("m", "x/m", self.server, price=PRICE),
            Model("v", "x/v", self.server, price=PRICE, kind="embedding"),
        ]
        self.gateway = Gateway(models, name=f"place-{id(self)}")
        self.lm = self.gateway.lm("m", max_tokens=50)
        self.mended = False

        async def act(x: str) -> int:
            self.given.append([])
            await calls(self)
            if not self.mended:
                raise ValueError("not yet")
            return 1

        self.runs = Runs(path / "r.sqlite", pipelines={"p": Chain(act=act)}, recorder=self.recorder, **options)

    def twice(self, **options: Any) -> tuple[list[Any], list[Any]]:
        """What the calls gave at first, and when the run went on."""
        with self.runs:
            run = self.runs.start("p", run_id="r", budget="1", x="x", **options)
            with pytest.raises(RunError, match="not yet"):
                run.result(10)
            self.spent = run.spent
            self.mended = True
            run.resume().result(10)
            assert run.spent == self.spent
            self.kept = run.calls()
        first, second = self.given
        return first, second


async def ask(place: Place) -> None:
    """The same question three times: three answers."""
    for _ in range(3):
        place.given[-1].append(await place.lm.acall("the same question"))
        place.given[-1].append(place.lm.history[-1]["cost"])


async def ask_in_a_thread(place: Place) -> None:
    """By a sync call, which a node in a thread makes."""
    import asyncio

    for question in "ab":
        place.given[-1].append(await asyncio.to_thread(place.lm, question))


async def stream(place: Place) -> None:
    """As DSPy streams an answer."""
    predict = dspy.Predict("question -> answer")
    program = dspy.streamify(predict, stream_listeners=[dspy.streaming.StreamListener("answer")])
    with dspy.context(lm=place.lm):
        async for part in program(question="a"):
            if isinstance(part, dspy.Prediction):
                place.given[-1].append(part.answer)


async def embed(place: Place) -> None:
    """Two batches of texts, and one of them again."""
    embedder = place.gateway.embedder("v")
    for texts in (["a", "bb"], ["ccc"], ["a", "bb"]):
        place.given[-1].append((await embedder.acall(texts)).tolist())


@pytest.mark.parametrize(("calls", "served"), [(ask, 3), (ask_in_a_thread, 2), (stream, 1), (embed, 3)])
def test_an_answer_is_given_again(tmp_path: Path, calls: Any, served: int) -> None:
    """The same answers in the same order, from the journal: nothing is served, or paid, a second time."""
    place = Place(tmp_path, calls)
    first, second = place.twice()
    assert first == second
    assert len(place.server.requests) == served
    assert Counter(entry.source for entry in place.recorder.entries()) == {"": served, "journal": served}
    assert place.spent == sum(entry.cost for entry in place.recorder.entries()) > 0
    assert sum(call.cost for call in place.kept) == place.spent


def test_answers_are_kept_whole(tmp_path: Path) -> None:
    """With what a provider says besides: logprobs, usage, its id; and the bill of then."""

    async def calls(place: Place) -> None:
        await place.lm.acall("a")
        (response,) = (place.lm.history[-1]["response"],)
        place.given[-1].append(response[0] if isinstance(response, tuple | list) else response)

    first, second = Place(tmp_path, calls).twice()
    assert first == second
    assert second[0].logprobs[0].logprob == -0.5
    assert second[0].provider_data["escalade"]["cost"] > 0


def test_the_guard_is_asked_again(tmp_path: Path) -> None:
    """Who may no longer use a model is not given its answer either."""
    ana = Principal("ana", "acme", frozenset({"analyst"}))
    policy = Roles({"analyst": ["model.*:call"]})

    class Changing:
        digest = ""
        now: Any = policy

        def __getattr__(self, name: str) -> Any:
            return getattr(self.now, name)

    access = Changing()
    place = Place(tmp_path, ask, access=access)
    with place.runs:
        run = place.runs.start("p", run_id="r", principal=ana, x="x")
        with pytest.raises(RunError, match="not yet"):
            run.result(10)
        access.now = Roles({"analyst": ["nothing:call"]})
        with pytest.raises(RunError, match="may not use model"):
            run.resume().result(10)
    assert len(place.server.requests) == 3


def test_tools_are_used_once(tmp_path: Path) -> None:
    """Whatever kind of tool: what it gave is given again, with its type; one that failed is used again."""
    used: list[str] = []

    @escalade.tool(side_effects="irreversible", cost="0.001")
    async def send(text: str) -> dict[str, int]:
        """Send."""
        used.append(f"send {text}")
        return {"sent": len(used)}

    @escalade.tool(side_effects="read")
    def read(text: str) -> list[int]:
        """Read."""
        used.append(f"read {text}")
        return [len(used)]

    @escalade.tool(side_effects="write")
    async def flaky(text: str) -> str:
        """Fail once."""
        used.append(f"flaky {text}")
        if used.count(f"flaky {text}") == 1:
            raise ConnectionError("down")
        return "up"

    registry = escalade.Registry()
    for one in (send, read, flaky):
        registry.register(one)

    async def calls(place: Place) -> None:
        for text in ("a", "a", "b"):
            place.given[-1].append(await registry.resolve("send").acall(text=text))
        place.given[-1].append(await registry.resolve("read").acall(text="c"))
        try:
            place.given[-1].append(await registry.resolve("flaky").acall(text="d"))
        except ConnectionError:
            place.given[-1].append("up")

    first, second = Place(tmp_path, calls).twice()
    assert first == second == [{"sent": 1}, {"sent": 2}, {"sent": 3}, [4], "up"]
    assert used == ["send a", "send a", "send b", "read c", "flaky d", "flaky d"]
