"""The account of a run, in every ledger: it is there as long as the run is, and in nobody's list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Budget, Chain, Ledger, Money, Runs
from escalade.errors import BudgetExceeded, RunError, ToolFailed
from escalade.registry.budgets import run_account
from tests.pipelines.durable.test_runs import until
from tests.pipelines.durable.world import Crash, World
from tests.registry.stores.crowd import open_ledger
from tests.servers.redis_server import RedisServer


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield Ledger()
    elif request.param == "redis":
        with RedisServer() as server:
            yield open_ledger("redis", server.url)
    else:
        url = request.getfixturevalue("postgres_url") if request.param == "postgres" else str(tmp_path / "l.sqlite")
        yield open_ledger(request.param, url)


def test_it_is_kept_while_something_is_held(ledger: Any) -> None:
    """Listed nowhere, noted as no change, and forgotten when nothing is held on it any more."""
    name = run_account("one")
    ledger.set_budget(Budget(name, Money(100)))
    ledger.set_budget(Budget(name, Money(200)))
    account = ledger.account(name)
    assert account.limit == (200 if type(ledger) is Ledger else 100)
    assert ledger.accounts() == []
    if hasattr(ledger, "store"):
        assert ledger.store.changes() == []
    held = ledger._reserve((account,), 60, "call")
    ledger.forget(name)
    assert ledger.account(name).held == 60
    held.settle(50)
    ledger.forget(name)
    assert ledger.account(name) is None


def test_a_run_leaves_no_account(ledger: Any, tmp_path: Path) -> None:
    """Ended, resumed and forgotten: what it spent is kept with the run, and counts when it goes on."""
    world = World()
    with Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(a=world.agent(3, "a"))}, ledger=ledger) as runs:
        run = runs.start("p", run_id="one", budget=Money(3_000_000), x="in")
        for _ in range(2):
            with pytest.raises(RunError) as told:
                run.result(20)
            assert told.value.kind == BudgetExceeded.__name__
            spent = run.spent
            assert 0 < spent <= 3_000_000
            run.resume()
        with pytest.raises(RunError):
            run.result(20)
        assert run.spent == spent
        assert ledger.account(run_account("one")) is None


def test_what_ended_attempts_spent_counts_after_a_crash(ledger: Any, tmp_path: Path) -> None:
    """A run that failed and is resumed has a new account; when its process dies then, all that was spent counts on."""
    mode, paid = ["fail"], []

    @escalade.tool(side_effects="write", idempotent=True, cost="0.40")
    async def pay(what: str) -> str:
        """Pay, in vain."""
        paid.append(what)
        raise ValueError("broken")

    registry = escalade.Registry()
    registry.register(pay)
    tool = registry.resolve("pay")

    async def work(x: str) -> str:
        try:
            await tool.acall(what=x)
        except ToolFailed:
            if mode[0] == "crash":
                raise Crash from None
            raise
        return x

    def opened() -> Runs:
        return Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(a=work)}, ledger=ledger)

    with opened() as runs:
        run = runs.start("p", run_id="one", budget="1.00", x="in")
        with pytest.raises(RunError):
            run.result(20)
        mode[0] = "crash"
        run.resume()
        until(lambda: len(paid) == 2 and not runs.host.live)
        assert ledger.account(run_account("one")).settled == Money.of("0.80")
    mode[0] = "fail"
    with opened() as runs:
        runs.recover()
        with pytest.raises(RunError) as told:
            runs.get("one").result(20)
        assert told.value.kind == BudgetExceeded.__name__
        assert runs.get("one").spent == Money.of("0.80")
    assert len(paid) == 2
