"""Loop: rounds, what they hand over, and that they end."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

import escalade
from escalade import events
from escalade.errors import BadInput, NodeError, NodeTimeout
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.loop import Loop
from escalade.pipelines.node import node
from escalade.pipelines.shape import shape_of
from escalade.registry.idempotency import step_path
from tests.pipelines.offline import offline_lm


async def grow(text: str) -> dict[str, str]:
    return {"text": text + "x"}


def test_rounds_hand_over_to_the_next() -> None:
    """Each round sees what the one before returned, and the inputs; the predicate sees the same."""
    loop = Loop(grow, until=lambda text, size: len(text) >= size, most=10)
    result = loop(text="", size=3)
    assert (result.text, result.rounds, result.ended) == ("xxx", 3, "until")
    assert dict(result.items()) == {"text": "xxx"}


def test_it_ends_at_the_bound() -> None:
    """The last result is returned, or an error is raised, as was said; without a predicate it always runs so often."""
    result = Loop(grow, until=lambda: False, most=3)(text="")
    assert (result.text, result.rounds, result.ended) == ("xxx", 3, "most")
    assert Loop(grow, most=4)(text="").text == "xxxx"
    with pytest.raises(NodeError, match=r"node 'refine/until\[3\]': not true after 3 rounds") as caught:
        Chain(refine=Loop(grow, until=lambda: False, most=3, on_most="raise"))(text="")
    assert caught.value.path == "refine/until[3]"


def test_a_bare_value_takes_the_place_of_the_one_field() -> None:
    """A function of one thing can be repeated as it is; without any, its value is the field `result`."""
    numbers = iter(range(10))

    async def draw() -> int:
        return next(numbers)

    assert Loop(lambda n: n * 2, until=lambda n: n > 50, most=9)(n=1).n == 64
    assert Loop(draw, until=lambda result: result == 4, most=9)().rounds == 5
    with pytest.raises(
        BadInput, match=r"node '\[1\]': it returned 3; which of its fields a, b is that\? Return a dict"
    ):
        Loop(lambda a, b: a + b, most=2)(a=1, b=2)


def test_a_model_writes_and_a_model_judges() -> None:
    """Both are predictors of the loop; what the writer gets are the fields of the round before."""
    asked: list[dict[str, str]] = []

    def says(field: str, inputs: dict[str, str]) -> str:
        return str(inputs["better"].count("+") >= 2) if field == "good" else f"{inputs['draft']}+"

    body, judge = dspy.Predict("task, draft -> better"), dspy.Predict("better -> good: bool")
    loop = Loop(body, until=judge, carry={"better": "draft"}, most=5)
    with dspy.context(lm=offline_lm(says, asked=asked)):
        result = loop(task="write", draft="-")
    assert (result.better, result.rounds) == ("-++", 2)
    assert [name for name, _ in loop.named_predictors()] == ["body", "until"]
    assert [list(inputs.values())[-1] for inputs in asked] == ["-", "-+", "-+", "-++"]


@pytest.mark.parametrize("listen", [[], [lambda event: None]], ids=["short way", "long way"])
async def test_each_round_is_a_step(listen: list[Any]) -> None:
    """The number of the round is in the step of the node and of the predicate, with listeners as without."""
    seen: list[list[Any]] = []

    async def note() -> dict[str, Any]:
        seen.append(step_path())
        return {}

    async def good() -> bool:
        seen.append(step_path())
        return len(seen) > 3

    with escalade.scope(listen=listen):
        await Chain(outer=Loop(Chain(inner=Loop(note, most=1)), until=good, most=5)).acall()
    assert seen == [
        ["outer", 1, "inner", 1],
        ["outer", "until[1]"],
        ["outer", 2, "inner", 1],
        ["outer", "until[2]"],
    ]


def test_events_tell_the_rounds() -> None:
    """Their paths are `refine[2]`, and the shape has one node for all of them."""
    told: list[events.Event] = []
    chain = Chain(refine=Loop(grow, until=lambda text: len(text) == 2, most=5))
    with escalade.scope(listen=told.append):
        chain(text="")
    finished = [event.path for event in told if isinstance(event, events.NodeFinished)]
    assert finished == ["refine[1]", "refine/until[1]", "refine[2]", "refine/until[2]", "refine"]
    assert [one.path for one in shape_of(chain).walk()] == ["", "refine", "refine[*]", "refine/until[*]"]


def test_fields_are_carried_over_under_another_name() -> None:
    """A signature can't have one name for what it takes and gives; a field that isn't there is told."""
    loop = Loop(lambda a: {"b": a + 1, "c": 0}, carry={"b": "a"}, most=3)
    assert dict(loop(a=1).items()) == {"b": 4, "c": 0}
    with pytest.raises(BadInput, match=r"node '\[1\]': it gave no 'x', which is to be carried over as 'a'; it gave: b"):
        Loop(lambda a: {"b": a}, carry={"x": "a"}, most=3)(a=1)


def test_errors_carry_the_round() -> None:
    """What a round raises has its number; a round has its timeout."""

    async def fails(n: int) -> dict[str, int]:
        if n == 3:
            raise ValueError("three")
        return {"n": n + 1}

    async def slow() -> None:
        import asyncio

        await asyncio.sleep(5)

    with pytest.raises(ValueError, match="three") as caught:
        Chain(count=Loop(fails, most=9))(n=1)
    assert caught.value.path == "count[3]"  # type: ignore[attr-defined]
    with pytest.raises(NodeTimeout) as late:
        Loop(slow, most=2, timeout=0.01)()
    assert late.value.path == "[1]"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loop(grow, until=len), "a Loop needs a bound: most="),
        (lambda: Loop(grow, most=0), "1 or more rounds, got 0"),
        (lambda: Loop(grow, most=True), "1 or more rounds, got True"),
        (lambda: Loop(grow, most=2, on_most="stop"), "expected 'return' or 'raise', got 'stop'"),
        (lambda: Loop(grow, most=2, on_most="raise"), "without until="),
        (lambda: Loop(grow, most=2, carry={"a": 1}), "carry: expected names"),
        (lambda: Loop(7, most=2), "expected a dspy.Module or a function, got 7"),
        (lambda: Loop(grow, until=7, most=2), "expected a dspy.Module or a function, got 7"),
    ],
)
def test_bad_loops_are_refused_in_one_line(make: Any, message: str) -> None:
    """A loop without a bound, above all, is refused with a sentence that says what to do."""
    with pytest.raises(BadInput, match=message):
        make()


def test_loops_nest_in_everything() -> None:
    """In a fan-out and in a loop, and a chain or a fan-out is a body."""
    twice = Loop(grow, most=2)
    assert FanOut(a=twice, b=node(twice, timeout=5))(text="").b.text == "xx"
    assert Loop(twice, most=3)(text="").text == "x" * 6
    assert Loop(Chain(grow, grow), until=lambda text: len(text) > 3, most=9)(text="").rounds == 2
    spread = FanOut(a=grow, b=grow, join=lambda a, b: {"text": a["text"] + b["text"]})
    assert Loop(spread, most=3)(text="").text == "x" * 14
