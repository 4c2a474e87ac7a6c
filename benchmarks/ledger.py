"""The ledger: what a reservation and its settlement take, and that no number of threads passes the limit."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from escalade.errors import BudgetExceeded
from escalade.registry.ledger import Budget, Ledger, LedgerPurse
from escalade.scopes import Principal

LIMIT_US = 15.0
CALLS, THREADS, EACH, MONEY = 20_000, 64, 1_000, 3_000_000


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians of the repeats, interleaved; the worst of all repeats where nothing may ever be passed."""
    lone, tree, bare = Ledger().purse(limit=10**15), _tree(), _Bare()
    times: dict[str, list[float]] = {"lone": [], "tree": [], "bare": []}
    for _ in range(repeats):
        for name, purse in (("lone", lone), ("tree", tree), ("bare", bare)):
            times[name].append(_pair(purse))
    base = statistics.median(times["bare"])
    return [
        _figure("reserve + settle, one account", statistics.median(times["lone"]), base),
        _figure("reserve + settle, request < run < user < tenant < everything", statistics.median(times["tree"]), base),
        _crowd([_threads() for _ in range(max(1, repeats // 2))]),
    ]


class _Bare:
    """The least that it could be: a lock and a sum."""

    def __init__(self) -> None:
        self._lock, self._sum = threading.Lock(), 0

    def reserve(self, amount: int) -> _Bare:
        with self._lock:
            self._sum += amount
        return self

    def settle(self, amount: int) -> None:
        with self._lock:
            self._sum -= amount


def _tree() -> LedgerPurse:
    """Five levels, three of them with a daily budget of their own."""
    names = ("user:acme/ana", "tenant:acme", "everything")
    ledger = Ledger([Budget(name, "1000000", period="day") for name in names])
    return ledger.purse(Principal("ana", "acme"), limit=10**15).child("request", 10**14)


def _pair(purse: Any) -> float:
    """Microseconds of a reservation and its settlement."""
    began = time.perf_counter()
    for _ in range(CALLS):
        purse.reserve(10).settle(7)
    return (time.perf_counter() - began) / CALLS * 1e6


def _threads() -> tuple[float, int, int]:
    """Reservations per second of 64 threads x 1,000, what was spent, and the most that was ever settled and held."""
    top = Ledger().purse(limit=MONEY)
    account, worst = top.account, [0] * THREADS

    def work(number: int) -> None:
        purse = top.child("thread", None, optional=True)
        for turn in range(EACH):
            try:
                hold = purse.reserve(100)
            except BudgetExceeded:
                purse = top.child("thread", None, optional=True)
                continue
            with top.ledger._lock:
                worst[number] = max(worst[number], account.settled + account.held)
            hold.settle(turn % 101)

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    return THREADS * EACH / (time.perf_counter() - began), top.spent, max(worst)


def _figure(name: str, microseconds: float, base: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": microseconds,
        "unit": "us",
        "limit": f"<= {LIMIT_US:g} us",
        "ok": microseconds <= LIMIT_US,
        "ratio": microseconds / base,
        "note": "ratio to a lock and a sum",
    }


def _crowd(runs: list[tuple[float, int, int]]) -> dict[str, Any]:
    worst, spent = max(worst for _, _, worst in runs), max(spent for _, spent, _ in runs)
    return {
        "name": f"{THREADS} threads x {EACH:,}: most ever settled and held, of the limit",
        "value": worst / MONEY,
        "unit": "",
        "limit": "<= 1",
        "ok": worst <= MONEY and spent <= MONEY,
        "ratio": None,
        "note": f"{statistics.median(rate for rate, _, _ in runs):,.0f} reservations/s; {spent / MONEY:.1%} spent",
    }
