"""Marks of budgets that processes share: each is told once, by one of them, and survives whoever was to tell it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from escalade.errors import BudgetExceeded, StoreUnavailable
from escalade.registry.budgets import Budget
from escalade.registry.ledger import Crossing
from escalade.scopes import Principal
from tests._house import ROOT
from tests.registry.helpers import Clock
from tests.registry.stores.crowd import open_ledger
from tests.servers.redis_server import RedisServer

ANA = Principal("ana", "acme")
BUDGET = Budget("tenant:acme", "0.0000001", "day")
"""100 nano-dollars."""

DAY = 86_400.0

DIES_BEFORE_TELLING = """
import os, signal, sys
from escalade.scopes import Principal
from tests.registry.stores.crowd import open_ledger
ledger = open_ledger(*sys.argv[1:], listen=lambda crossing: os.kill(os.getpid(), signal.SIGKILL))
ledger.purse(Principal("ana", "acme")).reserve(96).settle(96)
"""

DIES_WHILE_DELIVERING = """
import os, signal, sys
from concurrent.futures import Future
from escalade.scopes import Principal
from tests.registry.stores.crowd import open_ledger
delivery = Future()
ledger = open_ledger(*sys.argv[2:], listen=lambda crossing: delivery)
ledger.purse(Principal("ana", "acme")).reserve(96).settle(96)
if sys.argv[1] == "True":
    delivery.set_result(None)
os.kill(os.getpid(), signal.SIGKILL)
"""

CROSSES_WITH_THREADS = """
import os, sys, threading
from escalade.errors import BudgetExceeded
from escalade.scopes import Principal
from tests.registry.stores.crowd import open_ledger
kind, where = sys.argv[1:]
# in one piece: what two threads print at once gets mixed
ledger = open_ledger(kind, where, listen=lambda told: os.write(1, f"{told.account} {told.level}\\n".encode()))
def work():
    for _ in range(40):
        try:
            ledger.purse(Principal("ana", "acme")).reserve(1).settle(1)
        except BudgetExceeded:
            pass
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

Open = Callable[..., Any]


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Kind and address of a store."""
    if request.param == "sqlite":
        yield "sqlite", str(tmp_path / "budgets.db")
    elif request.param == "postgres":
        yield "postgres", request.getfixturevalue("postgres_url")
    else:
        with RedisServer() as server:
            yield "redis", server.url


@pytest.fixture
def opened(where: tuple[str, str]) -> Open:
    """Opens one more ledger on the store, as one more process would."""
    return lambda *budgets, **options: open_ledger(*where, budgets=budgets, **options)


def use(ledger: Any, amount: int) -> None:
    """Spend it."""
    ledger.purse(ANA).reserve(amount).settle(amount)


def levels(heard: list[Crossing]) -> list[str]:
    return [crossing.level for crossing in heard]


def test_one_process_tells(opened: Open) -> None:
    """Both processes see that the account has crossed; the first one tells, and the other one keeps silent."""
    heard: tuple[list[Crossing], list[Crossing]] = ([], [])
    one, two = (opened(BUDGET, listen=each.append) for each in heard)
    use(one, 80)
    use(two, 1)
    use(two, 15)
    use(one, 1)
    assert levels(heard[0]) == ["warn"]
    assert levels(heard[1]) == ["brake"]
    assert heard[1][0] == Crossing("tenant:acme", "brake", heard[1][0].used, heard[1][0].limit)
    assert (int(heard[1][0].used), heard[1][0].limit) == (96, BUDGET.limit)


def test_refusals_are_told_once(opened: Open) -> None:
    """Of all refusals of an account in a period, over all processes, one is told."""
    heard: list[Crossing] = []
    ledgers = [opened(BUDGET, listen=heard.append) for _ in range(2)]
    for ledger in ledgers * 2:
        with pytest.raises(BudgetExceeded):
            use(ledger, 101)
    assert levels(heard) == ["exhausted"]


def test_a_restart_tells_nothing_again(opened: Open) -> None:
    """What was told before a process ended isn't told by the one that follows it."""
    heard: list[Crossing] = []
    first = opened(BUDGET, listen=heard.append)
    use(first, 96)
    first.close()
    again = opened(BUDGET, listen=heard.append)
    use(again, 1)
    assert levels(heard) == ["brake"]


def test_each_period_tells_anew(opened: Open) -> None:
    """Tomorrow's crossing is another one."""
    clock = Clock(10 * DAY)
    heard: list[Crossing] = []
    ledgers = [opened(BUDGET, listen=heard.append, now=clock) for _ in range(2)]
    for _ in range(2):
        for ledger in ledgers:
            use(ledger, 48)
        clock.forward(DAY)
    assert levels(heard) == ["brake", "brake"]
    assert heard[0].ends == 11 * DAY


