"""Joins within DSPy, in events, in steps: what holds for every pipeline holds for those with a rule."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import events
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.race import Race
from escalade.pipelines.shape import shape_of
from escalade.registry.opening import scope
from tests._virtual import virtually
from tests.pipelines.offline import offline_lm


def crew() -> Chain:
    """Every kind of join, with five predictors."""
    return Chain(
        team=FanOut(
            fast=Race(a=dspy.Predict("question -> fact"), b=dspy.ChainOfThought("question -> fact"), stagger=9.0),
            views=FanOut(x=dspy.Predict("question -> view"), y=lambda question: 1 // 0, quorum=1),
            parts=Chain(
                lambda question: {"words": question.split()},
                Map(dspy.Predict("word -> sense"), over="words", errors="keep"),
            ),
            partial=True,
            within=30.0,
        ),
        end=dspy.Predict("question -> answer"),
    )


NAMES = [
    "steps['team'].branches['fast'].branches['a']",
    "steps['team'].branches['fast'].branches['b'].predict",
    "steps['team'].branches['views'].branches['x']",
    "steps['team'].branches['parts'].steps['map'].worker",
    "steps['end']",
]


def test_predictors_are_found_saved_and_loaded(tmp_path: Path) -> None:
    """At any depth, and the copy answers as the original."""
    pipeline = crew()
    assert [name for name, _ in pipeline.named_predictors()] == NAMES
    for number, predictor in enumerate(pipeline.predictors()):
        predictor.signature = predictor.signature.with_instructions(f"instruction {number}")
    pipeline.save(tmp_path / "crew.json")
    again = crew()
    again.load(tmp_path / "crew.json")
    assert again.dump_state() == pipeline.dump_state()
    pipeline.save(tmp_path / "program", save_program=True)
    whole = dspy.load(tmp_path / "program", allow_pickle=True)
    with dspy.context(lm=offline_lm()):
        answers = [one(question="why so").answer for one in (pipeline, again, whole, copy.deepcopy(pipeline))]
    assert set(answers) == {"answer(why so)"}
    team = copy.deepcopy(pipeline).steps["team"]
    assert team._facts() == {"concurrency": None, "partial": True, "within": 30.0, "least": 1}


def test_batches_and_threads() -> None:
    """`batch` and `dspy.Parallel` run it in threads of their own."""
    with dspy.context(lm=offline_lm()):
        rows = [dspy.Example(question=f"q{i}").with_inputs("question") for i in range(6)]
        results = crew().batch(rows, num_threads=3, disable_progress_bar=True)
        assert [result.answer for result in results] == [f"answer(q{i})" for i in range(6)]
        pairs = [(FanOut(a=dspy.Predict("question -> fact"), quorum=1), row) for row in rows]
        found = dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
    assert [result.a.fact for result in found] == [f"fact(q{i})" for i in range(6)]


async def test_streamed() -> None:
    """The last of `streamify` is the result, statuses and all; the last event of `stream` too."""
    fan = FanOut(a=lambda question: question, b=lambda question: 1 // 0, partial=True)
    chunks = [chunk async for chunk in dspy.streamify(fan)(question="q")]
    assert (chunks[-1].a, chunks[-1].statuses["b"].state) == ("q", "failed")
    told = [event async for event in fan.stream(question="q")]
    assert told[-1].result.statuses["b"].state == "failed"


@virtually
async def test_the_event_of_a_join() -> None:
    """It names what is missing, and says whether time was up."""
    told: list[events.Event] = []

    async def good() -> int:
        return 1

    async def bad() -> None:
        raise ValueError("no")

    async def slow() -> None:
        await asyncio.sleep(9)

    async with scope(listen=told.append):
        await Chain(fan=FanOut(a=good, b=bad, c=slow, partial=True, within=0.05)).acall()
        await FanOut(a=good, b=slow, quorum=1).acall()
    joined = [event for event in told if isinstance(event, events.BranchesJoined)]
    assert [(event.path, event.verdict, event.good) for event in joined] == [("fan", "late", 1), ("", "enough", 1)]
    assert [dict(event.missing) for event in joined] == [{"b": "failed", "c": "timeout"}, {"b": "skipped"}]
    ends = [type(event).__name__ for event in told if event.path == "fan/c"]
    assert ends == ["NodeStarted", "NodeCancelled"]


@pytest.mark.parametrize("listen", [(), lambda event: None], ids=["short way", "long way"])
@virtually
async def test_each_branch_is_a_step(listen: Any) -> None:
    """A tool that is used once is used once per branch, item and racer, whatever the rule."""
    sent: list[str] = []

    @escalade.tool(once=True)
    async def send(text: str) -> int:
        """Send."""
        sent.append(text)
        return len(sent)

    tool = escalade.Registry([send], name="outbox").get_tool("send")

    async def twice(x: str = "hello") -> int:
        await tool.acall(text=x)
        number: int = await tool.acall(text=x)
        return number

    branches = {f"b{i}": twice for i in range(3)}
    for pipeline, inputs, calls in (
        (FanOut(branches, quorum=3), {}, 3),
        (FanOut(branches, partial=True), {}, 3),
        (Map(twice, over="xs", item="x", errors="keep"), {"xs": ["hello"] * 4}, 4),
        (Race(branches, stagger=9.0), {}, 1),
    ):
        sent.clear()
        async with scope(listen=listen):
            await pipeline.acall(**inputs)
            await pipeline.acall(**inputs)  # the same steps of the same run
        assert len(sent) == calls


def test_shapes_tell_the_rule() -> None:
    """Whoever draws or estimates finds it in the facts of a shape."""
    shapes = {shape.path: (shape.kind, shape.facts) for shape in shape_of(crew()).walk()}
    assert shapes["team/fast"] == ("race", {"stagger": 9.0})
    assert shapes["team/views"][1]["quorum"] == 1
    assert shapes["team/parts/map"][1]["keep"] is True
