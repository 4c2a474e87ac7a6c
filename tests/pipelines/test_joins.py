"""Joins: a quorum, the first k, a predicate, what is there in time; folds, votes, coordinators; a status for each."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
from typing import Any

import dspy
import pytest

from escalade import events, scopes
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, JoinFailed, NodeError, NodeTimeout
from escalade.money import Money
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.joined import Joined
from escalade.pipelines.joins import BranchStatus
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.pipelines.race import Race
from escalade.registry.opening import scope
from tests._virtual import virtually
from tests.pipelines.offline import Gauge, after, no_task_left, offline_lm

CENT = 10_000_000


def paying(amount: int, seconds: float = 0.0, value: Any = 1) -> Any:
    """The same, after it has paid."""

    async def branch() -> Any:
        scopes.require().purse.reserve(amount, "a branch").settle(amount)
        return await after(seconds, value)()

    return branch


def states(result: Any) -> dict[Any, str]:
    return {name: status.state for name, status in result.statuses.items()}


@virtually
async def test_a_quorum() -> None:
    """Two good results of four are enough: a failure is a status, who is still at work is cancelled."""
    with no_task_left():
        result = await FanOut(
            a=after(0.01, "a"), b=after(0.02, ValueError("no")), c=after(0.03, "c"), d=after(9), quorum=2
        ).acall()
    assert dict(result.items()) == {"a": "a", "b": None, "c": "c", "d": None}
    assert states(result) == {"a": "ok", "b": "failed", "c": "ok", "d": "cancelled"}
    assert isinstance(result.statuses["b"].error, ValueError)
    assert result.statuses["b"].error.path == "b"
    assert 0.025 < result.statuses["d"].seconds < 5
    assert list(result.missing) == ["b", "d"]


@virtually
async def test_a_quorum_that_cannot_come_is_told_at_once() -> None:
    """Three of four are needed and two have failed: no waiting for the others, which are cancelled."""
    began = time.perf_counter()
    with no_task_left(), pytest.raises(JoinFailed) as caught:
        await FanOut(
            a=after(9), b=after(0.01, ValueError("one")), c=after(0.02, KeyError("two")), d=after(9), quorum=3
        ).acall()
    assert time.perf_counter() - began < 1
    assert list(caught.value.causes) == ["b", "c"]
    assert states(caught.value) == {"a": "cancelled", "b": "failed", "c": "failed", "d": "cancelled"}
    assert str(caught.value).startswith("0 of 4 ended well, 3 needed (quorum=3): b: failed after 0.0")
    assert "ValueError: one" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


@virtually
async def test_the_first_ones_only() -> None:
    """`first` takes exactly so many, in the order in which they end."""
    result = await FanOut(a=after(9), b=after(0.02, "b"), c=after(0.01, "c"), first=2).acall()
    assert dict(result.items()) == {"a": None, "b": "b", "c": "c"}


@virtually
async def test_what_ends_well_though_it_is_cancelled() -> None:
    """A branch that answers its cancellation with what it has got is in a quorum's result, which it was paid for; not
    in that of `first`.
    """

    async def hasty() -> str:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            return "half of it"
        return "all of it"

    taken = await FanOut(a=after(0.01), b=hasty, quorum=1).acall()
    assert (taken.b, states(taken)["b"]) == ("half of it", "ok")
    left = await FanOut(a=after(0.01), b=hasty, first=1).acall()
    assert (left.b, states(left)["b"]) == (None, "cancelled")
    late = await FanOut(a=after(0.01), b=hasty, partial=True, within=0.1).acall()
    assert (late.b, states(late)["b"]) == ("half of it", "ok")


@virtually
async def test_until_a_predicate_holds() -> None:
    """`until` is asked as each result arrives, with those so far by name."""
    seen: list[dict[str, Any]] = []

    def enough(results: Any) -> bool:
        seen.append(dict(results))
        return sum(results.values()) >= 5

    result = await FanOut(a=after(0.01, 2), b=after(0.02, 3), c=after(9, 4), until=enough).acall()
    assert seen == [{"a": 2}, {"a": 2, "b": 3}]
    assert result.c is None
    with pytest.raises(JoinFailed, match="2 of 3 ended well, until= did not hold: c: failed"):
        await FanOut(a=after(0, 1), b=after(0, 1), c=after(0, ValueError("x")), until=enough).acall()


@virtually
async def test_a_predicate_that_fails_is_an_error() -> None:
    """What `until` raises is raised, under its name, and nothing is left at work."""
    with no_task_left(), pytest.raises(ZeroDivisionError) as caught:
        await FanOut(a=after(0.01), b=after(9), until=lambda results: 1 / 0).acall()
    assert caught.value.path == "until"


@virtually
async def test_what_is_there_in_time() -> None:
    """`partial` with `within`: what has ended well by then; the others say why they are missing."""
    result = await FanOut(
        a=after(0.01, "a"), b=after(9), c=after(0.01, ValueError("no")), partial=True, within=0.15
    ).acall()
    assert dict(result.items()) == {"a": "a", "b": None, "c": None}
    assert states(result) == {"a": "ok", "b": "timeout", "c": "failed"}
    assert str(result.missing["b"]).endswith("time was up")


@pytest.mark.parametrize("nested", [False, True])
@virtually
async def test_what_is_there_at_the_deadline(nested: bool) -> None:
    """Without `within` the deadline of the scope counts, also for what is around the fan-out and has the same one."""
    fan: Any = FanOut(a=after(0.01, "a"), b=after(9), partial=True)
    pipeline = Chain(x=Chain(y=fan)) if nested else fan
    async with scope(deadline=0.4) as here:
        result = await pipeline.acall()
        assert here.time_left() > -0.3  # some 0.05 s, on a machine that does nothing else
    assert (result.a, result.b) == ("a", None)
    assert states(result) == {"a": "ok", "b": "timeout"}


@virtually
async def test_partial_ends_when_all_have() -> None:
    """There is no waiting for a deadline when nobody is at work any more; failures are statuses."""
    began = time.perf_counter()
    result = await FanOut(a=after(0.01), b=after(0.02, ValueError("no")), partial=True, within=9).acall()
    assert time.perf_counter() - began < 1
    assert states(result) == {"a": "ok", "b": "failed"}


@pytest.mark.parametrize(
    ("least", "branches", "message"),
    [
        (1, {"a": after(0, ValueError("x")), "b": after(0, ValueError("y"))}, "0 of 2 ended well, 1 needed"),
        (2, {"a": after(0), "b": after(0.01, ValueError("y")), "c": after(9)}, None),
        (2, {"a": after(0), "b": after(9), "c": after(9)}, "1 of 3 ended well, 2 needed"),
        (2, {"a": after(9), "b": after(0, ValueError("y")), "c": after(0, KeyError("z"))}, "0 of 3 ended well, 2"),
    ],
)
@virtually
async def test_at_least_so_many(least: int, branches: dict[str, Any], message: str | None) -> None:
    """With fewer good results than `least` a partial result is an error, which lists all failures."""
    fan = FanOut(branches, partial=True, within=0.1, least=least)
    with no_task_left(), pytest.raises(JoinFailed, match=message or "1 of 3 ended well, 2 needed") as caught:
        await fan.acall()
    assert set(caught.value.statuses) == set(branches)
    empty = await FanOut(a=after(0, ValueError("x")), partial=True, least=0).acall()
    assert dict(empty.items()) == {"a": None}


async def test_a_quorum_or_what_is_there() -> None:
    """Both: it ends early with a quorum, and where that can't come, with what there is."""
    some = await FanOut(a=after(0), b=after(0), c=after(9), quorum=2, partial=True, within=5).acall()
    assert states(some)["c"] == "cancelled"
    few = await FanOut(a=after(0), b=after(0, ValueError("x")), quorum=2, partial=True, within=5).acall()
    assert states(few) == {"a": "ok", "b": "failed"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: FanOut(a=f, quorum=2), "quorum: expected 1 to 1, the number of branches, got 2"),
        (lambda f: FanOut(a=f, quorum=0), "quorum: expected 1 to 1"),
        (lambda f: FanOut(a=f, quorum=True), "quorum: expected a number of branches, got True"),
        (lambda f: FanOut(a=f, b=f, quorum=1, first=1), "quorum and first: one of them says"),
        (lambda f: FanOut(a=f, first=1, until=bool), "first and until: one of them says"),
        (lambda f: FanOut(a=f, until=f), "until: expected a function of the results so far, not async"),
        (lambda f: FanOut(a=f, within=1.0), "within= is for partial=True; a time limit that raises is timeout="),
        (lambda f: FanOut(a=f, least=1), "least= is for partial=True"),
        (lambda f: FanOut(a=f, partial=True, within=0), "within: expected more than 0 seconds"),
        (lambda f: FanOut(a=f, partial=True, least=2), "least: expected 0 to 1"),
        (lambda f: FanOut(a=f, partial="yes"), "partial: expected True or False, got 'yes'"),
        (lambda f: FanOut(a=f, reduce=3), "reduce: expected a function"),
        (lambda f: FanOut(a=f, initial=3), "there is no reduce="),
        (lambda f: FanOut(a=f, join=f, reduce=lambda all_, name, one: one), "join= and reduce= both make the result"),
        (lambda f: Map(f, errors="ignore"), "errors: expected 'raise' or 'keep'"),
        (lambda f: Map(f, quorum=-1), "quorum: expected 1 or more, got -1"),
        (lambda f: Race(), "a Race needs at least one branch"),
        (lambda f: Race(a=f, stagger=0), "stagger: expected more than 0 seconds"),
        (lambda f: Race({"a": f}, a=f), "two branches are named 'a'"),
    ],
)
def test_joins_that_make_no_sense_are_refused_when_built(make: Any, message: str) -> None:
    """One sentence, and nothing runs."""

    async def branch() -> None: ...

    with pytest.raises(BadInput, match=message):
        make(branch)


