"""Estimates: no run costs more than the most that was said before, and what can't be known isn't taken for nothing."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import re
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade import (
    BadInput,
    Branch,
    BudgetExceeded,
    Chain,
    Constant,
    Escalate,
    FanOut,
    Gateway,
    Loop,
    Map,
    Model,
    Money,
    Price,
    Race,
    ToolAgent,
    node,
)
from escalade.agents.models import prompt_size
from escalade.agents.transports import CHAT_PARAMS

PRICE = Price.of("1.00", "2.00")


class Long:
    """A transport whose answers take all the tokens that they may; a byte of the prompt is a token."""

    name = "long"
    supports_function_calling = supports_response_schema = supports_reasoning = False
    supported_params = CHAT_PARAMS

    def complete(self, request: Any) -> Response:
        said = "[[ ## answer ## ]]\n" + "x" * 30 + "\n\n[[ ## completed ## ]]"
        return Response(
            id="1",
            model=request.model,
            message=Message.assistant([TextPart(said)]),
            finish_reason="stop",
            usage=Usage(input_tokens=prompt_size(request) - 64, output_tokens=request.config.max_tokens),
        )

    async def acomplete(self, request: Any) -> Response:
        await asyncio.sleep(0)
        return self.complete(request)


def gateway(name: str, **options: Any) -> Gateway:
    options = {"max_output": 50, "context": 4000, "timeout": 10.0, **options}
    return Gateway([Model("m", "long/m", Long(), price=PRICE, **options)], name=name)


def ask(signature: str = "question -> answer") -> dspy.Predict:
    return dspy.Predict(signature)


def free(question: str) -> str:
    """A function that gives no fields, so that the call's question stays known."""
    return question


QUESTION = "what is it? " * 5


