"""Under pressure: optional nodes are left out before they start, the dearest first, and required ones are paid."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade import BudgetExceeded, Chain, FanOut, Gateway, Model, Money, Price, events, node
from tests._virtual import virtually
from tests.pipelines.test_estimate import Long, ask
from tests.pipelines.test_journal_hook import Kept

QUESTION = "what is it?"


def gateway(name: str, **options: Any) -> Gateway:
    """Models "1" to "9": the n-th costs n times the first; all take the tokens that they may."""
    carry: Any = Long()
    models = [
        Model(str(n), f"long/{n}", carry, price=Price.of(str(n), str(2 * n)), max_output=50, context=4000, **options)
        for n in range(1, 10)
    ]
    return Gateway(models, name=name)


def asking(found: Gateway, model: int) -> dspy.Predict:
    """A predictor of its own model."""
    made = ask()
    made.lm = found.lm(str(model), cache=False)
    return made


def price(found: Gateway, model: int) -> int:
    """What a call of the model holds."""
    estimate = Chain(only=asking(found, model)).estimate(question=QUESTION)
    assert estimate.most is not None
    return estimate.most


def billed(found: Gateway, model: int) -> int:
    """What a call of the model really costs."""
    with escalade.scope(budget="1.00") as scope:
        asking(found, model)(question=QUESTION)
    return int(scope.spent)


def skipped(heard: list[events.Event]) -> dict[str, str]:
    return {event.path: event.why for event in heard if isinstance(event, events.NodeSkipped)}


@settings(max_examples=60, deadline=None)
@given(
    branches=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=5), share=st.floats(0.05, 1.2)
)
def test_required_branches_are_paid_first(branches: list[tuple[int, bool]], share: float) -> None:
    """A required branch is refused for money only when without any optional one it would be, too; what is left out
    never begins and costs nothing; as many optional ones are kept as there is money for.
    """
    found = gateway("first")
    prices = [price(found, model) for model, _ in branches]
    required = sum(cost for cost, (_, optional) in zip(prices, branches, strict=True) if not optional)
    budget = int(sum(prices) * share)
    fan = FanOut({f"b{k}": node(asking(found, model), optional=free) for k, (model, free) in enumerate(branches)})
    heard: list[events.Event] = []
    try:
        with escalade.scope(budget=Money(budget), listen=heard.append) as scope:
            result = fan(question=QUESTION)
    except BudgetExceeded:
        assert required > budget
        return
    gone = {int(name[1:]) for name in skipped(heard)}
    begun = {event.path for event in heard if isinstance(event, events.NodeStarted)}
    assert begun == {f"b{k}" for k in range(len(branches)) if k not in gone}
    assert scope.spent == sum(billed(found, model) for k, (model, _) in enumerate(branches) if k not in gone)
    most = _most_kept(sorted(cost for cost, (_, free) in zip(prices, branches, strict=True) if free), budget - required)
    assert sum(free for _, free in branches) - len(gone) == most
    if any(free for _, free in branches):
        assert {name for name, status in result.statuses.items() if not status.ok} == {f"b{k}" for k in gone}


def _most_kept(prices: list[int], left: int) -> int:
    kept = 0
    for cost in prices:
        left -= cost
        kept += left >= 0
    return kept


def test_the_dearest_goes_first_then_the_last() -> None:
    """And it is told why."""
    found = gateway("dearest")
    costs = {model: price(found, model) for model in (1, 2, 3)}
    fan = FanOut(
        a=node(asking(found, 2), optional=True),
        b=node(asking(found, 3), optional=True),
        c=node(asking(found, 2), optional=True),
        d=asking(found, 1),
    )
    for budget, gone in ((costs[1] + 2 * costs[2], ["b"]), (costs[1] + costs[2], ["b", "c"]), (costs[1], list("abc"))):
        with escalade.scope(budget=Money(budget)):
            statuses = fan(question=QUESTION).statuses
        assert [name for name, status in statuses.items() if status.state == "skipped"] == gone
    took, needed = Money(costs[3]), Money(costs[1])
    said = f"BudgetExceeded: not begun: it takes {took}, the nodes that are needed {needed}, and {needed} is left"
    assert statuses["b"].why == said
    assert (statuses["b"].cost, statuses["b"].seconds < 1) == (0, True)


def test_the_join_and_the_later_steps_are_kept_money() -> None:
    """What runs after an optional node, in the same pipeline, is required too."""
    found = gateway("later")

    one, two = price(found, 1), price(found, 2)
    join = asking(found, 2)
    fan = FanOut(extra=node(asking(found, 1), optional=True), main=lambda question: question, join=join)
    chain = Chain(extra=node(asking(found, 1), optional=True), main=asking(found, 2))
    for pipeline in (fan, chain):
        with escalade.scope(budget=Money(one + two)) as scope:
            pipeline(question=QUESTION)
        assert scope.spent == billed(found, 1) + billed(found, 2)
        heard: list[events.Event] = []
        with escalade.scope(budget=Money(one + two - 1), listen=heard.append) as scope:
            pipeline(question=QUESTION)
        assert scope.spent == billed(found, 2)
        assert list(skipped(heard)) == ["extra"]


@virtually
async def test_what_comes_after_is_kept_time() -> None:
    """An optional node isn't begun when it and what follows it usually take longer than there is."""

    async def slow(x: int) -> int:
        await asyncio.sleep(0.06)
        return x

    async def slower(x: int) -> str:
        await asyncio.sleep(0.1)
        return "done"

    chain = Chain(extra=node(slow, optional=True), last=slower)
    fan = FanOut(extra=node(slow, optional=True), main=lambda x: x, join=slower)
    for pipeline in (chain, fan):
        for _ in range(5):
            with escalade.scope(deadline=9.0):
                await pipeline.acall(x=1)
        heard: list[events.Event] = []
        with escalade.scope(deadline=0.14, listen=heard.append):
            await pipeline.acall(x=1)
        assert "what comes after it 0.1" in skipped(heard)["extra"]