def test_a_branch_may_have_the_name_of_an_option() -> None:
    """A function can't be a number, so it is a branch; and a dict takes any name."""
    assert FanOut(first=lambda: 1, least=lambda: 2, a=lambda: 0)() == dspy.Prediction(a=0, first=1, least=2)
    assert FanOut({"until": lambda: 1, "reduce": lambda: 2})().until == 1


async def test_a_join_over_what_is_there() -> None:
    """By name, what is missing is None; as one dict or as keywords, it isn't there; a model reads why."""
    branches = {"a": after(0, "A"), "b": after(0, ValueError("x"))}
    assert (await FanOut(branches, partial=True, join=lambda a, b: f"{a}{b}").acall()).join == "ANone"
    assert (await FanOut(branches, partial=True, join=lambda results: [*results]).acall()).join == ["a"]
    assert (await FanOut(branches, partial=True, join=lambda **results: list(results)).acall()).join == ["a"]
    asked: list[dict[str, str]] = []
    with dspy.context(lm=offline_lm(asked=asked)):
        result = await FanOut(branches, partial=True, join=dspy.Predict("a, b -> verdict")).acall()
    assert asked == [{"a": "A", "b": "(no result: failed)"}]
    assert states(result) == {"a": "ok", "b": "failed"}


@virtually
async def test_the_join_has_its_time_after_within() -> None:
    """`within` cuts the branches; the join runs after it, until the deadline of the scope, and no longer."""
    fan = FanOut(a=after(0), b=after(9), partial=True, within=0.05, join=lambda a: after(0.1, "joined")())
    async with scope(deadline=5):
        assert (await fan.acall()).join == "joined"
    slow = FanOut(a=after(0), partial=True, join=lambda a: after(9)())
    began = time.perf_counter()
    with no_task_left(), pytest.raises(DeadlineExceeded, match="in the join"):
        async with scope(deadline=0.2):
            await slow.acall()
    assert time.perf_counter() - began < 2


