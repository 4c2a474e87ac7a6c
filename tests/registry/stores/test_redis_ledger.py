"""RedisLedger by example: what it shares with SqliteLedger in short, and a server that dies, hangs and forgets."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from escalade.errors import BadInput, BudgetExceeded, StoreUnavailable
from escalade.registry.ledger import Budget
from escalade.scopes import Principal
from tests._house import ROOT
from tests.servers.redis_server import RedisServer

ANA = Principal("ana", "acme")
BUDGET = Budget("tenant:acme", "0.0000001")
"""100 nano-dollars."""

DIES_HOLDING = """
import os, signal, sys
from escalade.registry.stores.redis_ledger import RedisLedger
from escalade.scopes import Principal
hold = RedisLedger(sys.argv[1]).purse(Principal("bo", "acme"), run="r1").reserve(60, "a call")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A real server, empty."""
    with RedisServer() as running:
        yield running


def ledger_at(server: RedisServer, *budgets: Budget, **options: Any) -> Any:
    """A ledger on it, as a further process would have it."""
    from escalade.registry.stores.redis_ledger import RedisLedger

    return RedisLedger(server.url, budgets, **{"rest": 0.05, "timeout": 2.0, **options})


def used(ledger: Any) -> tuple[int, int, int]:
    """Settled, held and overrun of the tenant."""
    account = ledger.account("tenant:acme")
    return account.settled, account.held, account.overrun


def test_two_processes_share_the_budget(server: RedisServer) -> None:
    """What one holds, the other can't; bills above a reservation are booked as in memory."""
    one, two = ledger_at(server, BUDGET), ledger_at(server)
    hold = one.purse(ANA).reserve(60)
    with pytest.raises(BudgetExceeded, match="budget 'tenant:acme' of \\$0.0000001 has \\$0.00000004 left"):
        two.purse(ANA).reserve(41)
    hold.settle(110)
    assert used(two) == (100, 0, 10)


@pytest.mark.parametrize(("on_death", "booked"), [("settle", 60), ("release", 0)])
def test_what_a_dead_process_held_is_ended_once(server: RedisServer, on_death: Any, booked: int) -> None:
    """Killed while it held money: the next process books it, once, in full or not at all."""
    ledger = ledger_at(server, BUDGET, on_death=on_death)
    subprocess.run([sys.executable, "-c", DIES_HOLDING, server.url], cwd=ROOT, check=False)
    assert used(ledger) == (0, 60, 0)
    held = ledger.store.held()[0]
    assert (held.amount, held.run, held.what, held.accounts) == (60, "r1", "a call", ("tenant:acme",))
    assert [len(ledger.sweep()), len(ledger.sweep())] == [1, 0]
    assert (used(ledger), ledger.store.held()) == ((booked, 0, 0), [])


def test_a_server_killed_in_the_middle(server: RedisServer) -> None:
    """No server, no money: one clear error, at once. Back without its data, it refuses instead of forgetting the
    budget; set anew, all goes on.
    """
    ledger = ledger_at(server, BUDGET)
    run = ledger.purse(ANA)
    hold = run.reserve(60)
    server.kill()
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(StoreUnavailable) as caught:
            run.reserve(10)
        assert "127.0.0.1" not in str(caught.value)
    assert time.monotonic() - began < 5
    hold.settle(20)
    assert (ledger.unsettled > 0, run.spent) == (True, 20)
    server.start()
    time.sleep(0.1)
    with pytest.raises(StoreUnavailable, match="has lost budget 'tenant:acme'"):
        run.reserve(10)
    with pytest.raises(StoreUnavailable, match="has lost budget"):
        ledger.purse(ANA)
    time.sleep(0.1)
    ledger.set_budget(BUDGET)
    run.reserve(10).settle(10)
    assert used(ledger) == (10, 0, 0)


def test_a_server_that_hangs(server: RedisServer) -> None:
    """Whether a reservation was made is not known when no answer comes: it is undone as soon as the server answers."""
    ledger = ledger_at(server, BUDGET, timeout=0.5)
    run = ledger.purse(ANA)
    server.pause()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="Timeout"):
        run.reserve(60)
    assert time.monotonic() - began < 5, "it waits 0.5 s for an answer"
    server.go_on()
    time.sleep(0.1)
    ledger.keep()
    assert (used(ledger), ledger.unsettled, ledger.store.held()) == ((0, 0, 0), 0, [])
    run.reserve(100).settle(100)


def test_a_server_that_evicts_keeps_no_budgets(server: RedisServer) -> None:
    """A cache is no place for money: a server that throws keys away is refused."""
    ledger = ledger_at(server)
    ledger.store.server.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(BadInput, match="allkeys-lru"):
        ledger_at(server)


def test_limits_that_are_not_exact_are_refused(server: RedisServer) -> None:
    """More than nine million dollars in nano-dollars don't fit into what Redis counts in."""
    with pytest.raises(BadInput, match="counts exactly up to"):
        ledger_at(server, Budget("everything", "9100000"))
    ledger = ledger_at(server, Budget("tenant:acme", "9000000"))
    ledger.purse(ANA).reserve(8_999_999_999_999_999).settle(8_999_999_999_999_999)
    assert used(ledger) == (8_999_999_999_999_999, 0, 0)


def test_the_servers_clock_counts(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose own clock is years ahead opens no new day for everybody."""
    ledger = ledger_at(server, Budget("tenant:acme", "0.0000001", "day"))
    ledger.purse(ANA).reserve(100).settle(100)
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + 4e7)
    assert ledger_at(server).purse(ANA).left() == 0
