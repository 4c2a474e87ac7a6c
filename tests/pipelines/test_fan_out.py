"""FanOut: branches, joins, concurrency."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import BadInput, NodeError, PermissionDenied
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.pipelines.race import Race
from tests._virtual import virtually
from tests.pipelines.offline import Gauge, offline_lm


async def upper(text: str) -> str:
    return text.upper()


def size(text: str) -> int:
    return len(text)


def test_one_field_per_branch() -> None:
    """The result is a Prediction with the branches' results under their names, in the order they were given."""
    result = FanOut({"up": upper}, n=size)(text="abc")
    assert isinstance(result, dspy.Prediction)
    assert list(result.items()) == [("up", "ABC"), ("n", 3)]


@virtually
async def test_branches_run_at_the_same_time() -> None:
    """Ten branches of 50 ms take little more than 50 ms."""

    async def nap() -> None:
        await asyncio.sleep(0.05)

    started = time.perf_counter()
    await FanOut({f"b{i}": nap for i in range(10)}).acall()
    assert time.perf_counter() - started == pytest.approx(0.05)


@virtually
async def test_no_barrier_between_branches() -> None:
    """A branch's second step begins when its first is done, not when all first steps are."""

    def nap(seconds: float) -> Any:
        async def step() -> None:
            await asyncio.sleep(seconds)

        return step

    fan = FanOut(a=Chain(x=nap(0.02), y=nap(0.2)), b=Chain(x=nap(0.2), y=nap(0.02)))
    started = time.perf_counter()
    await fan.acall()
    assert time.perf_counter() - started == pytest.approx(0.22)  # supersteps would take 0.4


def test_join_by_name_gets_results_and_inputs() -> None:
    """A join names what it wants: branches and inputs."""
    fan = FanOut(up=upper, n=size, join=lambda text, up, n: {"all": f"{text}{up}{n}"})
    assert fan(text="ab").all == "abAB2"


def test_join_of_one_unknown_parameter_gets_all_results() -> None:
    """`join=merge` with `def merge(results)` works without naming the branches."""
    assert FanOut(up=upper, n=size, join=lambda results: results)(text="ab").up == "AB"
    assert FanOut(up=upper, n=size, join=lambda **results: sorted(results))(text="ab").join == ["n", "up"]


def test_a_coordinator_reads_the_branches_as_text() -> None:
    """A predictor as join gets a branch's one field as it is, and several as lines: no repr of a Prediction."""
    asked: list[dict[str, str]] = []
    lm = offline_lm(asked=asked)
    fan = FanOut(
        search=dspy.Predict("question -> found"),
        analysis=dspy.ChainOfThought("question -> answer"),
        join=dspy.Predict("search, analysis, question -> verdict"),
    )
    with dspy.context(lm=lm):
        result = fan(question="why")
    last = asked[-1]
    assert last["search"] == "found(why)"
    assert last["analysis"] == "reasoning: reasoning(why)\nanswer: answer(why)"
    assert result.verdict.startswith("verdict(")


def test_a_failing_join_is_named() -> None:
    """The path of a join is `join`."""
    with pytest.raises(NodeError) as caught:
        FanOut(up=upper, join=lambda up: 1 / 0)(text="a")
    assert caught.value.path == "join"
    assert isinstance(caught.value, ZeroDivisionError)
    with pytest.raises(BadInput, match="node 'join': it needs"):
        FanOut(up=upper, join=lambda nothing, other: 0)(text="a")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (FanOut, "at least one branch"),
        (lambda: FanOut(upper, size), r"branches have names: FanOut\(facts="),
        (lambda: Race(upper, size), r"branches have names: Race\(facts="),
        (lambda: FanOut(a=node(node(upper, timeout=1), retry=1)), "this is a node already"),
        (lambda: FanOut(a=node(upper, principal="ana")), "principal of 'node': expected a Principal"),
        (lambda: Map(upper, over=["a", "b"]), "over is the name of the input"),
        (lambda: FanOut({1: upper}), "node name 1: expected letters"),
        (lambda: FanOut({"a": upper}, a=size), "two branches are named 'a'"),
        (lambda: FanOut({"join": upper}, join=size), "no branch can be named 'join'"),
        (lambda: FanOut(a=upper, timeouts={"b": 1.0}), "no branch is named 'b'"),
        (lambda: FanOut(a=upper, concurrency=0), "concurrency: expected 1 or more"),
        (lambda: FanOut(a=upper)(words="x"), "node 'a': it needs 'text'; the call gave: words"),
    ],
)
def test_bad_fan_outs_are_refused_in_one_line(make: Any, message: str) -> None:
    """What can't be a fan-out, or can't be called so, is refused with a sentence."""
    with pytest.raises(BadInput, match=message):
        make()


@given(n=st.integers(1, 40), limit=st.integers(1, 12), blocking=st.booleans())
def test_concurrency_is_never_exceeded_and_order_is_kept(n: int, limit: int, blocking: bool) -> None:
    """However many branches, at most `limit` run at once, each once, and results stand under their own names."""
    gauge = Gauge()

    def branch(i: int) -> Any:
        def work() -> int:
            with gauge.inside():
                return i

        async def awork() -> int:
            with gauge.inside():
                await asyncio.sleep(0.0001 * (i % 3))
                return i

        return work if blocking else awork

    result = FanOut({f"b{i}": branch(i) for i in range(n)}, concurrency=limit)()
    assert list(result.values()) == list(range(n))
    assert gauge.most <= limit
    assert gauge.entered == n


def test_blocking_branches_have_their_own_threads_within_a_limit() -> None:
    """100 blocking branches run on at most 64 threads of ours, none of them asyncio's."""
    gauge, names = Gauge(), set()

    def block() -> None:
        with gauge.inside():
            names.add(threading.current_thread().name)
            time.sleep(0.01)

    FanOut({f"b{i}": block for i in range(100)})()
    assert gauge.entered == 100
    assert 1 < gauge.most <= 64
    assert all(name.startswith("escalade-node") for name in names)


def test_a_module_that_takes_a_branchs_place_is_used() -> None:
    """Optimisers put other modules in place; the pipeline looks at them anew."""
    fan = FanOut(a=upper)
    assert fan(text="x").a == "X"
    fan.branches["a"] = size
    assert fan(text="x").a == 1
    fan.branches["b"] = upper
    assert list(fan(text="x").keys()) == ["a", "b"]


@pytest.mark.parametrize("more", [{}, {"timeout": 5.0}, {"concurrency": 3}])
async def test_what_has_not_begun_when_a_branch_fails_never_begins(more: dict[str, Any]) -> None:
    """A branch that fails at once, such as one that may not use its tool, keeps those after it from being paid."""
    began: list[str] = []

    async def denied() -> None:
        raise PermissionDenied("no")

    async def paid() -> None:
        began.append("paid")

    with pytest.raises(PermissionDenied) as caught:
        await FanOut(denied=denied, paid=paid, later=paid, **more).acall()
    assert began == []
    assert caught.value.path == "denied"
    await FanOut(paid=paid).acall()
    assert began == ["paid"], "one call's failure is its own"