def test_a_vote() -> None:
    """`join=dspy.majority`: the value that most branches gave, of those that gave one; of fields the last."""
    say = lambda text: lambda: text  # noqa: E731
    assert FanOut(a=say("yes"), b=say("No"), c=say("Yes."), join=dspy.majority)().join == "yes"

    def broken() -> str:
        raise ValueError("x")

    voted = FanOut(a=broken, b=say("no"), c=broken, partial=True, join=dspy.majority)()
    assert (voted.join, states(voted)) == ("no", {"a": "failed", "b": "ok", "c": "failed"})
    lm = offline_lm(lambda field, inputs: {"x": "4", "y": "5", "z": "4"}[inputs["question"]])
    with dspy.context(lm=lm):
        found = FanOut(
            {n: Chain(lambda n=n: {"question": n}, dspy.ChainOfThought("question -> answer")) for n in "xyz"},
            join=dspy.majority,
        )()
    assert found.answer == "4"


@virtually
async def test_folding_results_as_they_arrive() -> None:
    """`reduce` sees the accumulated value, the name and the result, in the order of arrival; each call begins anew."""
    fan = FanOut(
        a=after(0.03, 1),
        b=after(0.01, 2),
        c=after(0.02, 3),
        reduce=lambda all_, name, x: [*all_, (name, x)],
        initial=[],
    )
    result = await fan.acall()
    assert result.reduced == [("b", 2), ("c", 3), ("a", 1)]
    assert states(result) == dict.fromkeys("abc", "ok")

    def appended(found: list[int], name: str, x: int) -> list[int]:
        found.append(x)
        return found

    into = FanOut(a=after(0, 1), reduce=appended, initial=[])
    assert [(await into.acall()).reduced for _ in range(2)] == [[1], [1]]