def test_a_new_limit_is_crossed_anew(opened: Open) -> None:
    """A limit that one process changes is told again by whoever crosses it, another one included."""
    heard: list[Crossing] = []
    one, two = (opened(BUDGET, listen=heard.append) for _ in range(2))
    use(one, 96)
    two.set_budget(Budget("tenant:acme", "0.0000002", "day"))
    use(one, 40)
    assert levels(heard) == ["brake"]
    use(one, 30)
    use(two, 1)
    assert levels(heard) == ["brake", "warn"]
    two.set_budget(Budget("tenant:acme", "0.0000002", "day"))
    use(two, 1)
    assert levels(heard) == ["brake", "warn"], "the same limit, set again, is no change"


def test_who_does_not_listen_claims_nothing(opened: Open) -> None:
    """A process without a listener leaves the telling to one that has one."""
    heard: list[Crossing] = []
    deaf, hears = opened(BUDGET), opened(listen=heard.append)
    use(deaf, 96)
    use(hears, 1)
    assert levels(heard) == ["brake"]


def test_scopes_are_told_by_their_own_process(opened: Open) -> None:
    """The account of a run is nobody else's: two runs of one name are told both."""
    heard: list[Crossing] = []
    for ledger in [opened(listen=heard.append) for _ in range(2)]:
        ledger.purse(ANA, limit=10, name="everything").reserve(10).settle(10)
    assert [(c.account, c.level) for c in heard] == [("everything", "brake")] * 2


def test_who_dies_before_telling_leaves_it_to_others(where: tuple[str, str], opened: Open) -> None:
    """A process is killed between its claim and its word: the next one tells it, once."""
    opened(BUDGET).close()
    command = [sys.executable, "-c", DIES_BEFORE_TELLING, *where]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -9
    heard: list[Crossing] = []
    for _ in range(2):
        opened(listen=heard.append).close()
    assert [(c.account, c.level, int(c.used), c.limit) for c in heard] == [("tenant:acme", "brake", 96, BUDGET.limit)]


def test_a_period_that_is_over_is_not_told(where: tuple[str, str], opened: Open) -> None:
    """What a dead process did not tell of yesterday is no news today."""
    opened(BUDGET).close()
    subprocess.run([sys.executable, "-c", DIES_BEFORE_TELLING, *where], cwd=ROOT, check=False, timeout=60)
    heard: list[Crossing] = []
    opened(listen=heard.append, now=Clock(time.time() + 2 * DAY)).close()
    assert heard == []


@pytest.mark.parametrize("delivered", [False, True])
def test_what_is_told_later_counts_when_it_is_done(where: tuple[str, str], opened: Open, delivered: bool) -> None:
    """A listener may return a Future: whoever dies before it is done has not told, and another process does."""
    opened(BUDGET).close()
    command = [sys.executable, "-c", DIES_WHILE_DELIVERING, str(delivered), *where]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -9
    heard: list[Crossing] = []
    opened(listen=heard.append).close()
    assert levels(heard) == ([] if delivered else ["brake"])


def test_a_store_that_is_down_delays_the_telling(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crossing that can't be claimed now is claimed later; the call that crossed is not disturbed."""
    heard: list[Crossing] = []
    ledger = opened(BUDGET, listen=heard.append, rest=0.0)

    def down(crossing: Crossing) -> bool:
        raise StoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.store, "claim", down)
        use(ledger, 96)
    assert heard == []
    ledger.keep()
    assert levels(heard) == ["brake"]


def test_exactly_once_over_processes(where: tuple[str, str], opened: Open) -> None:
    """Four processes of eight threads cross all marks at once: each is told once over all of them, and no warning after
    the brake: whoever was slow to claim it keeps it to himself.
    """
    opened(BUDGET).close()
    command = [sys.executable, "-c", CROSSES_WITH_THREADS, *where]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [line for process in running for line in process.communicate(timeout=90)[0].splitlines()]
    assert [process.returncode for process in running] == [0] * 4
    assert sorted(said)[:2] == ["tenant:acme brake", "tenant:acme exhausted"]
    assert sorted(said)[2:] in ([], ["tenant:acme warn"])


def test_changes_are_noted(opened: Open) -> None:
    """The store knows which budgets were set, to what and by whom; a program that repeats them changes nothing."""
    ledger = opened(BUDGET)
    opened(BUDGET)
    more = Budget("tenant:acme", "0.0000002", "day")
    ledger.set_budget(more, by="ana")
    latest, first = ledger.store.changes()
    assert (first.was, first.now, first.by) == (None, BUDGET, "")
    assert (latest.was, latest.now, latest.by) == (BUDGET, more, "ana")
    assert latest.at >= first.at > 0