def graphs() -> Any:
    """What builds a graph of predictors that take a question: answers only hide what they are called."""
    leaf = st.sampled_from([ask, lambda: free])

    def more(inner: Any) -> Any:
        nodes = st.lists(inner, min_size=1, max_size=3)
        return (
            st.builds(lambda all_: lambda: Chain(**{f"s{k}": one() for k, one in enumerate(all_)}), nodes)
            | st.builds(lambda all_: lambda: FanOut({f"b{k}": one() for k, one in enumerate(all_)}), nodes)
            | st.builds(lambda all_: lambda: Race({f"r{k}": one() for k, one in enumerate(all_)}), nodes)
            | st.builds(lambda body, most: lambda: Loop(body(), most=most), inner, st.integers(1, 3))
            | st.builds(lambda a, b: lambda: Branch(lambda question: "a", a=a(), b=b()), inner, inner)
            | st.builds(lambda one, tries: lambda: Chain(only=node(one(), retry=tries)), inner, st.integers(1, 2))
        )

    return st.recursive(leaf, more, max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(build=graphs(), times=st.integers(0, 3))
def test_no_run_costs_more(build: Any, times: int) -> None:
    """Whatever the graph, as it is and mapped over a list, a run stays within the most, and with it as a budget."""
    graph = Chain(first=build())
    with dspy.context(lm=gateway("estimated").lm("m", cache=False)):
        for pipeline, inputs in (
            (graph, {"question": QUESTION}),
            (Map(graph, over="questions", item="question"), {"questions": [QUESTION] * times}),
        ):
            found = pipeline.estimate(inputs)
            assert found.most is not None
            assert found.needed <= found.most
            assert found.usual is not None
            with escalade.scope(budget=Money(found.most)) as scope:
                pipeline(**inputs)
            assert scope.spent <= found.most


def test_a_prompt_that_another_node_makes_may_fill_the_context() -> None:
    """What is known bounds a prompt; what is not is bounded by the model's context, or not at all."""
    chain = Chain(draft=ask("question -> draft"), check=ask("draft -> verdict"))
    with dspy.context(lm=gateway("context").lm("m")):
        first, second = chain.estimate(question="why?").nodes
        assert first.most is not None
        assert second.most == int(PRICE.most(4000, 50))
        assert first.most < second.most
        assert second.note == "prompt of up to 4,000 tokens"
    with dspy.context(lm=gateway("endless", context=None).lm("m")):
        found = chain.estimate(question="why?")
        assert found.most is None
        assert "check: model 'm' has no context=, so a long prompt may cost anything" in found.notes
        with pytest.raises(BudgetExceeded, match=r"nobody knows what the run may cost.*node 'check'.*no context="):
            found.require("100.00")


def test_a_budget_bounds_what_is_unknown() -> None:
    """A node's own dollars are the most that it may cost, also of a module that nobody can look into."""

    class Own(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ask = ask()

        async def aforward(self, question: str) -> Any:
            return await self.ask.acall(question=question)

    unknown = Chain(own=Own()).estimate(question="why?")
    assert (unknown.most, unknown.notes) == (None, ["own: calls its models as often as its code says"])
    bounded = Chain(own=node(Own(), budget="0.02", retry=2)).estimate(question="why?")
    assert bounded.most == Money.of("0.02")
    assert bounded.require("0.02") is bounded


@escalade.tool(name="web.buy", cost="0.01", side_effects="irreversible")
def buy(question: str) -> str:
    """Buys it."""
    return question


BUY = escalade.Registry([buy]).get_tool("web.buy")


def helper(question: str) -> str:
    return str(BUY(question=question))


class Shop:
    """An object of the user's, with a tool somewhere in it."""

    def __init__(self) -> None:
        self.tools = {"buy": [BUY]}

    def __call__(self, question: str) -> str:
        return str(self.tools["buy"][0](question=question))


class Wrapped(dspy.Module):
    """A module without predictors, whose code calls a function."""

    async def aforward(self, question: str) -> str:
        return helper(question)


class Words:
    """An object of the user's that uses nothing."""

    stop = frozenset({"the", "a"})

    def count(self, question: str) -> int:
        return len([word for word in json.loads(question) if word not in self.stop])


@pytest.mark.parametrize(
    "target",
    [
        lambda question: BUY(question=question),
        lambda question: [helper(one) for one in question],
        functools.partial(lambda tool, question: tool(question=question), BUY),
        Shop(),
        Shop().__call__,
        Wrapped(),
        lambda question: dspy.Predict("question -> answer")(question=question),
        lambda question: dspy.settings.lm(question)[0],
        lambda question: escalade.Registry([buy]).get_tool("web.buy")(question=question),
    ],
)
def test_a_function_that_uses_a_tool_or_a_model_is_unknown(target: Any) -> None:
    """It costs what its code makes of it: nobody knows, so no budget is surely enough, unless it has its own."""
    found = Chain(pay=node(target, name="pay")).estimate(question="why?")
    assert (found.usual, found.most) == (None, None)
    with pytest.raises(BudgetExceeded, match=r"nobody knows .*: node 'pay': its code uses .*give it a budget="):
        found.require("0.001")
    bounded = node(target, name="pay", budget="0.02")
    assert Chain(pay=bounded).estimate(question="why?").require("0.02").most == Money.of("0.02")


@pytest.mark.parametrize(
    "target", [Words().count, lambda question: dspy.Prediction(text=re.sub("a", "b", question)), len, dspy.majority]
)
def test_a_function_that_uses_neither_is_free(target: Any) -> None:
    """Libraries, objects and helpers that use no tool and no model cost nothing."""
    found = Chain(words=node(target, name="words")).estimate(question="why?")
    assert (found.most, found.notes) == (0, ["words: its own code: taken to cost nothing"])


def test_what_cannot_fit_is_refused() -> None:
    """A node that would be refused for sure; a most that is too much where nothing is optional; a deadline."""
    with dspy.context(lm=gateway("fits").lm("m")):
        sure = FanOut(a=ask(), b=ask()).estimate(question="why?")
        assert sure.most is not None
        with pytest.raises(BudgetExceeded, match="node 'a' alone holds"):
            sure.require(Money(sure.needed - 1))
        with pytest.raises(BudgetExceeded, match=r"the run may cost .*, and the budget is .*; most of it is node 'a'"):
            sure.require(Money(sure.most - 1))
        sure.require(Money(sure.most), deadline=10)
        with pytest.raises(BadInput, match="doesn't fit a deadline of 9 s: it may take 10 s"):
            sure.require(deadline=9)
        some = FanOut(a=ask(), b=node(ask(), optional=True)).estimate(question="why?")
        assert some.require(Money(sure.most - 1), deadline=1) is some
    with pytest.raises(BadInput, match="nothing ends it, and no node is optional"):
        Chain(free).estimate(question="why?").require(deadline=1)


def test_times() -> None:
    """Seconds: in turn, side by side, in rounds, with retries and staggered starts."""
    slow = node(free, timeout=2.0, name="slow")

    def limit(pipeline: Any, **more: Any) -> float | None:
        seconds: float | None = pipeline.estimate(question="why?", **more).seconds
        return seconds

    assert limit(Chain(a=slow, b=slow)) == 4
    assert limit(FanOut(a=slow, b=node(free, timeout=3.0))) == 3
    assert limit(FanOut({f"b{k}": slow for k in range(4)}, concurrency=2)) == 5
    assert limit(Race(a=slow, b=slow, stagger=1.5)) == 3.5
    assert limit(Loop(slow, most=5)) == 10
    assert limit(FanOut(a=free, partial=True, within=4.0)) == 4
    assert limit(Map(slow, over="xs", item="question", concurrency=2), sizes={"xs": 5}) == 6
    assert limit(Map(slow, over="xs", item="question")) is None
    assert limit(Chain(a=free)) is None


def test_climbs_agents_and_tools() -> None:
    """A climb may try each rung once; an agent says itself; a tool costs what it says."""

    @escalade.tool(name="web.find", cost="0.001", side_effects="read")
    def find(question: str) -> str:
        """Looks it up."""
        return question

    models = gateway("climbs")
    registry = escalade.Registry([find])
    climb = Escalate("question -> answer", rungs=["m", ("ChainOfThought", "m")], policy=Constant(0), gateway=models)
    agent = ToolAgent("question -> answer", tools=["web.find"], model="m", registry=registry, gateway=models)
    graph = FanOut(climb=climb, agent=agent, tool=registry.get_tool("web.find"))
    found = {one.path: one for one in graph.estimate(question="why?").nodes}
    bills = climb.bills({"question": "why?"})
    assert found["climb"].usual == bills[0][0]
    assert found["climb"].most == sum(most for _, most in bills)  # type: ignore[misc]
    assert found["agent"].most is not None
    assert (found["tool"].usual, found["tool"].most) == (Money.of("0.001"), Money.of("0.001"))
    later = Chain(words=ask("topic -> question"), climb=climb).estimate(topic="it").nodes[1]
    assert later.most == 2 * int(PRICE.most(4000, 50))


def test_sizes() -> None:
    """How many items a map has: its list, or a number by name or path; a size of no map is a mistake."""
    graph = Chain(spread=Map(ask(), over="xs", item="question"))
    with dspy.context(lm=gateway("sizes").lm("m")):
        assert graph.estimate().nodes[0].times is None
        assert "say how many with sizes=" in graph.estimate().nodes[0].note
        assert graph.estimate(xs=[1, 2]).nodes[0].times == 2
        assert graph.estimate(sizes={"xs": 7}).nodes[0].times == 7
        assert graph.estimate(sizes={"spread": 8}).nodes[0].times == 8
        with pytest.raises(BadInput, match="no map runs over 'ys'; those that are: xs"):
            graph.estimate(sizes={"ys": 1})
        for wrong in ({"xs": -7}, {"xs": [1, 2]}, 40):
            with pytest.raises(BadInput, match="sizes: expected"):
                graph.estimate(sizes=wrong)  # type: ignore[arg-type]


def test_as_data_and_as_a_table() -> None:
    """It can be kept as JSON, and read in a terminal."""
    from rich.console import Console

    found = Chain(read=free, count=node(len, optional=True)).estimate(question="why?")
    told = found.as_dict()
    assert [one["path"] for one in told["nodes"]] == ["read", "count"]
    assert told["most"] == 0
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    assert "count (optional)" in text
    assert "its own code: taken to cost nothing" in text


def test_what_has_another_way_is_not_refused_for_sure() -> None:
    """A node with a fallback or with kept results may do without what its call would hold."""
    with dspy.context(lm=gateway("another").lm("m")):
        assert Chain(a=ask()).estimate(question="why?").needed > 0
        assert Chain(a=node(ask(), fallback=lambda question: {"answer": ""})).estimate(question="why?").needed == 0
        assert Chain(a=node(Chain(ask()), cache=True)).estimate(question="why?").needed == 0
        Chain(a=node(ask(), fallback=ask())).estimate(question="why?").require(budget="1.00")
