"""Following a run: tokens, results as they come, progress, a filter; and leaving it."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import aclosing
from typing import Any

import dspy
import pytest

import escalade
from escalade import Chain, FanOut, Gateway, Map, SimModel, World
from escalade.errors import BadInput
from escalade.pipelines.events import (
    Event,
    NodeFinished,
    NodeResult,
    NodeStarted,
    Progress,
    RunFinished,
    RungStarted,
    Settled,
    Token,
)
from escalade.pipelines.pipeline import Pipeline
from tests.pipelines.offline import no_task_left

QUESTION = "Ada saves 35 dollars a week for 8 weeks and then spends 9 dollars. How many dollars are left?"


def gateway(per_token: float = 0.0) -> Gateway:
    """Two simulated models that can write."""
    models = {
        "small": SimModel(skill=0.5, price_in="0.10", price_out="0.40", per_token=per_token),
        "large": SimModel(skill=0.99, price_in="1", price_out="4", per_token=per_token),
    }
    return Gateway(World(models, seed=7).as_models())


class Blocking(dspy.Module):
    """A module with a sync forward only, as most are written."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        return self.predict(question=question)


async def asks_in_a_function(question: str) -> Any:
    return await dspy.Predict("question -> reply").acall(question=question)


def text_of(told: list[Event], path: str, field: str) -> str:
    """The newest draft of a field at a path."""
    pieces = [e for e in told if isinstance(e, Token) and (e.path, e.field) == (path, field)]
    newest = max((e.draft for e in pieces), default=0)
    return "".join(e.text for e in pieces if e.draft == newest)


async def follow(pipeline: Pipeline, **options: Any) -> list[Event]:
    with dspy.context(lm=gateway().lm("large")):
        async with escalade.scope(budget="1.00"):
            return [event async for event in pipeline.stream({"question": QUESTION}, **options)]


async def test_tokens_have_the_path_of_their_node_and_the_field() -> None:
    """Of predictors in modules with `aforward`, with `forward` alone, in functions, in maps and in nested pipelines:
    each field's pieces are what the node returned.
    """
    inner = Chain(think=dspy.ChainOfThought("question -> answer"))
    pipeline = FanOut(plain=dspy.Predict("question -> answer"), sync=Blocking(), asked=asks_in_a_function, inner=inner)
    told = await follow(pipeline, tokens=True)
    result = told[-1].result
    assert text_of(told, "plain", "answer") == result.plain.answer != ""
    assert text_of(told, "sync", "answer") == result.sync.answer != ""
    assert text_of(told, "sync", "reasoning") == result.sync.reasoning
    assert text_of(told, "asked", "reply") == result.asked.reply != ""
    assert text_of(told, "inner/think", "reasoning") == result.inner.reasoning
    assert len([e for e in told if isinstance(e, Token) and e.path == "inner/think"]) > 5
    assert [e.seq for e in told] == sorted(e.seq for e in told)
    for path in ("plain", "sync", "asked", "inner/think"):
        inside = [type(e) for e in told if e.path == path]
        assert inside[0] is NodeStarted
        assert inside[-1] is NodeFinished


async def test_items_of_a_map_are_told_apart() -> None:
    """Many calls of one predictor at once: each item's tokens have its path."""
    pipeline = Map(dspy.Predict("question -> answer"), over="questions")
    with dspy.context(lm=gateway().lm("large")):
        async with escalade.scope():
            told = [e async for e in pipeline.stream(tokens=True, questions=[QUESTION, QUESTION.replace("9", "5")])]
    results = told[-1].result.results
    assert [text_of(told, f"[{i}]", "answer") for i in range(2)] == [one.answer for one in results]


