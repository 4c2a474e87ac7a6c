"""SqliteLedger by example: several processes, death, restart, and stores that fail."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade.errors import BudgetExceeded, StoreUnavailable
from escalade.registry.ledger import Budget
from escalade.registry.stores.owners import Owner, here, started
from escalade.registry.stores.sqlite import Database
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.scopes import Principal
from tests import _forks
from tests._house import ROOT
from tests.registry.helpers import Clock

ANA = Principal("ana", "acme", frozenset({"user"}))
BUDGET = Budget("tenant:acme", "0.0000001")
"""100 nano-dollars."""

DIES_HOLDING = """
import os, signal, sys
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.scopes import Principal
hold = SqliteLedger(sys.argv[1]).purse(Principal("bo", "acme"), run="r1").reserve(60, "a call")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the budgets are."""
    return tmp_path / "budgets.db"


def used(ledger: SqliteLedger, name: str = "tenant:acme") -> tuple[int, int, int]:
    """Settled, held and overrun of an account."""
    account = ledger.account(name)
    assert account is not None
    return account.settled, account.held, account.overrun


def test_two_ledgers_on_one_file_share_the_budget(path: Path) -> None:
    """What one process holds, another can't; what one settles, all of them have spent."""
    one, two = SqliteLedger(path, [BUDGET]), SqliteLedger(path)
    hold = one.purse(ANA).reserve(60)
    with pytest.raises(BudgetExceeded, match="budget 'tenant:acme' of \\$0.0000001 has \\$0.00000004 left"):
        two.purse(ANA).reserve(41)
    hold.settle(10)
    assert two.purse(ANA).left() == 90
    two.purse(ANA).reserve(90).settle(90)
    assert used(one) == (100, 0, 0)


def test_it_outlives_its_processes(path: Path) -> None:
    """After a restart the budgets and what was spent of them are there."""
    ledger = SqliteLedger(path, [BUDGET, Budget("user:*/*", "0.00000005", "day")])
    ledger.purse(ANA).reserve(30).settle(20)
    ledger.close()
    again = SqliteLedger(path)
    assert [(a.name, a.settled, a.period) for a in again.accounts()] == [
        ("tenant:acme", 20, "none"),
        ("user:acme/ana", 20, "day"),
    ]
    assert again.purse(Principal("new", "acme")).left() == 50, "patterns are in the file, too"


def test_a_scope_on_it_just_works(path: Path) -> None:
    """`escalade.scope(ledger=SqliteLedger(...))`: tools spend the shared budget; the refusal raises on leaving."""
    ledger = SqliteLedger(path, [Budget("tenant:acme", "0.05")])

    @escalade.tool(cost="0.02")
    def look(x: int) -> int:
        """Look."""
        return x

    registry, roles = escalade.Registry([look], name="sqlite"), escalade.Roles({"user": ["look:call"]})
    with pytest.raises(BudgetExceeded), escalade.scope(principal=ANA, access=roles, ledger=ledger) as run:
        assert [registry.get_tool("look")(x=n) for n in range(2)] == [0, 1]
        assert run.spent == escalade.Money.of("0.04")
        with pytest.raises(BudgetExceeded):
            registry.get_tool("look")(x=2)
    assert used(ledger) == (40_000_000, 0, 0)


def test_scopes_without_named_accounts_never_ask_the_store(path: Path) -> None:
    """A run that no shared budget covers goes on in memory while the store is away."""
    ledger = SqliteLedger(path, [BUDGET])
    run = ledger.purse(Principal("x", "elsewhere"), limit=100)
    ledger.store.database.path = path / "gone" / "away"
    ledger.close()
    run.reserve(60).settle(50)
    assert (run.spent, run.left()) == (50, 50)


