"""The account of a run, in every ledger: it is there as long as the run is, and in nobody's list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Ask, Budget, Chain, Ledger, Money, Runs
from escalade.errors import BudgetExceeded, RunError, ToolFailed
from escalade.registry.budgets import run_account
from escalade.registry.stores.owners import Owner
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


def test_a_run_without_a_budget_only_counts(ledger: Any, tmp_path: Path) -> None:
    """It has an account while it runs, without a limit: what has no price may be used, and the bill is there."""
    seen: list[Any] = []

    @escalade.tool(side_effects="read")
    async def unpriced(what: str) -> str:
        """Nobody knows what it costs."""
        account = ledger.account(run_account("one"))
        seen.append((account.limit, account.held))
        return what

    @escalade.tool(side_effects="read", cost="0.25")
    async def priced(what: str) -> str:
        """A quarter."""
        account = ledger.account(run_account("one"))
        seen.append((account.limit, account.held))
        return what

    registry = escalade.Registry([unpriced, priced])

    async def work(x: str) -> str:
        await registry.resolve("unpriced").acall(what=x)
        return str(await registry.resolve("priced").acall(what=x))

    with Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(a=work)}, ledger=ledger) as runs:
        run = runs.start("p", run_id="one", x="in")
        run.result(20)
        assert run.spent == Money.of("0.25")
    assert seen == [(None, 0), (None, Money.of("0.25"))]
    assert ledger.account(run_account("one")) is None
    assert ledger.accounts() == []


def dies_with(ledger: Any, name: str, amount: int) -> None:
    """As a process leaves it that is killed while a call is on its way: one that had our id, and began earlier."""
    with ledger._lock:
        mine, ledger.store._owner = ledger.store._owner, Owner(started="1")
        ledger.store.beat()
        ledger.store.reserve("a key", [name], int(amount), ledger.store.now(), "", "cut off")
        ledger.store._owner = mine


@pytest.mark.parametrize("budget", [None, "0.70"])
def test_what_dead_processes_held_is_spent(ledger: Any, tmp_path: Path, budget: str | None) -> None:
    """A run's row says what the ledger says, though nobody had found out yet that the process was dead."""
    if type(ledger) is Ledger:
        pytest.skip("what is in memory ends with its process")
    begun: list[str] = []

    @escalade.tool(side_effects="read", cost="0.40")
    async def pay(what: str) -> str:
        """Pay."""
        return what

    tool = escalade.Registry([pay]).resolve("pay")

    async def work(x: str) -> str:
        begun.append(x)
        if len(begun) == 1:
            dies_with(ledger, run_account("one"), Money.of("0.30"))
            raise Crash
        return str(await tool.acall(what=x))

    def opened() -> Runs:
        return Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(a=work)}, ledger=ledger)

    with opened() as runs:
        runs.start("p", run_id="one", budget=budget, x="in")
        until(lambda: begun and not runs.host.live)
    with opened() as runs:
        runs.recover()
        runs.get("one").result(20)
        assert runs.get("one").spent == Money.of("0.70")
        until(lambda: ledger.account(run_account("one")) is None)


def test_what_is_held_when_a_run_ends_is_booked_later_and_its_account_goes(ledger: Any, tmp_path: Path) -> None:
    """By a process that nobody knows to be dead yet, or by what nobody waits for. Until it is settled it counts in
    full, and the run can't be pruned; then a new run of that id has its own budget.
    """
    name, held = run_account("one"), []

    async def leaves(x: str) -> str:
        held.append(ledger._reserve((ledger.account(name),), int(Money.of("0.40")), "on its way"))
        return x

    @escalade.tool(side_effects="read", cost="0.40")
    async def pay(what: str) -> str:
        """Pay."""
        return what

    tool = escalade.Registry([pay]).resolve("pay")
    pipelines = {"p": Chain(a=leaves), "q": Chain(a=lambda x: tool(what=x))}
    with Runs(tmp_path / "r.sqlite", pipelines=pipelines, ledger=ledger) as runs:
        run = runs.start("p", run_id="one", budget="1", x="in")
        run.result(20)
        assert run.spent == Money.of("0.40")
        assert ledger.account(name).held == Money.of("0.40")
        assert runs.prune(older_than=0) == 0
        held[0].settle(int(Money.of("0.25")))
        until(lambda: ledger.account(name) is None)
        assert run.spent == Money.of("0.25")
        assert runs.prune(older_than=0) == 1
        run = runs.start("q", run_id="one", budget="0.30", x="in")
        with pytest.raises(RunError, match=r"of \$0\.3 has \$0\.3 left"):
            run.result(20)


def test_pruning_forgets_the_accounts_of_runs(ledger: Any, tmp_path: Path) -> None:
    """Also of those that were cancelled while they waited, and of those whose account somebody died with."""
    with Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(a=Ask("Well?"))}, ledger=ledger) as runs:
        left = runs.start("p", run_id="left", budget="1")
        until(lambda: left.status() == "waiting")
        if type(ledger) is not Ledger:
            dies_with(ledger, run_account("left"), Money.of("0.25"))
        left.cancel()
        ledger.set_budget(Budget(run_account("left"), "1"))  # as a process leaves it that dies before it forgets
        assert runs.prune(older_than=0) == 1
        assert ledger.account(run_account("left")) is None