async def test_a_fold_may_be_async_and_is_never_run_twice_at_once() -> None:
    """Also over a map, whose results are not kept then."""
    gauge = Gauge()

    async def add(total: dict[str, int] | None, index: int, x: int) -> dict[str, int]:
        with gauge.inside():
            await asyncio.sleep(0)
            return {"total": (total or {"total": 0})["total"] + x}

    async def same(x: int) -> int:
        return x

    assert (await Map(same, over="xs", reduce=add).acall(xs=range(50))).total == sum(range(50))
    assert (await Map(same, over="xs", reduce=add, errors="keep").acall(xs=range(50))).total == sum(range(50))
    assert gauge.most == 1


@pytest.mark.parametrize("more", [{}, {"quorum": 1}])
@virtually
async def test_a_fold_that_fails_is_an_error(more: dict[str, int]) -> None:
    """It ends the call, whatever the rule, and says whose result it was about."""
    with no_task_left(), pytest.raises(ZeroDivisionError) as caught:
        await FanOut(a=after(0.01), b=after(9), reduce=lambda total, name, x: 1 / 0, **more).acall()
    assert caught.value.path == "a/reduce"
    with pytest.raises(ZeroDivisionError) as caught:
        await Map(lambda x: x, over="xs", reduce=lambda total, index, x: 1 / 0).acall(xs=[1])
    assert caught.value.path == "[0]/reduce"


async def test_all_stays_all() -> None:
    """Without options the first failure is raised as itself; results have statuses all the same."""
    with pytest.raises(ValueError, match="boom") as caught:
        await FanOut(a=after(9), b=after(0, ValueError("boom")), reduce=lambda total, name, x: x).acall()
    assert caught.value.path == "b"
    result = await FanOut(a=after(0), b=after(0)).acall()
    assert states(result) == {"a": "ok", "b": "ok"}
    assert not result.missing


async def test_statuses_are_no_fields() -> None:
    """They are neither in the items, nor in the text that a model reads, nor lost by copies and pickles."""
    result = await FanOut(a=after(0, "x"), b=after(0, NodeError("x", "y")), partial=True).acall()
    assert dict(result.items()) == {"a": "x", "b": None}
    assert "status" not in repr(result)
    assert result == dspy.Prediction(a="x", b=None)
    for again in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert states(again) == {"a": "ok", "b": "failed"}
        assert isinstance(again, Joined)
    assert [str(status) for status in (BranchStatus("ok"), BranchStatus("skipped", why="no"))] == ["ok", "skipped: no"]


async def test_a_map_keeps_failures() -> None:
    """`errors="keep"`: None in place, and a status by index; a bad item is a failed item."""

    async def inverse(x: float) -> float:
        return 1 / x

    result = await Map(inverse, over="xs", errors="keep").acall(xs=[1, 0, {"y": 1}, 4])
    assert result.results == [1, None, None, 0.25]
    assert states(result) == {0: "ok", 1: "failed", 2: "failed", 3: "ok"}
    assert [type(status.error).__name__ for status in result.missing.values()] == ["ZeroDivisionError", "BadInput"]
    pairs = dict([pair async for pair in Map(inverse, over="xs", errors="keep").as_completed(xs=[1, 0, 4])])
    assert (pairs[0], pairs[1].state, pairs[2]) == (1, "failed", 0.25)