async def test_climbs_of_two_branches_are_told_apart() -> None:
    """Each climb says which rung it is on, however they take turns."""

    def climb() -> Any:
        return escalade.Escalate(
            "question -> answer",
            rungs=["small", ("ChainOfThought", "large")],
            policy=escalade.Threshold(0.99),
            gateway=gateway(),
        )

    async with escalade.scope():
        told = [e async for e in FanOut(a=climb(), b=climb()).stream(tokens=True, question=QUESTION)]
    for branch in "ab":
        rungs = [e.rung for e in told if isinstance(e, RungStarted) and e.path == branch]
        assert rungs == ["Predict/small", "ChainOfThought/large"]
        assert {e.rung for e in told if isinstance(e, Token) and e.path == branch} == set(rungs)


async def test_what_cannot_be_streamed_still_runs() -> None:
    """A sync call in a coroutine and calls in DSPy's own threads have no tokens, and work as they do without."""

    async def sync_in_async(question: str) -> Any:
        return dspy.Predict("question -> answer")(question=question)

    def in_threads(question: str) -> Any:
        predict = dspy.Predict("question -> answer")
        row = dspy.Example(question=question).with_inputs("question")
        return dspy.Parallel(num_threads=2, disable_progress_bar=True)([(predict, row), (predict, row)])

    told = await follow(FanOut(a=sync_in_async, b=in_threads), tokens=True)
    assert not [e for e in told if isinstance(e, Token)]
    assert told[-1].result.a.answer == told[-1].result.b[0].answer != ""


async def test_without_asking_nobody_hears_tokens() -> None:
    """Tokens and results go to the stream that wants them, never to the listeners of the scope."""
    heard: list[Event] = []
    with dspy.context(lm=gateway().lm("large")):
        async with escalade.scope(listen=heard.append):
            pipeline = Chain(a=dspy.Predict("question -> answer"))
            plain = [e async for e in pipeline.stream(question=QUESTION)]
            told = [e async for e in pipeline.stream(question=QUESTION, tokens=True, results=True)]
    assert not [e for e in (*heard, *plain) if isinstance(e, Token | NodeResult)]
    assert [e for e in told if isinstance(e, Token)]


async def test_a_slow_reader_slows_the_model() -> None:
    """No more than a few events wait for the reader, however much a model could write."""
    waiting, reads = 0, list[float]()
    with dspy.context(lm=gateway().lm("large")):
        async with escalade.scope():
            pipeline = Chain(a=Blocking(), b=dspy.ChainOfThought("question -> answer"))
            async with aclosing(pipeline.stream(question=QUESTION, tokens=True)) as stream:
                async for event in stream:
                    if isinstance(event, Token):
                        waiting = max(waiting, sum(event.time < moment for moment in reads))
                    reads.append(time.time())
                    await asyncio.sleep(0.005)
    assert waiting <= 18, "16 may wait: so many are read before one that was just written; of those that there are, 24"


@pytest.mark.parametrize("module", [Blocking, lambda: dspy.ChainOfThought("question -> answer")])
async def test_leaving_in_the_middle_of_a_text(module: Any) -> None:
    """The call is settled, and ends at its next piece, in a thread, too; no task stays, and the caller is not
    cancelled.
    """
    world = World({"large": SimModel(skill=0.99, price_in="1", price_out="4", per_token=0.02)}, seed=7)
    with no_task_left(), dspy.context(lm=Gateway(world.as_models()).lm("large")):
        async with escalade.scope():
            await Chain(a=module()).acall(question=QUESTION)
        whole = world.output_tokens["large"]
        world.reset()
        async with escalade.scope(budget="1.00") as scope:
            tokens = 0
            async with aclosing(Chain(a=module()).stream(question=QUESTION, tokens=True)) as stream:
                async for event in stream:
                    tokens += isinstance(event, Token)
                    if tokens == 3:
                        break
            assert (scope.purse.held, scope.purse.spent > 0) == (0, True)
        for _ in range(500):
            if not world.output_tokens["large"]:  # a thread ends its call at the next piece
                await asyncio.sleep(0.01)
        assert 0 < world.output_tokens["large"] < whole / 2
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("after", [1, 5, 23, 60])
async def test_leaving_after_any_token(after: int) -> None:
    """Wherever it is left, in threads, maps and branches at once: all of it ends, and is settled."""
    pipeline = FanOut(
        thread=Blocking(),
        branch=dspy.ChainOfThought("question -> answer"),
        items=Map(dspy.ChainOfThought("question -> answer"), over="questions", item="question"),
    )
    inputs = {"question": QUESTION, "questions": [QUESTION] * 3}
    with no_task_left(), dspy.context(lm=gateway(per_token=0.005).lm("large")):
        async with escalade.scope(budget="1.00") as scope:
            tokens = 0
            async with aclosing(pipeline.stream(inputs, on=Token)) as stream:
                async for _ in stream:
                    tokens += 1
                    if tokens == after:
                        break
            assert (scope.purse.held, scope.purse.spent > 0) == (0, True)


