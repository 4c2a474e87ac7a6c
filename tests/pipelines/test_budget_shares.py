"""Money in graphs: no level of a pipeline passes its budget, whatever is shared out, retried, hedged or cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade import BudgetExceeded, Chain, FanOut, Ledger, Map, Money, NodeError, NodeRetry, node
from escalade.pipelines.options.hedge import Hedge
from escalade.scopes import Scope
from tests.pipelines.offline import no_task_left

CENT = 10_000_000


@dataclass
class Watch:
    """Every level that anything ran under, and what was really used."""

    levels: dict[int, Scope] = field(default_factory=dict)
    used: int = 0

    def look(self) -> None:
        """No level is past its limit, now."""
        scope: Scope | None = escalade.scopes.current()
        while scope is not None:
            self.levels[id(scope.purse)] = scope
            account: Any = scope.purse.account  # type: ignore[attr-defined]
            if account.limit is not None:
                assert account.settled + account.held <= account.limit, account
            scope = scope.parent


@dataclass
class Use:
    """A leaf that reserves `most`, works, and settles `cost` of it; each `fails`-th call fails, each `slow`-th is."""

    watch: Watch
    most: int
    cost: int
    fails: int
    slow: int
    calls: int = 0

    async def __call__(self, x: Any) -> Any:
        self.calls += 1
        mine = self.calls
        hold = escalade.scopes.require().purse.reserve(self.most * CENT)
        self.watch.look()
        try:
            await asyncio.sleep(0.004 if self.slow and mine % self.slow == 0 else 0)
            self.watch.look()
        finally:
            hold.settle(self.cost * CENT)
            self.watch.used += self.cost * CENT
            self.watch.look()
        if self.fails and mine % self.fails == 0:
            raise ConnectionError("gone")
        return x


def options() -> st.SearchStrategy[dict[str, Any]]:
    """What a node is told."""
    return st.fixed_dictionaries(
        {},
        optional={
            "budget": st.one_of(
                st.integers(1, 60).map(lambda cents: Money(cents * CENT)), st.floats(0.05, 1.0, exclude_min=True)
            ),
            "retry": st.integers(1, 2).map(lambda times: NodeRetry(times, base=0.0)),
            "hedge": st.just(Hedge(0.001, share=1.0)),
            "timeout": st.sampled_from([0.002, 5.0]),
            "optional": st.just(True),
        },
    )


def leaves(watch: Watch) -> st.SearchStrategy[Any]:
    uses = st.builds(
        lambda most, share, fails, slow: Use(watch, most, most * share // 4, fails, slow),
        st.integers(1, 20),
        st.integers(0, 4),
        st.sampled_from([0, 0, 1, 2, 3]),
        st.sampled_from([0, 0, 1, 2]),
    )
    return st.builds(lambda use, spare, told: node(use, **told, **spare), uses, spares(uses), options())


def spares(uses: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(st.just({}), uses.map(lambda use: {"fallback": node(use, budget=0.5)}))


def graphs(watch: Watch) -> st.SearchStrategy[Any]:
    """Chains, fan-outs with and without rules, and maps of each other, each told something."""

    def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=4)
        named = some.map(lambda nodes: {f"b{number}": one for number, one in enumerate(nodes)})
        # Each step takes `x` of the call, whatever those before it gave.
        arranged = st.one_of(
            named.map(lambda nodes: Chain(**nodes)),
            named.map(FanOut),
            named.map(lambda nodes: FanOut(nodes, partial=True)),
            named.map(lambda nodes: FanOut(nodes, first=1)),
            st.builds(lambda one, many: Chain(xs=lambda x: [x] * many, m=Map(one, over="xs", item="x")), inner,
                      st.integers(1, 4)),
        )  # fmt: skip
        return st.builds(lambda pipeline, told: node(pipeline, **told), arranged, options())

    return st.recursive(leaves(watch), wider, max_leaves=10)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), cents=st.integers(1, 120), cut=st.one_of(st.none(), st.floats(0.0, 0.006)))
def test_no_budget_is_ever_passed(data: st.DataObject, cents: int, cut: float | None) -> None:
    """At no level and no moment, also when it is cancelled after `cut` seconds; afterwards no task is alive, nothing is
    held, and what was used is what was settled.
    """
    watch, ledger = Watch(), Ledger()
    pipeline = Chain(top=data.draw(graphs(watch)))

    async def run() -> None:
        with no_task_left(), contextlib.suppress(BudgetExceeded, NodeError, ConnectionError, asyncio.CancelledError):
            with escalade.scope(budget=Money(cents * CENT), ledger=ledger):
                watch.look()
                call = asyncio.ensure_future(pipeline.acall(x=1))
                if cut is not None:
                    asyncio.get_running_loop().call_later(cut, call.cancel)
                await call

    asyncio.run(run())
    root = next(scope for scope in watch.levels.values() if scope.parent is None)
    assert int(root.spent) == watch.used <= cents * CENT
    for scope in watch.levels.values():
        account: Any = scope.purse.account  # type: ignore[attr-defined]
        assert account.held == 0
        assert account.limit is None or account.settled <= account.limit


async def test_a_share_is_of_what_is_left_when_the_node_starts() -> None:
    """Not when the pipeline is built, and not when it is called: what was spent before is gone."""
    limits: list[int | None] = []

    async def spend(x: int) -> int:
        scope = escalade.scopes.require()
        limits.append(None if scope.left is None else int(scope.left))
        scope.purse.reserve(20 * CENT).settle(20 * CENT)
        return x

    half = node(spend, budget=0.5)
    with escalade.scope(budget="1.00"):
        await Chain(a=half, b=half, c=node(Chain(d=half), budget=0.9)).acall(x=1)
    assert limits == [50 * CENT, 40 * CENT, 27 * CENT]


async def test_branches_that_start_together_share_the_same() -> None:
    """A share of what was left when the fan-out began, whichever branch came first; the join of what is left then."""
    limits: dict[str, Any] = {}

    def spends(name: str) -> Any:
        async def spend(x: int) -> int:
            scope = escalade.scopes.require()
            limits[name] = None if scope.left is None else int(scope.left)
            scope.purse.reserve(10 * CENT).settle(10 * CENT)
            return x

        return spend

    for rule in ({}, {"partial": True}, {"timeout": 5.0}):
        branches = {name: node(spends(name), budget=0.25) for name in "abcd"}
        with escalade.scope(budget="1.00"):
            await FanOut(branches, join=node(spends("join"), budget=0.5), **rule).acall(x=1)
        assert limits == {**dict.fromkeys("abcd", 25 * CENT), "join": 30 * CENT}


@pytest.mark.parametrize("share", [0.5, 0.9])
async def test_branches_with_shares_can_pass_together_no_more_than_their_parent(share: float) -> None:
    """Three branches that may each take most of it: the parent's budget holds for them together."""

    async def spend(x: int) -> int:
        hold = escalade.scopes.require().purse.reserve(40 * CENT)
        await asyncio.sleep(0.001)
        hold.settle(40 * CENT)
        return x

    branches = {name: node(spend, budget=share) for name in "abc"}
    with escalade.scope(budget="1.00") as scope:
        result = await FanOut(branches, partial=True).acall(x=1)
        assert int(scope.spent) == 80 * CENT
    assert sorted(status.state for status in result.statuses.values()) == ["failed", "ok", "ok"]