async def test_a_fallback_answers_at_once_where_there_is_money_for_it_alone() -> None:
    """The node isn't begun, which is told; without money for the fallback either it is tried, and refused."""
    found = gateway("instead")
    chain = Chain(answer=node(asking(found, 9), fallback=asking(found, 1)))
    heard: list[events.Event] = []
    with escalade.scope(budget=Money(price(found, 1)), listen=heard.append) as scope:
        assert (await chain.acall(question=QUESTION)).answer
    assert scope.spent == billed(found, 1)
    (instead,) = [event for event in heard if isinstance(event, events.NodeFellBack)]
    assert instead.error.startswith("BudgetExceeded: not begun: it usually costs")
    with pytest.raises(BudgetExceeded), escalade.scope(budget=Money(billed(found, 1) // 2)):
        await chain.acall(question=QUESTION)


@virtually
async def test_a_fallback_answers_at_once_where_there_is_time_for_it_alone() -> None:
    """What the node usually takes is known after five runs."""
    begun: list[int] = []

    async def slow(x: int) -> str:
        begun.append(x)
        await asyncio.sleep(0.06)
        return "slow"

    async def quick(x: int) -> str:
        return "quick"

    chain = Chain(answer=node(slow, fallback=quick))
    for _ in range(5):
        assert (await chain.acall(x=1)).answer == "slow"
    with escalade.scope(deadline=0.05):
        assert (await chain.acall(x=1)).answer == "quick"
    assert len(begun) == 5


async def test_a_durable_run_that_is_taken_up_again_keeps_what_it_had() -> None:
    """An optional step that was finished is not left out, however little is left; one that wasn't is."""
    begun: list[int] = []

    async def extra(x: int) -> int:
        begun.append(x)
        escalade.scopes.require().purse.reserve(50_000_000).settle(50_000_000)
        return x

    def last(extra: int = 0) -> int:
        return extra

    chain = Chain(extra=node(extra, optional=True), last=last)
    for _ in range(5):
        with escalade.scope(budget="1.00"):
            await chain.acall(x=1)
    journal: Any = Kept()
    for budget, said in (("0.01", 0), ("1.00", 7), ("0.01", 7)):
        journal.steps.pop(("last",), None)
        with escalade.scope(budget=budget) as scope:
            with dspy.context(escalade=dataclasses.replace(scope, journal=journal)):
                assert (await chain.acall(x=7)).last == said
    assert len(begun) == 6


def test_it_costs_nothing_where_nothing_is_optional() -> None:
    """Not even the import."""
    code = (
        "import sys, escalade\n"
        "with escalade.scope(budget='1.00', deadline=9):\n"
        "    escalade.FanOut(a=lambda x: x, b=lambda x: x)(x=1), escalade.Chain(lambda x: x)(x=1)\n"
        "assert 'escalade.pipelines.options.pressure' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