async def test_results_as_they_arrive() -> None:
    """A long analysis shows what it has: each node's result right before the event that it finished."""

    async def summary(page: int) -> str:
        await asyncio.sleep(0.01 * (3 - page))
        return f"page {page}"

    told = [
        e async for e in Chain(pages=Map(summary, over="ps"), n=lambda results: 1).stream(results=True, ps=range(3))
    ]
    given = {e.path: e.result for e in told if isinstance(e, NodeResult)}
    assert [given[f"pages[{i}]"] for i in range(3)] == ["page 0", "page 1", "page 2"]
    assert given["pages"].results == ["page 0", "page 1", "page 2"]
    for before, event in itertools.pairwise(told):
        if isinstance(before, NodeResult):
            assert isinstance(event, NodeFinished)
            assert event.path == before.path


async def test_only_some_kinds() -> None:
    """`on` lets through what it names, asks for tokens and results that it names, and what is no event is refused."""
    told = await follow(Chain(a=dspy.Predict("question -> answer")), on=(Token, RunFinished))
    assert {type(e) for e in told} == {Token, RunFinished}
    told = await follow(Chain(a=lambda question: 1), on=NodeResult)
    assert [e.result for e in told if isinstance(e, NodeResult)] == [1]
    told = await follow(Chain(a=dspy.Predict("question -> answer")), on=Settled)
    assert [(e.kind, e.seconds > 0) for e in told if isinstance(e, Settled)] == [("model", True)]
    with pytest.raises(BadInput, match="classes of events"):
        await follow(Chain(a=lambda: 1), on="Token")


async def test_fields_may_be_named_like_options() -> None:
    """A dict takes the inputs whose names `stream` has for itself."""
    pipeline = Chain(a=lambda tokens, on: f"{tokens} {on}")
    told = [e async for e in pipeline.stream({"tokens": 1, "on": 2})]
    assert told[-1].result.a == "1 2"


async def test_progress_from_everywhere() -> None:
    """A coroutine, a thread and what they call say how far they are; the event has the node's path."""

    def helper(n: int) -> None:
        escalade.progress(n, 2, message=f"line {n}", partial=["x"] * n)

    def in_thread() -> None:
        helper(1)
        helper(2)

    async def on_loop() -> None:
        helper(1)

    told = [e async for e in FanOut(a=in_thread, b=Chain(c=on_loop)).stream(on=Progress)]
    seen = [(e.path, e.done, e.total, e.message, e.partial) for e in told if isinstance(e, Progress)]
    assert sorted(seen) == [
        ("a", 1, 2, "line 1", ["x"]),
        ("a", 2, 2, "line 2", ["x", "x"]),
        ("b/c", 1, 2, "line 1", ["x"]),
    ]


def test_progress_is_silent_and_cheap_when_nobody_listens() -> None:
    """Outside of a run, and in one without listeners, it does nothing, in a few microseconds; what are no numbers is
    refused where somebody listens.
    """
    escalade.progress(1, 2)
    with escalade.scope():
        began = time.perf_counter()
        for _ in range(2000):
            escalade.progress(1, 2)
        assert (time.perf_counter() - began) / 2000 < 50e-6
    with escalade.scope(listen=[].append), pytest.raises(BadInput, match="expected numbers"):
        escalade.progress("half")