@pytest.mark.parametrize(("on_death", "booked"), [("settle", 60), ("release", 0)])
def test_what_a_dead_process_held_is_ended_once(path: Path, on_death: Any, booked: int) -> None:
    """Killed while it held money: that counts until somebody sweeps, and is then booked in full, or freed if one
    says so; several sweepers do it once.
    """
    ledger = SqliteLedger(path, [BUDGET], on_death=on_death)
    died = subprocess.run([sys.executable, "-c", DIES_HOLDING, str(path)], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert used(ledger) == (0, 60, 0)
    held = ledger.store.held()[0]
    assert (held.amount, held.run, held.what, held.accounts) == (60, "r1", "a call", ("tenant:acme",))
    others = [SqliteLedger(path, on_death=on_death) for _ in range(2)]  # opening sweeps
    assert used(ledger) == (booked, 0, 0)
    assert [other.sweep() for other in (ledger, *others)] == [[], [], []]


def test_the_living_are_not_swept(path: Path) -> None:
    """Whatever the clocks and heartbeats say, a process of this host that runs is alive."""
    ledger = SqliteLedger(path, [BUDGET], lease=1e-9)
    hold = ledger.purse(ANA).reserve(60)
    code = f"from escalade.registry.stores.sqlite_ledger import SqliteLedger as L; L({str(path)!r}, lease=1e-9)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert used(ledger) == (0, 60, 0)
    hold.settle(5)
    assert used(ledger) == (5, 0, 0)


def test_who_counts_as_dead() -> None:
    """Here: a process that ended, or whose id is another's now. Elsewhere: one that was not seen for a lease."""
    me, host = Owner(seen=0.0), here()
    assert not me.dead(1e9, 60, host)
    assert Owner(started="1", seen=1e9).dead(1e9, 60, host), "our process id, but another start"
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        began = started(child.pid)
        while started(child.pid):
            time.sleep(0.01)
        assert Owner(pid=child.pid, started=str(began), seen=1e9).dead(1e9, 60, host), "a zombie, not waited for yet"
    assert started(child.pid) == ""
    far = Owner(host="elsewhere", seen=100.0)
    assert not far.dead(160, 60, host)
    assert far.dead(161, 60, host)


def test_a_process_taken_for_dead_settles_nothing_twice(path: Path) -> None:
    """Its hold was booked in full by others; its own late settlement changes nothing, and it can go on."""
    ledger, other = SqliteLedger(path, [BUDGET]), SqliteLedger(path, lease=-1e9)
    with ledger.store.database.transaction() as connection:
        connection.execute("UPDATE owners SET host='elsewhere' WHERE id=?", (ledger.store._owner.id,))
    run = ledger.purse(ANA)
    hold = run.reserve(60)
    assert [held.amount for held in other.sweep()] == [60]
    hold.settle(10)
    assert used(ledger) == (60, 0, 0)
    assert run.spent == 10, "the run knows what it really cost"
    run.reserve(40).settle(40)
    assert used(ledger) == (100, 0, 0)


FORKS = """
import gc, sys, time
from escalade.registry.ledger import Budget
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.scopes import Principal
from tests._forks import in_child

def used():
    account = ledger.account("tenant:acme")
    return account.settled, account.held, account.overrun

def child():
    global hold
    ledger.purse(ana).reserve(10).settle(10)
    hold.settle(1)
    del hold
    gc.collect()
    assert used() == (10, 60, 0), used()

ana = Principal("ana", "acme")
ledger = SqliteLedger(sys.argv[1], [Budget("tenant:acme", "0.0000001")], lease=0.02)  # its thread beats all the time
hold = ledger.purse(ana).reserve(60)
time.sleep(0.05)
in_child(child)
assert used() == (10, 60, 0), used()
hold.settle(20)
assert used() == (30, 0, 0), used()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_its_parents_money_alone(path: Path) -> None:
    """A child has the parent's objects: collecting them settles nothing, and it has a connection of its own."""
    _forks.run(FORKS, path)


def test_a_locked_store_refuses_and_settles_later(path: Path) -> None:
    """Somebody writes for too long: no new money, one clear error; a settlement waits and its reservation counts."""
    ledger = SqliteLedger(path, [BUDGET], patience=0.05, rest=0.01)
    run = ledger.purse(ANA)
    hold = run.reserve(60)
    with sqlite3.connect(path, isolation_level=None) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"the store 'budgets.db' can't be used: database is locked"):
            run.reserve(10)
        assert run.held == 60
        hold.settle(20)
        assert ledger.unsettled == 2
        assert (run.spent, run.held) == (20, 0)
        blocker.execute("COMMIT")
    blocker.close()
    time.sleep(0.02)
    ledger.keep()
    assert (ledger.unsettled, used(ledger)) == (0, (20, 0, 0))
    assert run.exhausted is None, "a store that fails exhausts nobody"


def test_a_store_that_failed_is_left_alone_for_a_moment(path: Path) -> None:
    """While it rests, everybody is refused at once instead of waiting in turn."""
    ledger = SqliteLedger(path, [BUDGET], patience=0.2, rest=30.0)
    run = ledger.purse(ANA)
    with sqlite3.connect(path, isolation_level=None) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            run.reserve(10)
        began = time.perf_counter()
        for _ in range(100):
            with pytest.raises(StoreUnavailable, match="failed a moment ago") as caught:
                run.reserve(10)
        assert time.perf_counter() - began < 5, "they would have waited 20 s"
        assert caught.value.retry_after == 30.0
    blocker.close()


