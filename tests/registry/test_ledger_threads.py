"""The ledger under real concurrency: 64 threads x 1,000 reservations, with sleeps, exceptions and cancellations."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from escalade.errors import BudgetExceeded
from escalade.registry.ledger import Account, Budget, Ledger, LedgerPurse, Reservation
from escalade.scopes import Principal

THREADS, EACH, LIMIT = 64, 1_000, 1_500_000


class Watch:
    """Looks at accounts as fast as it can, in a thread of its own, and remembers the worst that it saw."""

    def __init__(self, ledger: Ledger, top: LedgerPurse) -> None:
        self.ledger, self.top, self.worst, self.looks, self.stop = ledger, top, 0, 0, False
        self.thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop = True
        self.thread.join()

    def _look(self) -> None:
        account = self.top.account
        while not self.stop:
            with self.ledger._lock:  # both figures of one moment
                self.worst = max(self.worst, account.settled + account.held)
            self.looks += 1
            time.sleep(0.0005)


class Boom(Exception):
    """A tool failed."""


async def cancelled_use(purse: LedgerPurse, amount: int, done: Counter[str]) -> None:
    """A use that is cancelled while it sleeps."""

    async def use() -> None:
        hold = purse.reserve(amount)
        try:
            await asyncio.sleep(60)
        finally:
            hold.settle(amount // 2)
            done["spent"] += amount // 2
            done["cancelled"] += 1

    task = asyncio.create_task(use())
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return


def one_use(purse: LedgerPurse, chance: random.Random, done: Counter[str]) -> None:
    """One use that ends in one of the ways that uses end in."""
    amount, way = chance.randrange(100), chance.random()
    if way < 0.02:
        asyncio.run(cancelled_use(purse, amount, done))
        return
    hold = purse.reserve(amount)
    bill = chance.randrange(amount + 1)
    try:
        if way < 0.03:
            time.sleep(chance.random() * 0.002)
        if way > 0.8:
            bill = amount
            raise Boom
        done["ok"] += 1
    except Boom:
        done["failed"] += 1
    finally:
        if way > 0.95:
            bill = 0
            hold.release()
        hold.settle(bill)
        hold.settle(99)  # a second end changes nothing
        done["spent"] += bill


def worker(top: LedgerPurse, seed: int) -> Counter[str]:
    """1,000 uses in a purse of its own; a refusal ends one optional child, and the next one is tried."""
    chance, done = random.Random(seed), Counter[str]()
    for use in range(EACH):
        if use % 100 == 0:
            purse = top.child(f"worker {seed}", None if chance.random() < 0.5 else 3_000, optional=True)
        try:
            one_use(purse, chance, done)
        except BudgetExceeded:
            done["refused"] += 1
    return done


@pytest.mark.slow
def test_64_threads_never_pass_the_limit() -> None:
    """64 threads x 1,000 reservations: the limit holds at every moment that was seen, and nothing is lost or held
    after.
    """
    ledger = Ledger([Budget("everything", "0.002"), Budget("user:default/owner", "0.0016")])
    top = ledger.purse(Principal("owner"), limit=LIMIT)
    with Watch(ledger, top) as watch, ThreadPoolExecutor(THREADS) as pool:
        totals = sum(pool.map(lambda seed: worker(top, seed), range(THREADS)), Counter[str]())
    assert watch.looks > 50
    assert watch.worst <= LIMIT
    assert top.spent <= LIMIT
    assert top.spent == totals["spent"] == sum(a.settled for a in ledger.accounts()) // 2
    assert top.held == 0
    assert all(account.held == 0 for account in ledger.accounts())
    assert totals["ok"] + totals["failed"] + totals["cancelled"] + totals["refused"] == THREADS * EACH
    assert min(totals["ok"], totals["failed"], totals["cancelled"], totals["refused"]) > 0, totals
    assert top.spent > LIMIT * 0.9, "the limit was reached, so that the test means something"


def test_the_last_nano_dollar_is_sold_once() -> None:
    """Of 64 threads that race for the money of one, exactly one gets it."""
    for _ in range(20):
        top = Ledger().purse(limit=1)
        start = threading.Barrier(THREADS)

        def grab(purse: LedgerPurse, start: threading.Barrier = start) -> Reservation | None:
            start.wait()
            try:
                return purse.reserve(1)
            except BudgetExceeded:
                return None

        with ThreadPoolExecutor(THREADS) as pool:
            purses = [top.child("racer", None, optional=True) for _ in range(THREADS)]
            assert sum(hold is not None for hold in pool.map(grab, purses)) == 1


class Yielding(Account):
    """An account that lets another thread run whenever it is looked at."""

    __slots__ = ("_held",)

    @property
    def held(self) -> int:  # type: ignore[override]
        """As of now, and a chance for everybody else."""
        time.sleep(0)
        return self._held

    @held.setter
    def held(self, amount: int) -> None:
        self._held = amount


def test_switches_in_the_middle_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thread switch at each look at an account, no limit is passed and no amount is lost."""
    monkeypatch.setattr("escalade.registry.ledger.Account", Yielding)
    top = Ledger().purse(limit=1_000)
    account = top.account

    def work(seed: int) -> int:
        purse, spent = top.child("child", None, optional=True), 0
        for _ in range(40):
            try:
                hold = purse.reserve(100)
            except BudgetExceeded:
                purse = top.child("child", None, optional=True)
                continue
            with top.ledger._lock:
                assert account.settled + account.held <= 1_000
            ends = [threading.Thread(target=hold.settle, args=(2,)) for _ in range(2)]
            for end in ends:
                end.start()
            for end in ends:
                end.join()
            spent += 2
        return spent

    with ThreadPoolExecutor(16) as pool:
        spent = sum(pool.map(work, range(16)))
    assert (top.spent, top.held) == (spent, 0)