async def test_a_map_ends_when_it_has_enough() -> None:
    """The first three good items of an endless source: it is drawn no further, and closed."""
    drawn, closed = 0, []

    async def source() -> Any:
        nonlocal drawn
        try:
            while True:
                drawn += 1
                yield drawn
        finally:
            closed.append(True)

    async def odd(x: int) -> int:
        if x % 2 == 0:
            raise ValueError(x)
        return x

    with no_task_left():
        result = await Map(odd, over="xs", first=3, concurrency=1).acall(xs=source())
    assert result.results == [1, None, 3, None, 5]
    assert (drawn, closed) == (5, [True])
    with pytest.raises(JoinFailed, match=r"1 of 3 ended well, 2 needed \(quorum=2\): \[1\]: failed"):
        await Map(odd, over="xs", quorum=2).acall(xs=[1, 2, 4])


@virtually
async def test_a_map_returns_what_is_there_in_time() -> None:
    """Also while it waits for the next item of its source, and for a source that is empty."""

    async def source() -> Any:
        yield 1
        await asyncio.sleep(9)
        yield 2

    with no_task_left():
        result = await Map(lambda x: after(0, x)(), over="xs", partial=True, within=0.1).acall(xs=source())
    assert result.results == [1]
    assert (await Map(after, over="xs", partial=True).acall(xs=[])).results == []


async def test_a_source_that_fails_is_an_error() -> None:
    """A generator that raises in the middle ends the map, whatever the rule says of items."""

    def source() -> Any:
        yield 9.0
        raise RuntimeError("the source broke")

    for options in ({}, {"errors": "keep"}, {"partial": True, "within": 5.0}, {"quorum": 1}):
        with no_task_left(), pytest.raises(RuntimeError, match="the source broke"):
            await Map(asyncio.sleep, over="xs", item="delay", **options).acall(xs=source())


@virtually
async def test_an_optional_branch_is_done_without() -> None:
    """Its failure is no error: it is skipped, and its field is None; the others have to end well."""
    told: list[events.Event] = []
    fan = FanOut(a=after(0.01, "a"), extra=node(after(0, ValueError("no")), optional=True))
    async with scope(listen=told.append):
        result = await fan.acall()
    assert dict(result.items()) == {"a": "a", "extra": None}
    assert states(result) == {"a": "ok", "extra": "skipped"}
    assert [(e.path, e.why) for e in told if isinstance(e, events.NodeSkipped)] == [("extra", "ValueError: no")]
    with no_task_left(), pytest.raises(KeyError):
        await FanOut(a=after(0, KeyError("a")), extra=node(after(9), optional=True)).acall()


async def test_what_each_branch_cost() -> None:
    """Nano-dollars by branch, of those that failed and were cancelled too; they add up to what the scope has spent."""
    fan = FanOut(
        a=paying(3 * CENT, 0.01), b=paying(2 * CENT, 0, ValueError("x")), c=paying(CENT, 9), d=after(9), quorum=1
    )
    async with scope(budget="1.00") as here:
        result = await fan.acall()
        assert here.spent == Money.of("0.06")
        assert here.purse.held == 0
    assert [status.cost for status in result.statuses.values()] == [3 * CENT, 2 * CENT, CENT, 0]


async def test_a_branch_without_money_is_a_failed_branch() -> None:
    """Where one can do without it, it doesn't end the run; where too few are left, the refusal holds for the run."""
    branches = {"a": paying(CENT), "b": paying(5 * CENT), "c": paying(CENT)}
    async with scope(budget="0.03") as here:
        result = await FanOut(branches, quorum=2).acall()
        assert states(result) == {"a": "ok", "b": "failed", "c": "ok"} or result.statuses["b"].state == "cancelled"
        assert here.purse.exhausted is None
    with pytest.raises(JoinFailed) as caught, scope(budget="0.03") as here:
        await FanOut(branches, quorum=3).acall()
    assert isinstance(caught.value.causes["b"], BudgetExceeded)
    assert here.purse.exhausted is not None


@virtually
async def test_a_swallowed_refusal_is_a_failed_branch() -> None:
    """A branch that swallows BudgetExceeded, as DSPy's modules do, has not ended well, whatever it returns."""

    async def swallows() -> str:
        try:
            scopes.require().purse.reserve(5 * CENT)
        except BudgetExceeded:
            return "as if nothing had happened"
        return "paid"

    async with scope(budget="0.03") as here:
        result = await FanOut(a=swallows, b=after(0.01, "b"), quorum=1).acall()
        assert states(result) == {"a": "failed", "b": "ok"}
        assert isinstance(result.statuses["a"].error, BudgetExceeded)
        assert here.purse.exhausted is None
        result = await FanOut(a=node(swallows, optional=True), b=after(0.01, "b")).acall()
        assert (result.a, states(result)["a"]) == (None, "skipped")