def test_disk_full(path: Path) -> None:
    """No room: no new reservation, with one clear error; what was held counts; with room again all goes on."""
    ledger = SqliteLedger(path, [BUDGET], rest=0.0)
    run, holds = ledger.purse(ANA), []
    pages = ledger.store.database.read("PRAGMA page_count")[0][0]
    ledger.store.database.read(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StoreUnavailable, match=r"can't be used: database or disk is full"):
        holds.extend(run.reserve(0, f"call {number} " + "x" * 200) for number in range(1_000))
    assert len(holds) > 5
    assert run.held == 0
    ledger.store.database.read("PRAGMA max_page_count=100000")
    last = run.reserve(100)
    for hold in holds:
        hold.settle(0)
    last.settle(70)
    assert (ledger.unsettled, used(ledger), len(ledger.store.held())) == (0, (70, 0, 0), 0)


def test_no_place_for_a_store(tmp_path: Path) -> None:
    """A path that can't be a database is said when the ledger is made."""
    with pytest.raises(StoreUnavailable, match=r"unable to open"):
        SqliteLedger(tmp_path / "missing" / "budgets.db")
    (tmp_path / "text.db").write_text("no database " * 1_000)
    with pytest.raises(StoreUnavailable, match="not a database"):
        SqliteLedger(tmp_path / "text.db")


def test_a_finalizer_may_settle_in_the_middle_of_a_transaction(path: Path) -> None:
    """A generator collected while its thread talks to the store settles from there: it waits until that is done."""
    ledger = SqliteLedger(path, [BUDGET])
    run = ledger.purse(ANA)
    first, reads = run.reserve(10), ledger.store.now

    def now() -> float:
        first.settle(5)
        return reads()

    ledger._now = now
    run.reserve(20).settle(20)
    assert (ledger.unsettled, used(ledger), run.spent) == (0, (25, 0, 0), 25)


def test_a_lost_reservation_frees_itself(path: Path) -> None:
    """Nobody can settle it any more: collected, it frees its money in the store as well."""
    ledger = SqliteLedger(path, [BUDGET])
    hold = ledger.purse(ANA).reserve(60)
    assert used(ledger) == (0, 60, 0)
    del hold
    gc.collect()
    assert used(ledger) == (0, 0, 0)


def test_clocks_that_jump(path: Path) -> None:
    """Set forward, a new day begins for everybody; set back, yesterday's budget is not opened again, nor today's."""
    clocks = Clock(10 * 86_400.0), Clock(10 * 86_400.0)
    one, two = (SqliteLedger(path, [Budget("tenant:acme", "0.0000001", "day")], now=clock) for clock in clocks)
    one.purse(ANA).reserve(100).settle(100)
    clocks[0].forward(86_400)
    one.purse(ANA).reserve(30).settle(30)
    assert two.purse(ANA).left() == 70, "the other process, whose clock is late, is in the new day, too"
    clocks[0].forward(-86_400)
    assert one.purse(ANA).left() == 70
    clocks[1].forward(86_400)
    assert two.purse(ANA).left() == 70


def test_the_heartbeat_ends_with_the_ledger(path: Path) -> None:
    """The thread that keeps a ledger alive in the store does not keep it alive in memory."""
    ledger = SqliteLedger(path, [BUDGET], lease=0.2)
    ledger.purse(ANA).reserve(1).settle(1)
    keeper = ledger._keeper
    assert keeper is not None
    seen = ledger.store.database.read("SELECT seen FROM owners")
    time.sleep(0.12)
    assert ledger.store.database.read("SELECT seen FROM owners") > seen
    del ledger
    gc.collect()
    keeper.join(5)
    assert not keeper.is_alive()


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """Whoever opens it first sets its journal; the others wait for that instead of failing."""
    for turn in range(40):
        together, failed = threading.Barrier(8), []

        def opens(path: Path = tmp_path / f"{turn}.db", together: threading.Barrier = together) -> None:
            database = Database(path, "CREATE TABLE IF NOT EXISTS t (a)")
            together.wait()
            try:
                database.read("SELECT * FROM t")
            except Exception as error:
                failed.append(error)  # noqa: B023 - joined before the next turn
            database.close()

        threads = [threading.Thread(target=opens) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
