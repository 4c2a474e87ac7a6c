"""A process with 64 threads that reserve and settle on a shared ledger until they are told to stop, or killed.

    python -m tests.registry.stores.crowd sqlite budgets.db log.txt 10
    python -m tests.registry.stores.crowd redis redis://127.0.0.1:6390/0 log.txt 10

Each use writes its bill to the log (O_APPEND, one write) when its settlement is done.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from typing import Any

from escalade.errors import BudgetExceeded, StoreUnavailable
from escalade.scopes import Principal

THREADS, MOST = 64, 100
ANA = Principal("ana", "acme")


def open_ledger(kind: str, where: str, **options: Any) -> Any:
    """The ledger that is shared."""
    if kind == "sqlite":
        from escalade.registry.stores.sqlite_ledger import SqliteLedger

        return SqliteLedger(where, **{"patience": 10.0, **options})
    if kind == "postgres":
        from escalade.registry.stores.postgres_ledger import PostgresLedger

        return PostgresLedger(where, **{"timeout": 10.0, **options})
    from escalade.registry.stores.redis_ledger import RedisLedger

    return RedisLedger(where, **{"timeout": 10.0, **options})


def work(ledger: Any, log: int, until: float, seed: str) -> None:
    """Uses until the time is up; each in a run of its own, since refusals stick to runs."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        amount = chance.randrange(1, MOST + 1)
        try:
            hold = ledger.purse(ANA, run=seed).reserve(amount, "a use")
        except BudgetExceeded:
            time.sleep(0.02)
            continue
        except StoreUnavailable:
            os.write(log, b"down\n")
            time.sleep(0.02)
            continue
        time.sleep(chance.random() * 0.004)
        bill = chance.randrange(amount + 1)
        hold.settle(bill)
        os.write(log, f"{bill}\n".encode())


def main(kind: str, where: str, log: str, seconds: str) -> None:
    """Open the ledger, say so, and let the threads work."""
    ledger = open_ledger(kind, where)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    until = time.monotonic() + float(seconds)
    print("ready", flush=True)
    threads = [
        threading.Thread(target=work, args=(ledger, file, until, f"{os.getpid()}-{number}"))
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while ledger.unsettled:
        time.sleep(0.1)
        ledger.keep()


if __name__ == "__main__":
    main(*sys.argv[1:])