@virtually
async def test_timeouts_are_statuses() -> None:
    """A node's own timeout is told as such."""
    result = await FanOut(a=node(after(9), timeout=0.02), b=after(0.4), quorum=1).acall()
    assert states(result) == {"a": "timeout", "b": "ok"}
    assert isinstance(result.statuses["a"].error, NodeTimeout)


async def test_what_never_began_is_skipped() -> None:
    """With enough results there, nothing begins any more: neither behind a limit, nor in the same turn of the loop."""
    began: list[str] = []

    def branch(name: str) -> Any:
        async def work() -> str:
            began.append(name)
            return name

        return work

    result = await FanOut({n: branch(n) for n in "abcdef"}, quorum=1).acall()
    assert began == ["a"]
    assert states(result) == {"a": "ok", **dict.fromkeys("bcdef", "skipped")}
    began.clear()
    await FanOut({n: branch(n) for n in "abcdef"}, quorum=2, concurrency=1).acall()
    assert began == ["a", "b"]


def test_blocking_branches_under_a_rule() -> None:
    """Threads can't be stopped, but nobody waits for them; and no more than 64 run at once."""
    gauge = Gauge()

    def block(seconds: float) -> Any:
        def work() -> float:
            with gauge.inside():
                time.sleep(seconds)
                return seconds

        return work

    began = time.perf_counter()
    result = FanOut(slow=block(9.0), quick=block(0.01), quorum=1)()
    assert time.perf_counter() - began < 5
    assert states(result) == {"slow": "cancelled", "quick": "ok"}
    gauge.most = 0
    assert len(FanOut({f"b{i}": block(0.01) for i in range(80)}, quorum=80)().missing) == 0
    assert gauge.most <= 65  # the slow one may still be there


@virtually
async def test_rules_nest() -> None:
    """A fan-out in a race in a map in a chain: paths and statuses are those of each."""
    inner = FanOut(x=after(0.01, 1), y=after(0, ValueError("no")), quorum=1)
    outer = Chain(
        many=Map(Race(good=inner, bad=after(0, KeyError("bad"))), over="xs", item="n", errors="keep"),
        then=lambda results: results[0],
    )
    told: list[events.Event] = []
    async with scope(listen=told.append):
        result = await outer.acall(xs=[1, 2])
    assert result.x == 1
    assert "many[1]/good/y" in {event.path for event in told if isinstance(event, events.NodeFailed)}


async def test_traces_of_losers_are_left_out() -> None:
    """An optimiser sees the steps of the answers that were taken, in the order of the branches."""

    def ask(name: str, seconds: float) -> Chain:
        return Chain(wait=after(seconds), **{name: dspy.Predict(f"question -> {name}")})

    with dspy.context(lm=offline_lm(), trace=[]):
        result = await FanOut(a=ask("one", 0.03), b=ask("two", 0.0), c=ask("three", 9), quorum=2).acall(question="q")
        assert [list(step[2].keys()) for step in dspy.settings.trace] == [["one"], ["two"]]
    assert states(result)["c"] == "cancelled"


@virtually
async def test_what_is_around_a_partial_result_waits_for_it() -> None:
    """At the deadline, the pipelines around it give it time to end its branches, though these swallow a cancellation;
    those without any partial part end on time.
    """

    async def swallows() -> None:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            await asyncio.sleep(9)

    nested = Chain(x=FanOut(y=Map(FanOut(a=after(0, "a"), b=swallows, partial=True), over="xs", item="x")))
    for pipeline in (nested, copy.deepcopy(nested)):
        async with scope(deadline=0.3) as here:
            result = await pipeline.acall(xs=[1, 2])
            assert -0.3 < here.time_left() < 0.1
        assert [(one.a, one.b) for one in result.y.results] == [("a", None)] * 2
    with pytest.raises(DeadlineExceeded):
        async with scope(deadline=0.05):
            await Chain(x=FanOut(y=after(9))).acall()
